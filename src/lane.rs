//! A lane: decode, route, batch and write for its share of the partitions, over one connection.
//!
//! Two tasks, so that decoding runs beside writing: the [`Gatherer`] fills a batch while the [`Scribe`]
//! writes the one before. Between them waits at most one finished batch.
//!
//! Invariant: everything that concerns a partition passes through its lane in order, takes and
//! releases included. A lane holds at most three batches: filling, waiting, being written.

mod gatherer;
mod homes;
mod scribe;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::batch::Batch;
use crate::commit::CommitPoint;
use crate::source::{Fetched, HandOver, Partition, Tenure};
use crate::write::{First, Taken};

pub(crate) use gatherer::Gatherer;
pub(crate) use homes::Homes;
pub(crate) use scribe::Scribe;

/// What a lane is given.
#[derive(Debug)]
pub(crate) enum LaneInput {
    /// Take this partition over; where nothing is stored, begin at `first`.
    Take { partition: Partition, first: First },
    /// From now on records of this tenure are welcome. `witness` is the timestamp that the record
    /// before `next_offset` had when it was written.
    Begin { partition: Partition, tenure: Tenure, next_offset: i64, witness: Option<i64> },
    /// Records.
    Fetched(Fetched),
    /// This tenure is lost; its records are not.
    Forget { partition: Partition, tenure: Tenure },
    /// These partitions go. The hand-over is let go when what was gathered of them is written.
    Release { partitions: Vec<Partition>, done: Arc<HandOver> },
}

/// What a lane reports.
#[derive(Debug)]
pub(crate) enum LaneOutput {
    /// A partition was taken over.
    Taken { partition: Partition, taken: Taken },
    /// Positions became durable.
    Settled(CommitPoint),
    /// Tenures that turned out to be lost.
    Fenced(Vec<(Partition, Tenure)>),
}

/// What passes from the gatherer to the scribe.
#[derive(Debug)]
pub(crate) enum Job {
    Take { partition: Partition, first: First },
    Write(Batch),
    Release(#[allow(dead_code, reason = "held only to be dropped in its turn")] Arc<HandOver>),
}

/// How far the scribe is with what it was given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Jobs that are done.
    done: u64,
    /// How long the last write took.
    took: Duration,
}

/// The gatherer's end of what joins the halves of a lane.
pub(crate) struct Desk {
    jobs: mpsc::Sender<Job>,
    /// How many were passed on.
    passed: u64,
    progress: watch::Receiver<Progress>,
}

/// The scribe's end of it.
pub(crate) struct Tray {
    jobs: mpsc::Receiver<Job>,
    progress: watch::Sender<Progress>,
}

/// What joins the two halves of a lane.
pub(crate) fn halves() -> (Desk, Tray) {
    let (job_sender, jobs) = mpsc::channel(1);
    let (progress_sender, progress) = watch::channel(Progress::default());
    (Desk { jobs: job_sender, passed: 0, progress }, Tray { jobs, progress: progress_sender })
}

/// The scribe is gone; it says why itself.
struct ScribeGone;

impl Desk {
    /// Passes a job on, as soon as there is room.
    async fn pass_on(&mut self, job: Job) -> Result<(), ScribeGone> {
        self.jobs.send(job).await.map_err(|_| ScribeGone)?;
        self.passed += 1;
        Ok(())
    }

    /// Waits until the scribe has nothing left to do, and says how long its last write took. Cancel-safe.
    async fn is_free(&mut self) -> Result<Duration, ScribeGone> {
        let passed = self.passed;
        let progress = self.progress.wait_for(|progress| progress.done == passed).await;
        progress.map(|progress| progress.took).map_err(|_| ScribeGone)
    }
}
