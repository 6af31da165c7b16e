//! Sees to one index until it is there, or cannot be built.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use sink_postgres_vector::{
    BuildLimits, Class, ConnectOptions, Connection, Error, IndexBuild, IndexFound, VectorIndex,
};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calm::Calm;
use crate::config::{IndexBuildTime, IndexSettings};
use crate::monitoring::{IndexProgress, IndexState, Monitor};

/// How often the connector's own figures are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often the database is asked how far a build is.
const ASK: Duration = Duration::from_secs(1);
/// The longest pause after a fault that passes.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What sees to one index.
pub(super) struct Keeper {
    pub(super) index: VectorIndex,
    pub(super) settings: IndexSettings,
    pub(super) options: ConnectOptions,
    pub(super) monitor: Arc<Monitor>,
    /// Taken for a build.
    pub(super) turn: Arc<Mutex<()>>,
    pub(super) stop: CancellationToken,
}

/// What came of looking after the index.
enum Step {
    /// It needs nothing more.
    Done,
    /// It is missing, and now is not the time.
    NotYet,
    /// It is missing, but there is nothing to index.
    Empty,
    /// Somebody else is building it, or has just changed something.
    Again,
}

impl Keeper {
    pub(super) fn is(&self, build: IndexBuildTime) -> bool {
        self.settings.build == build
    }

    /// Until the index is there, cannot be built, or the stop.
    pub(super) async fn run(self) {
        let (mut pauses, mut scarce) = (pauses(), false);
        let mut due = self.is(IndexBuildTime::Immediate);
        while !self.stop.is_cancelled() {
            // From before the table was looked at, or rows that come meanwhile would not count as more.
            let settled = self.monitor.look().settled;
            let stepped = tokio::select! {
                biased;
                // A build breaks itself off; what else is under way asks and waits only.
                () = self.stop.cancelled(), if !due => return,
                stepped = self.step(due, scarce) => stepped,
            };
            match stepped {
                Ok(Step::Done) => return,
                Ok(Step::NotYet) => {
                    self.calm().await;
                    due = true;
                }
                Ok(Step::Empty) => {
                    self.more_than(settled).await;
                    self.calm().await;
                }
                Ok(Step::Again) => self.pause(ASK).await,
                Err(error) if self.stop.is_cancelled() => {
                    tracing::info!(index = self.name(), %error, "the build of the index was broken off by the stop");
                }
                Err(error) if error.class() == Class::Transient => {
                    let text = said(&error);
                    tracing::warn!(index = self.name(), error = %text, "the index is not built yet; trying again");
                    self.tell(IndexProgress { reason: Some(text), ..IndexState::Waiting.into() });
                    scarce |= error.sqlstate().is_some_and(|state| state.code().starts_with("53"));
                    self.pause(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
                Err(error) => {
                    let text = said(&error);
                    tracing::error!(
                        index = self.name(), error = %text,
                        "the index cannot be built; writing goes on, and the next start tries again"
                    );
                    self.tell(IndexProgress { reason: Some(text), ..IndexState::Failed.into() });
                    return;
                }
            }
        }
    }

    async fn step(&self, due: bool, scarce: bool) -> Result<Step, Error> {
        let connection = Connection::open(&self.options).await?;
        let found = self.index.find(&connection).await?;
        let step = match found {
            IndexFound::Ready | IndexFound::ByHand { .. } => {
                self.tell_found(&found);
                Step::Done
            }
            IndexFound::Missing if !due => {
                self.wait_for("the backlog to be written");
                Step::NotYet
            }
            // Building on no rows would make every later one be put in singly.
            IndexFound::Missing
                if self.is(IndexBuildTime::Deferred) && !self.index.has_rows(&connection).await? =>
            {
                self.wait_for("the first rows");
                Step::Empty
            }
            IndexFound::Missing | IndexFound::Invalid => {
                let _one_at_a_time = self.turn.lock().await;
                return self.take_turn(&connection, due, scarce).await;
            }
        };
        connection.close().await;
        Ok(step)
    }

    /// Builds, if nobody else does. `watcher` is another connection than that of the build.
    async fn take_turn(&self, watcher: &Connection, due: bool, scarce: bool) -> Result<Step, Error> {
        let Some(build) = IndexBuild::begin(&self.options, &self.index).await? else {
            self.tell_progress(watcher, Some("another connector builds it")).await;
            return Ok(Step::Again);
        };
        match build.find().await? {
            IndexFound::Ready | IndexFound::ByHand { .. } => return Ok(Step::Again),
            IndexFound::Missing => {}
            IndexFound::Invalid => {
                tracing::info!(index = self.name(), "dropping what a build that was broken off has left");
                self.watch(watcher, &build, build.drop_invalid()).await?;
                if !due {
                    // Without it, every row of the backlog would be put into an index that serves nobody.
                    self.wait_for("the backlog to be written");
                    return Ok(Step::NotYet);
                }
                // Beside it there may be one by now that was made by hand.
                return Ok(Step::Again);
            }
        }
        let memory = self.settings.maintenance_memory as u64;
        // A server whose memory for parallel work is small (a container's /dev/shm) can still build alone.
        let workers = if scarce { Some(0) } else { self.settings.workers };
        tracing::info!(index = self.name(), table = self.table(), "building the vector index");
        let limits = BuildLimits { maintenance_memory: memory, workers };
        let built = match self.watch(watcher, &build, build.build(&limits)).await {
            Ok(built) => built,
            Err(error) => {
                // What is left of it costs with every write, and there will be no other attempt.
                let is_over =
                    error.class() != Class::Transient && self.options.prepared && !error.is_closed();
                if is_over && build.find().await? == IndexFound::Invalid {
                    build.drop_invalid().await?;
                }
                return Err(error);
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
        self.tell_found(&IndexFound::Ready);
        Ok(Step::Done)
    }

    /// Awaits `work` of the build's session, tells how far it is, and breaks it off at the stop.
    async fn watch<T>(
        &self,
        watcher: &Connection,
        build: &IndexBuild<'_>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::pin!(work);
        let mut ask = tokio::time::interval(ASK);
        let mut broken_off = false;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.stop.cancelled(), if !broken_off => {
                    broken_off = true;
                    if let Err(error) = IndexBuild::cancel(watcher, build.backend()).await {
                        tracing::debug!(%error, "the server will notice by itself that the build is not wanted");
                    }
                }
                _ = ask.tick() => self.tell_progress(watcher, None).await,
            }
        }
    }

    /// Waits until the backlog is written, or the stop.
    async fn calm(&self) {
        let (mut calm, mut look) = (Calm::default(), tokio::time::interval(LOOK));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = look.tick() => if calm.sees(self.monitor.look(), Instant::now()) { return },
            }
        }
    }

