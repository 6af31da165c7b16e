//! The build of one index: taking the turn, watching, and breaking off.

use std::convert::Infallible;
use std::time::Duration;

use sink_postgres_vector::{
    BuildLimits, ConnectOptions, Connection, Error, Ident, IndexBuild, IndexFound, VectorIndex,
};
use tokio::time::Instant;

use super::keeper::{Keeper, Step};
use super::means::Means;
use super::pauses::Pauses;
use crate::config::IndexSettings;

/// How often the database is asked how far a build is, or to break it off.
const ASK: Duration = Duration::from_secs(1);
/// For how long it is asked to break it off. After that its session ends, which the server notices by itself.
const LONGEST_BREAK: Duration = Duration::from_secs(5);
/// The longest pause before it is asked again whether another's build is done.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);

impl Keeper {
    /// Builds, if nobody else does. `watcher` is another connection than that of the build.
    pub(super) async fn take_turn(&self, watcher: &Connection, means: &mut Means) -> Result<Step, Error> {
        let begin = async {
            let Some(build) = IndexBuild::begin(&self.options, &self.index).await? else { return Ok(None) };
            let found = build.find().await?;
            Ok::<_, Error>(Some((build, found)))
        };
        let Some(begun) = self.unless_stopped(begin).await else { return Ok(Step::Again) };
        let Some((build, found)) = begun? else {
            return Ok(self.busy(watcher, "another connector builds it").await);
        };
        // Somebody was at it between the look and the turn.
        if found != IndexFound::Missing {
            build.end().await;
            return Ok(Step::Again);
        }
        tracing::info!(index = self.name(), table = self.table(), "building the vector index");
        means.begin(Instant::now());
        let limits = means.limits(&self.settings);
        let Some(built) = self.watch(watcher, &build, build.build(&limits)).await else {
            return Ok(Step::Again);
        };
        match built {
            Ok(built) => {
                tracing::info!(
                    index = self.name(),
                    rows = built.rows as u64,
                    maintenance_mib = built.maintenance_memory >> 20,
                    seconds = built.took.as_secs_f64(),
                    "built the vector index"
                );
                build.end().await;
                self.tell_usable(&IndexFound::Ready);
                Ok(Step::Done)
            }
            Err(error) => {
                let is_silent = error.is_closed() && error.sqlstate().is_none();
                let crashed = is_silent && self.unless_stopped(has_crashed(watcher)).await == Some(true);
                build.end().await;
                Ok(Step::Broken { error, crashed })
            }
        }
    }

    /// Tells how far somebody else is.
    pub(super) async fn busy(&self, watcher: &Connection, reason: &str) -> Step {
        self.unless_stopped(self.tell_progress(watcher, Some(reason))).await;
        Step::Busy
    }

    /// Awaits `work` of the build's session, tells how far it is, and breaks it off at the stop. `None` if it did not end
    /// in time then.
    async fn watch<T>(
        &self,
        watcher: &Connection,
        build: &IndexBuild<'_>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        // Each by itself: a watcher that gets no answer is to hide neither the stop nor the end.
        tokio::select! {
            biased;
            done = self.unless_broken_off(build, work) => done,
            never = self.keep_telling(watcher) => match never {},
        }
    }

    async fn keep_telling(&self, watcher: &Connection) -> Infallible {
        let mut ask = tokio::time::interval(ASK);
        loop {
            ask.tick().await;
            self.tell_progress(watcher, None).await;
        }
    }

    /// Awaits `work` of the build's session, and breaks it off at the stop. `None` if it did not end in time then.
    pub(super) async fn unless_broken_off<T>(
        &self,
        build: &IndexBuild<'_>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.break_off(build) => None,
        }
    }

    /// From the stop on asks again and again: what comes between two statements of the build breaks nothing off.
    async fn break_off(&self, build: &IndexBuild<'_>) {
        self.stop.cancelled().await;
        if let Ok(never) = tokio::time::timeout(LONGEST_BREAK, self.keep_cancelling(build)).await {
            match never {}
        }
    }

    async fn keep_cancelling(&self, build: &IndexBuild<'_>) -> Infallible {
        let mut ask = tokio::time::interval(ASK);
        loop {
            ask.tick().await;
            let asked = async {
                let connection = Connection::open(&self.options).await?;
                IndexBuild::cancel(&connection, build.backend()).await?;
                connection.close().await;
                Ok::<_, Error>(())
            };
            if let Err(error) = asked.await {
                tracing::debug!(%error, "the server will notice by itself that the build is not wanted");
            }
        }
    }
}

/// Whether the server loses its sessions all at once, as it does when it has lost one of its processes. It tells the others
/// so, within this rest.
async fn has_crashed(watcher: &Connection) -> bool {
    let rest = watcher.client().batch_execute("select pg_catalog.pg_sleep(1)");
    let ended = watcher.during("see whether the server goes on", rest).await;
    ended.is_err_and(|error| error.sqlstate().is_some_and(|state| state.code() == "57P02"))
}

/// What came of building at once.
pub(crate) enum Outcome {
    /// It was built.
    Built,
    /// There is one.
    Found,
    /// One by hand is in its place, and cannot be used.
    Blocked(Ident),
}

/// Builds the index if it is missing, and waits for whoever is at it already.
///
/// # Errors
/// Why it could not.
pub(crate) async fn build_now(
    index: &VectorIndex,
    settings: &IndexSettings,
    options: &ConnectOptions,
) -> Result<Outcome, Error> {
    let mut waits = Pauses::to(LONGEST_WAIT);
    loop {
        if let Some(build) = IndexBuild::begin(options, index).await?
            && let Some(outcome) = build_with(&build, &Means::default().limits(settings), options).await?
        {
            build.end().await;
            return Ok(outcome);
        }
        tokio::time::sleep(waits.next()).await;
    }
}

/// `None` where somebody builds it by hand.
async fn build_with(
    build: &IndexBuild<'_>,
    limits: &BuildLimits,
    options: &ConnectOptions,
) -> Result<Option<Outcome>, Error> {
    loop {
        match build.find().await? {
            IndexFound::Ready | IndexFound::ByHand { valid: true, .. } => return Ok(Some(Outcome::Found)),
            IndexFound::ByHand { valid: false, .. } if build.is_under_way().await? => return Ok(None),
            IndexFound::ByHand { name, valid: false } => return Ok(Some(Outcome::Blocked(name))),
            IndexFound::Missing => break,
            IndexFound::Invalid => {
                if !build.drop_invalid().await? {
                    return Ok(None);
                }
            }
        }
    }
    match build.build(limits).await {
        Ok(_) => Ok(Some(Outcome::Built)),
        Err(error) => {
            tracing::warn!(%error, "the build failed; dropping what it has left");
            clear(build, options, &error).await;
            Err(error)
        }
    }
}

/// Drops what a build has left that failed with `error`, if its session lives: it costs with every write, and may be what
/// fills the disk.
async fn clear(build: &IndexBuild<'_>, options: &ConnectOptions, error: &Error) {
    // Where all is one transaction, nothing is left.
    if !options.prepared || error.is_closed() {
        return;
    }
    let cleared = async {
        if build.find().await? == IndexFound::Invalid {
            build.drop_invalid().await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = cleared.await {
        tracing::warn!(%error, "what is left of a build stays until the next");
    }
}
