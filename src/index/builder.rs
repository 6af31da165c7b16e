//! The build of one index: taking the turn, watching, breaking off, and what is left of one that failed.

use std::convert::Infallible;
use std::time::Duration;

use sink_postgres_vector::{
    BuildLimits, ConnectOptions, Connection, Error, IndexBuild, IndexFound, VectorIndex,
};

use super::keeper::{Keeper, Step};
use super::means::Means;
use super::pauses::Pauses;
use crate::config::IndexSettings;

/// How often the database is asked how far a build is, or to break it off.
const ASK: Duration = Duration::from_secs(1);
/// The longest pause before it is asked again whether another's build is done.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);

impl Keeper {
    /// Builds, if nobody else does. `watcher` is another connection than that of the build.
    pub(super) async fn take_turn(
        &self,
        watcher: &Connection,
        due: bool,
        means: &Means,
    ) -> Result<Step, Error> {
        let Some(build) = IndexBuild::begin(&self.options, &self.index).await? else {
            self.tell_progress(watcher, Some("another connector builds it")).await;
            return Ok(Step::Busy);
        };
        loop {
            match build.find().await? {
                IndexFound::Ready | IndexFound::ByHand { .. } => return Ok(Step::Again),
                // Without ours, every row of a backlog is put into one index less. It is built when that is written.
                IndexFound::Missing if !due => return Ok(Step::Again),
                IndexFound::Missing => break,
                // Looks again then: to drop it takes long, and somebody may have made one by hand meanwhile.
                IndexFound::Invalid => {
                    tracing::info!(index = self.name(), "dropping what a build that was broken off has left");
                    if !self.watch(watcher, &build, build.drop_invalid()).await? {
                        self.tell_progress(watcher, Some("it is being built by hand")).await;
                        return Ok(Step::Busy);
                    }
                }
            }
        }
        if self.stop.is_cancelled() {
            return Ok(Step::Again);
        }
        tracing::info!(index = self.name(), table = self.table(), "building the vector index");
        let limits = means.limits(&self.settings);
        let built = match self.watch(watcher, &build, build.build(&limits)).await {
            Ok(built) => built,
            Err(error) => {
                if !self.stop.is_cancelled() {
                    clear(&build, &self.options, &error).await;
                }
                return Ok(Step::Broken(error));
            }
        };
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

    /// Drops what is left of a build whose session has ended, because there will be no other.
    pub(super) async fn clear_anew(&self) {
        let cleared = async {
            let Some(build) = IndexBuild::begin(&self.options, &self.index).await? else { return Ok(()) };
            if build.find().await? == IndexFound::Invalid {
                build.drop_invalid().await?;
            }
            build.end().await;
            Ok::<_, Error>(())
        };
        if let Err(error) = cleared.await {
            tracing::warn!(index = self.name(), %error, "what is left of the build stays, and costs with every write");
        }
    }

    /// Awaits `work` of the build's session, tells how far it is, and breaks it off at the stop.
    async fn watch<T>(
        &self,
        watcher: &Connection,
        build: &IndexBuild<'_>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Each by itself: a watcher that gets no answer is to hide neither the stop nor the end.
        tokio::select! {
            biased;
            done = work => done,
            never = self.break_off(build) => match never {},
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

    /// From the stop on asks again and again: what comes between two statements of the build breaks nothing off.
    async fn break_off(&self, build: &IndexBuild<'_>) -> Infallible {
        self.stop.cancelled().await;
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

/// Builds the index if it is missing, and waits for whoever is at it already. Says whether it built it.
///
/// # Errors
/// Why it could not.
pub(crate) async fn build_now(
    index: &VectorIndex,
    settings: &IndexSettings,
    options: &ConnectOptions,
) -> Result<bool, Error> {
    let mut waits = Pauses::to(LONGEST_WAIT);
    loop {
        if let Some(build) = IndexBuild::begin(options, index).await?
            && let Some(built) = build_with(&build, &Means::default().limits(settings), options).await?
        {
            build.end().await;
            return Ok(built);
        }
        tokio::time::sleep(waits.next()).await;
    }
}

/// `None` where somebody builds it by hand.
async fn build_with(
    build: &IndexBuild<'_>,
    limits: &BuildLimits,
    options: &ConnectOptions,
) -> Result<Option<bool>, Error> {
    loop {
        match build.find().await? {
            IndexFound::Ready | IndexFound::ByHand { .. } => return Ok(Some(false)),
            IndexFound::Missing => break,
            IndexFound::Invalid => {
                if !build.drop_invalid().await? {
                    return Ok(None);
                }
            }
        }
    }
    match build.build(limits).await {
        Ok(_) => Ok(Some(true)),
        Err(error) => {
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