    /// Waits until more records are durable, or the stop.
    async fn more_than(&self, settled: u64) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = look.tick() => if self.monitor.look().settled > settled { return },
            }
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    fn wait_for(&self, what: &str) {
        let reason = Some(format!("waiting for {what}"));
        self.tell(IndexProgress { reason, ..IndexState::Waiting.into() });
    }

    fn tell_found(&self, found: &IndexFound) {
        let progress = match found {
            IndexFound::ByHand { name, valid } => {
                let state = if *valid {
                    "is there, and is"
                } else {
                    "is there, though it cannot be used yet, and is"
                };
                let reason = format!("{name} {state} left alone");
                tracing::info!(
                    index = name.as_str(),
                    table = self.table(),
                    "an index made by hand is left alone"
                );
                IndexProgress { reason: Some(reason), ..IndexState::ByHand.into() }
            }
            IndexFound::Ready => IndexState::Ready.into(),
            IndexFound::Missing | IndexFound::Invalid => IndexState::Waiting.into(),
        };
        self.tell(progress);
    }

    async fn tell_progress(&self, watcher: &Connection, reason: Option<&str>) {
        // That it cannot be asked says nothing about the build.
        let progress = self.index.progress(watcher).await.unwrap_or_default();
        let (phase, percent) =
            progress.map_or((None, None), |progress| (Some(progress.phase), progress.percent));
        let reason = reason.map(str::to_owned);
        self.tell(IndexProgress { state: IndexState::Building, reason, phase, percent });
    }

    fn tell(&self, progress: IndexProgress) {
        self.monitor.index(self.table(), progress);
    }

    fn name(&self) -> &str {
        self.index.name().as_str()
    }

    fn table(&self) -> &str {
        self.index.table().as_str()
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
    loop {
        if let Some(build) = IndexBuild::begin(options, index).await? {
            let missing = match build.find().await? {
                IndexFound::Ready | IndexFound::ByHand { .. } => false,
                IndexFound::Missing => true,
                // What is left of a build hides whatever else there may be.
                IndexFound::Invalid => {
                    build.drop_invalid().await?;
                    continue;
                }
            };
            if missing {
                let limits = BuildLimits {
                    maintenance_memory: settings.maintenance_memory as u64,
                    workers: settings.workers,
                };
                build.build(&limits).await?;
            }
            build.end().await;
            return Ok(missing);
        }
        tokio::time::sleep(ASK).await;
    }
}

fn said(error: &Error) -> String {
    let limit = error.sqlstate().is_some_and(|state| state.code().starts_with("54"));
    let remedy = match error.remedy() {
        _ if limit => Some("Raise index.maintenance-memory, or ask for fewer lists or links.".to_owned()),
        remedy => remedy,
    };
    remedy.map_or_else(|| error.to_string(), |remedy| format!("{error}. {remedy}"))
}

/// Pauses between attempts: from 1 s, doubled, up to a minute. A build that fails late has cost the server much.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
        .map(|pause| pause.min(LONGEST_PAUSE))
}
