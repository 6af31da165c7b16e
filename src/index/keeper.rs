//! Sees to one index until it is there, or cannot be built, and looks on from then.
//!
//! The way: judge that it is calm, take the turn, look again, build, tell, clean up. What was judged before a wait does
//! not count behind it. Every wait ends with the stop.

use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{Class, ConnectOptions, Connection, Error, IndexFound, VectorIndex};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::builder::LONGEST_WAIT;
use super::calm::{LONG, SMALL};
use super::means::{Means, Verdict};
use super::notice::said;
use super::pauses::Pauses;
use crate::config::{IndexBuildTime, IndexSettings};
use crate::monitoring::{IndexState, Monitor};
use crate::write::positions;

/// The longest pause after a fault that passes, while an index by hand cannot be used, or a table is empty.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest between looks at an index that nothing more is done about.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// With fewer rows, to compare all of them is as fast as an index, and they can be the first of a backlog.
const FEW: u32 = 1_000;

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
    /// The same, but there is next to nothing.
    Few,
    /// It is missing, and other instances have still to write a backlog.
    Elsewhere,
    /// It is missing, and this connector builds another one.
    Queued,
    /// Something has just changed.
    Again,
    /// Somebody else is building it.
    Busy,
    /// One made by hand is in its place, and cannot be used.
    Blocked,
    /// The build itself failed, and may have left something.
    Broken {
        error: Error,
        /// The server has lost the process that built, and with it all others.
        crashed: bool,
    },
    /// What a build had left could not be dropped.
    Unclean(Error),
}

/// What is done about an index by hand that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Waits,
    GoesOn,
}

/// Whether a missing index may be built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    No,
    /// It was calm a moment ago.
    Calm,
    /// It has been for long.
    LongCalm,
    /// Whatever comes.
    Always,
}

/// What a look at the table calls for.
enum Next {
    /// Nothing now.
    Rest(Step),
    /// To drop what a build has left.
    Clean,
    Build,
}

impl Keeper {
    pub(super) fn is(&self, build: IndexBuildTime) -> bool {
        self.settings.build == build
    }

    /// Until the index is there, cannot be built, or waits for somebody's hand.
    pub(super) async fn prepare(self) {
        Box::pin(self.see_to(Blocked::GoesOn)).await;
    }

    /// Until the stop.
    pub(super) async fn run(self) {
        // That of an immediate index may have failed before the first record.
        if self.told().is_none_or(|told| told.state != IndexState::Failed) {
            Box::pin(self.see_to(Blocked::Waits)).await;
        }
        self.look_on().await;
    }

    /// Until the index is there, cannot be built, or the stop.
    async fn see_to(&self, blocked: Blocked) {
        let (mut faults, mut waits) = (Pauses::to(LONGEST_PAUSE), Pauses::to(LONGEST_WAIT));
        let (mut blocks, mut rests) = (Pauses::to(LONGEST_PAUSE), Pauses::to(LONGEST_PAUSE));
        let mut elsewhere = Pauses::to(LONGEST_WAIT);
        let mut means = Means::default();
        let undue = if self.is(IndexBuildTime::Immediate) { Due::Always } else { Due::No };
        let mut due = undue;
        while !self.stop.is_cancelled() {
            // From before the table was looked at, or rows that come meanwhile would not count as more.
            let settled = self.monitor.look().settled;
            let stepped = self.step(std::mem::replace(&mut due, undue), &mut means).await;
            if !matches!(stepped, Ok(Step::Busy)) {
                waits.reset();
            }
            match stepped {
                Ok(Step::Done) => return,
                Ok(Step::Broken { error, .. } | Step::Unclean(error)) | Err(error)
                    if self.stop.is_cancelled() =>
                {
                    tracing::info!(index = self.name(), %error, "the build of the index was broken off by the stop");
                }
                Ok(Step::NotYet) => {
                    self.calm(Duration::ZERO, u64::MAX).await;
                    due = Due::Calm;
                }
                Ok(Step::Few) => {
                    if self.calm(LONG, settled + u64::from(FEW)).await {
                        due = Due::LongCalm;
                    }
                }
                Ok(Step::Empty) => self.more_than(settled, rests.next()).await,
                Ok(Step::Elsewhere) => self.pause(elsewhere.next()).await,
                Ok(Step::Queued) => self.queue().await,
                Ok(Step::Again) => {}
                Ok(Step::Busy) => self.pause(waits.next()).await,
                Ok(Step::Blocked) if blocked == Blocked::GoesOn => return,
                Ok(Step::Blocked) => self.pause(blocks.next()).await,
                Ok(Step::Broken { error, crashed }) => {
                    let over = self.tell_broken(&error, means.learn(&error, crashed));
                    self.clean_up().await;
                    if over {
                        return;
                    }
                    self.pause(faults.next()).await;
                }
                Ok(Step::Unclean(error)) => {
                    if self.tell_broken(&error, means.learn(&error, false)) {
                        return;
                    }
                    self.pause(faults.next()).await;
                }
                Err(error) if error.class() == Class::Transient => {
                    self.tell_trouble(&error);
                    self.pause(faults.next()).await;
                }
                Err(error) => return self.tell_failure(said(&error)),
            }
        }
    }

