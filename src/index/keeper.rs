//! Sees to one index until it is there, or cannot be built, and looks on from then.

use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{Class, ConnectOptions, Connection, Error, IndexFound, VectorIndex};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::builder::LONGEST_WAIT;
use super::calm::{Calm, SMALL};
use super::means::Means;
use super::notice::said;
use super::pauses::Pauses;
use crate::config::{IndexBuildTime, IndexSettings};
use crate::monitoring::{IndexState, Monitor};
use crate::write::positions;

/// How often the connector's own figures are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The longest pause after a fault that passes, or while an index by hand cannot be used.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest between looks at an index that nothing more is done about.
const LONGEST_REST: Duration = Duration::from_secs(300);

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
pub(super) enum Step {
    /// It needs nothing more.
    Done,
    /// It is missing, and now is not the time.
    NotYet,
    /// It is missing, but there is nothing to index.
    Empty,
    /// It is missing, and other instances have still to write a backlog.
    Elsewhere,
    /// Something has just changed.
    Again,
    /// Somebody else is building it.
    Busy,
    /// One made by hand is in its place, and cannot be used.
    Blocked,
    /// The build itself failed.
    Broken(Error),
}

/// What is done about an index by hand that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Waits,
    GoesOn,
}

impl Keeper {
    pub(super) fn is(&self, build: IndexBuildTime) -> bool {
        self.settings.build == build
    }

    /// Until the index is there, cannot be built, or waits for somebody's hand.
    pub(super) async fn prepare(self) {
        self.see_to(Blocked::GoesOn).await;
    }

    /// Until the stop.
    pub(super) async fn run(self) {
        // That of an immediate index may have failed before the first record.
        if self.told().is_none_or(|told| told.state != IndexState::Failed) {
            self.see_to(Blocked::Waits).await;
        }
        self.look_on().await;
    }

    /// Until the index is there, cannot be built, or the stop.
    async fn see_to(&self, blocked: Blocked) {
        let (mut faults, mut waits) = (Pauses::to(LONGEST_PAUSE), Pauses::to(LONGEST_WAIT));
        let mut elsewhere = Pauses::to(LONGEST_WAIT);
        let (mut blocks, mut means) = (Pauses::to(LONGEST_PAUSE), Means::default());
        let mut due = self.is(IndexBuildTime::Immediate);
        while !self.stop.is_cancelled() {
            // From before the table was looked at, or rows that come meanwhile would not count as more.
            let settled = self.monitor.look().settled;
            let stepped = tokio::select! {
                biased;
                // A build breaks itself off; what else is under way asks and waits only.
                () = self.stop.cancelled(), if !due => return,
                stepped = self.step(due, &means) => stepped,
            };
            if !matches!(stepped, Ok(Step::Busy)) {
                waits.reset();
            }
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
                Ok(Step::Elsewhere) => {
                    self.pause(elsewhere.next()).await;
                    due = false;
                }
                Ok(Step::Again) => {}
                Ok(Step::Busy) => self.pause(waits.next()).await,
                Ok(Step::Blocked) if blocked == Blocked::GoesOn => return,
                Ok(Step::Blocked) => self.pause(blocks.next()).await,
                Ok(Step::Broken(error)) | Err(error) if self.stop.is_cancelled() => {
                    tracing::info!(index = self.name(), %error, "the build of the index was broken off by the stop");
                }
                Ok(Step::Broken(error)) => {
                    if let Some(why) = why_over(&error, &mut means) {
                        if error.is_closed() {
                            self.clear_anew().await;
                        }
                        return self.tell_failure(why);
                    }
                    self.tell_trouble(&error);
                    self.pause(faults.next()).await;
                    // By then there can be a backlog again.
                    due = self.is(IndexBuildTime::Immediate);
                }
                Err(error) if error.class() == Class::Transient => {
                    self.tell_trouble(&error);
                    self.pause(faults.next()).await;
                    due = self.is(IndexBuildTime::Immediate);
                }
                Err(error) => return self.tell_failure(said(&error)),
            }
        }
    }

    async fn step(&self, due: bool, means: &Means) -> Result<Step, Error> {
        let connection = Connection::open(&self.options).await?;
        let found = self.index.find(&connection).await?;
        let step = match &found {
            IndexFound::Ready | IndexFound::ByHand { valid: true, .. } => {
                self.tell_usable(&found);
                Step::Done
            }
            IndexFound::ByHand { name, valid: false } => {
                self.tell_blocked(name.as_str());
                Step::Blocked
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
            IndexFound::Missing
                if self.is(IndexBuildTime::Deferred) && self.behind_elsewhere(&connection).await? =>
            {
                self.wait_for("the backlog of other instances to be written");
                Step::Elsewhere
            }
            IndexFound::Missing | IndexFound::Invalid => {
                let _one_at_a_time = tokio::select! {
                    () = self.stop.cancelled() => return Ok(Step::Again),
                    turn = self.turn.lock() => turn,
                };
                return self.take_turn(&connection, due, means).await;
            }
        };
        connection.close().await;
        Ok(step)
    }

    /// Whether other instances have a backlog to write.
    async fn behind_elsewhere(&self, connection: &Connection) -> Result<bool, Error> {
        let (connector, held) = (self.monitor.connector(), self.monitor.ends_held());
        Ok(positions::behind_elsewhere(connection, connector, &held).await? > SMALL)
    }

    /// Looks from time to time whether what was told still holds, until the stop.
    async fn look_on(&self) {
        let mut rests = Pauses::to(LONGEST_REST);
        while !self.stop.is_cancelled() {
            self.pause(rests.next()).await;
            let look = async {
                let connection = Connection::open(&self.options).await?;
                let found = self.index.find(&connection).await?;
                connection.close().await;
                Ok::<_, Error>(found)
            };
            let found = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                found = look => found,
            };
            match found {
                Ok(found) => self.tell_later(&found),
                Err(error) => {
                    tracing::debug!(index = self.name(), %error, "it is not known whether it is there");
                }
            }
        }
    }

    /// Waits until the backlog is written, or the stop.
    async fn calm(&self) {
        let (mut calm, mut look) = (Calm::default(), tokio::time::interval(LOOK));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = look.tick() => {
                    let (seen, now) = (self.monitor.look(), Instant::now());
                    if calm.sees(seen, now) {
                        return;
                    }
                    if calm.is_overdue(now) {
                        tracing::warn!(
                            index = self.name(), table = self.table(), lag = seen.lag,
                            "the backlog is not written yet, so the index is not built; if the lag stays, build it by \
                             hand, or start with `build: immediate`"
                        );
                    }
                }
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
}

/// Why there is to be no other build after one that failed with `error`. `None` if there is.
fn why_over(error: &Error, means: &mut Means) -> Option<String> {
    let may_go_on = means.learn(error);
    // The building session has no limit for statements, so somebody has cancelled it.
    if error.sqlstate().is_some_and(|state| state.code() == "57014") {
        return Some(
            "somebody cancelled the build on the server. Start the connector again, or run `embedsink migrate` with \
             `build: immediate`, to build the index"
                .to_owned(),
        );
    }
    match error.class() {
        Class::Transient if may_go_on => None,
        Class::Transient => Some(format!("the server ran out {} times: {}", means.failures(), said(error))),
        Class::Data | Class::Configuration | Class::Fatal => Some(said(error)),
    }
}
