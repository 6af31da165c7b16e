//! A lane: decode, route, batch and write for its share of the partitions, over one connection.
//!
//! Two tasks, so that decoding runs beside writing: the [`Gatherer`] fills a batch while the [`Scribe`]
//! writes the one before. Between them waits at most one finished batch.
//!
//! Invariant: everything that concerns a partition passes through its lane in order, takes and
//! releases included. A lane holds at most three batches: filling, waiting, being written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Gate, Settled, take_until_settled, write_until_settled};
use crate::batch::{Batch, Place};
use crate::commit::CommitPoint;
use crate::config::{BatchSettings, Tolerance};
use crate::error::ConnectorError;
use crate::intake::Intake;
use crate::monitoring::{LaneMonitor, Monitor};
use crate::route::Router;
use crate::source::{Fetched, HandOver, Partition, SourceError, SourceRecord, Tenure};
use crate::write::{First, Taken, Writer};

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

/// The gathering half.
pub(crate) struct Gatherer {
    intake: Intake,
    limits: BatchSettings,
    tolerance: Tolerance,
    jobs: mpsc::Sender<Job>,
    batch_ids: Arc<AtomicU64>,
    stop: CancellationToken,
    held: HashMap<Partition, Held>,
    batch: Batch,
    opened: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Held {
    tenure: Tenure,
    /// The offset that is stored once all batches so far are written.
    next_offset: i64,
    /// The timestamp that the record before `next_offset` must have, until that has been seen.
    witness: Option<i64>,
}

/// Why a gatherer ends before it is asked to.
enum Halt {
    /// The scribe is gone; it says why itself.
    ScribeGone,
    Failed(ConnectorError),
}

impl Gatherer {
    pub(crate) fn new(
        router: Arc<Router>,
        limits: BatchSettings,
        tolerance: Tolerance,
        jobs: mpsc::Sender<Job>,
        batch_ids: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> Self {
        let intake = Intake::new(router, limits.max_bytes);
        let batch = intake.batch(batch_ids.fetch_add(1, Ordering::Relaxed));
        Self { intake, limits, tolerance, jobs, batch_ids, stop, held: HashMap::new(), batch, opened: None }
    }

    /// Gathers until it is told to stop, then passes on what it has.
    ///
    /// # Errors
    /// [`ConnectorError::BadRecord`] with `errors.tolerance: none`, and [`SourceError::Recreated`].
    /// What came before is passed on.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<LaneInput>,
    ) -> Result<(), ConnectorError> {
        let ended = self.gather_until_stop(&mut inputs).await;
        if self.flush().await.is_err() {
            return Ok(());
        }
        match ended {
            Ok(()) | Err(Halt::ScribeGone) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    async fn gather_until_stop(
        &mut self,
        inputs: &mut mpsc::UnboundedReceiver<LaneInput>,
    ) -> Result<(), Halt> {
        let (jobs, stop) = (self.jobs.clone(), self.stop.clone());
        loop {
            let due = self.opened.map(|opened| opened + self.limits.max_wait);
            let is_due = self.is_full() || due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                room = jobs.reserve(), if is_due => {
                    let room = room.map_err(|_| Halt::ScribeGone)?;
                    room.send(Job::Write(self.renew()));
                }
                // While the scribe is busy a batch that is due goes on filling, up to its limits.
                input = inputs.recv(), if !self.is_full() => match input {
                    Some(input) => self.accept(input).await?,
                    None => return Ok(()),
                },
                () = sleep_until(due), if !is_due && due.is_some() => {}
            }
        }
    }

    async fn accept(&mut self, input: LaneInput) -> Result<(), Halt> {
        match input {
            LaneInput::Take { partition, first } => self.pass_on(Job::Take { partition, first }).await?,
            LaneInput::Begin { partition, tenure, next_offset, witness } => {
                self.held.insert(partition, Held { tenure, next_offset, witness });
            }
            LaneInput::Fetched(run) => self.gather(run).await?,
            LaneInput::Forget { partition, tenure } => {
                if self.held.get(&partition).is_some_and(|held| held.tenure == tenure) {
                    self.held.remove(&partition);
                }
            }
            LaneInput::Release { partitions, done } => {
                for partition in &partitions {
                    self.held.remove(partition);
                }
                self.flush().await?;
                self.pass_on(Job::Release(done)).await?;
            }
        }
        Ok(())
    }

    async fn gather(&mut self, run: Fetched) -> Result<(), Halt> {
        let run = Arc::new(run);
        let partition = run.partition();
        let Some(mut held) = self.held.get(partition).copied() else { return Ok(()) };
        if held.tenure != run.tenure() {
            return Ok(());
        }
        let passed = run.passed();
        for record in run.records() {
            if record.offset < held.next_offset {
                held.check_witness(partition, &record)?;
                continue;
            }
            let place = Place { partition, tenure: held.tenure, stored: held.next_offset };
            self.batch.keep(&run);
            if let Err((table, reject)) = self.intake.add(&mut self.batch, &place, &record) {
                if self.tolerance == Tolerance::None {
                    let (partition, offset) = (partition.clone(), record.offset);
                    return Err(Halt::Failed(ConnectorError::BadRecord { partition, offset, reject }));
                }
                self.batch.reject(&place, &record, table, reject);
            }
            self.opened.get_or_insert_with(Instant::now);
            held = Held { next_offset: record.offset + 1, witness: None, ..held };
            self.held.insert(partition.clone(), held);
            if self.is_full() {
                self.flush().await?;
                // What is left of the run comes again with the next start.
                if self.stop.is_cancelled() {
                    return Ok(());
                }
            }
        }
        if let Some((next_offset, timestamp)) = passed.filter(|(next, _)| *next > held.next_offset) {
            self.batch.pass(
                &Place { partition, tenure: held.tenure, stored: held.next_offset },
                next_offset,
                timestamp,
            );
            self.opened.get_or_insert_with(Instant::now);
            self.held.insert(partition.clone(), Held { next_offset, witness: None, ..held });
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.records() >= self.limits.max_rows || self.batch.memory() >= self.limits.max_bytes
    }

    async fn flush(&mut self) -> Result<(), Halt> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = self.renew();
        self.pass_on(Job::Write(batch)).await
    }

    /// The batch gathered so far; a new one takes its place.
    fn renew(&mut self) -> Batch {
        self.opened = None;
        let id = self.batch_ids.fetch_add(1, Ordering::Relaxed);
        std::mem::replace(&mut self.batch, self.intake.batch(id))
    }

    async fn pass_on(&self, job: Job) -> Result<(), Halt> {
        self.jobs.send(job).await.map_err(|_| Halt::ScribeGone)
    }
}

impl Held {
    /// The record before the first one to write must be the one that was written.
    fn check_witness(&self, partition: &Partition, record: &SourceRecord<'_>) -> Result<(), Halt> {
        let is_it = record.offset == self.next_offset - 1;
        if is_it && self.witness.is_some() && record.timestamp != self.witness {
            let error = SourceError::Recreated { partition: partition.clone(), offset: record.offset };
            return Err(Halt::Failed(error.into()));
        }
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// The writing half.
pub(crate) struct Scribe<W> {
    pub(crate) lane: usize,
    pub(crate) writer: W,
    pub(crate) gate: Gate,
    pub(crate) outputs: mpsc::UnboundedSender<LaneOutput>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) stop: CancellationToken,
}

impl<W: Writer> Scribe<W> {
    /// Does the jobs of its lane, in order, until there are no more.
    ///
    /// # Errors
    /// When a write fails in a way that trying again does not mend.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Result<(), ConnectorError> {
        let monitor = Arc::clone(&self.monitor);
        let listener = LaneMonitor { monitor: &monitor, lane: self.lane };
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Take { partition, first } => {
                    tokio::select! {
                        biased;
                        // Nothing has been read of it yet, so nothing is left to finish.
                        () = self.stop.cancelled() => {}
                        taken = take_until_settled(&mut self.writer, &partition, first, &listener) => {
                            self.report(LaneOutput::Taken { partition, taken: taken? });
                        }
                    }
                }
                Job::Write(batch) => self.write(batch, &listener).await?,
                Job::Release(done) => drop(done),
            }
        }
        Ok(())
    }

    async fn write(&mut self, mut batch: Batch, listener: &LaneMonitor<'_>) -> Result<(), ConnectorError> {
        let mut fenced = Vec::new();
        let settled =
            write_until_settled(&mut self.writer, &mut batch, &self.gate, &mut fenced, listener).await?;
        if let Some(Settled { receipt, took }) = settled {
            let point = batch.settle(&receipt);
            self.monitor.written(&batch, &receipt, &point, took);
            self.report(LaneOutput::Settled(point));
        }
        if !fenced.is_empty() {
            self.report(LaneOutput::Fenced(fenced));
        }
        Ok(())
    }

    fn report(&self, output: LaneOutput) {
        // A report that nobody takes any more is of a connector that is being torn down.
        drop(self.outputs.send(output));
    }
}