    async fn step(&self, due: Due, means: &mut Means) -> Result<Step, Error> {
        let Some(looked) = self.unless_stopped(self.look(due)).await else { return Ok(Step::Again) };
        let (connection, next) = looked?;
        match next {
            Next::Rest(step) => {
                connection.close().await;
                Ok(step)
            }
            Next::Clean => self.clean_first(&connection).await,
            Next::Build => match self.turn.try_lock() {
                Ok(_one_at_a_time) => self.take_turn(&connection, means).await,
                Err(_) => {
                    self.wait_for("another index of this connector to be built");
                    connection.close().await;
                    Ok(Step::Queued)
                }
            },
        }
    }

    /// Looks what there is, and so what comes next.
    async fn look(&self, due: Due) -> Result<(Connection, Next), Error> {
        let connection = Connection::open(&self.options).await?;
        let found = self.index.find(&connection).await?;
        let next = match &found {
            IndexFound::Ready | IndexFound::ByHand { valid: true, .. } => {
                self.tell_usable(&found);
                Next::Rest(Step::Done)
            }
            IndexFound::ByHand { name, valid: false } => {
                self.tell_blocked(name);
                Next::Rest(Step::Blocked)
            }
            // Without ours, every row of a backlog is put into one index less.
            IndexFound::Invalid => Next::Clean,
            IndexFound::Missing if due == Due::Always => Next::Build,
            IndexFound::Missing if due == Due::No => {
                self.wait_for("the backlog to be written");
                Next::Rest(Step::NotYet)
            }
            IndexFound::Missing => match self.judge_rows(&connection, due).await? {
                Some(step) => Next::Rest(step),
                None => Next::Build,
            },
        };
        Ok((connection, next))
    }

    /// What is in the way of a deferred build when this instance is calm.
    async fn judge_rows(&self, connection: &Connection, due: Due) -> Result<Option<Step>, Error> {
        let rows = self.index.rows_up_to(connection, FEW).await?;
        // Building on no rows would make every later one be put in singly.
        if rows == 0 {
            self.wait_for("the first rows");
            return Ok(Some(Step::Empty));
        }
        if rows < FEW && due < Due::LongCalm {
            self.wait_for(&format!("{FEW} rows, or {} s in which nothing comes", LONG.as_secs()));
            return Ok(Some(Step::Few));
        }
        let (connector, held) = (self.monitor.connector(), self.monitor.ends_held());
        if positions::behind_elsewhere(connection, connector, &held).await? > SMALL {
            self.wait_for("the backlog of other instances to be written");
            return Ok(Some(Step::Elsewhere));
        }
        Ok(None)
    }

    /// Tells how a build failed. Whether there is to be no other.
    fn tell_broken(&self, error: &Error, verdict: Verdict) -> bool {
        match why_over(error, verdict) {
            Some(why) => {
                self.tell_failure(why);
                true
            }
            None => {
                self.tell_trouble(error);
                false
            }
        }
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
            match self.unless_stopped(look).await {
                None => return,
                Some(Ok(found)) => self.tell_later(&found),
                Some(Err(error)) => {
                    tracing::debug!(index = self.name(), %error, "it is not known whether it is there");
                }
            }
        }
    }
}

/// Why there is to be no other build after one that failed with `error`. `None` if there is.
fn why_over(error: &Error, verdict: Verdict) -> Option<String> {
    // The building session has no limit for statements, so somebody has cancelled it.
    if is_cancelled(error) {
        return Some(
            "somebody cancelled the build on the server. Start the connector again, or run `embedsink migrate` with \
             `build: immediate`, to build the index"
                .to_owned(),
        );
    }
    match (error.class(), verdict) {
        (Class::Transient, Verdict::Again) => None,
        (Class::Transient, Verdict::Exhausted(times)) => {
            Some(format!("the server ran out {times} times: {}", said(error)))
        }
        (Class::Transient, Verdict::Broken(times)) => {
            Some(format!("the build was broken off {times} times, at last because: {}", said(error)))
        }
        (Class::Data | Class::Configuration | Class::Fatal, _) => Some(said(error)),
    }
}

/// Whether somebody has cancelled the statement.
pub(super) fn is_cancelled(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.code() == "57014")
}
