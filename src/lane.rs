//! A lane: decode, route, batch and write for its share of the partitions, over one connection.
//!
//! Two tasks, so that decoding runs beside writing: one gathers a batch while the other writes the
//! one before. Between them waits at most one finished batch.
//!
//! Invariant: everything that concerns a partition passes through its lane in order, takes and
//! releases included. A lane holds at most three batches: filling, waiting, being written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Place};
use crate::commit::CommitPoint;
use crate::config::{BatchSettings, Tolerance};
use crate::decode::{self, Change};
use crate::error::{ConnectorError, Disposition, WriteError};
use crate::monitoring::{LaneMonitor, Monitor};
use crate::reject::{Reject, RejectReason};
use crate::route::Router;
use crate::source::{Fetched, HandOver, Partition, SourceRecord, Tenure};
use crate::write::{Taken, Writer, take_until_settled, write_until_settled};

/// What a lane is given.
#[derive(Debug)]
pub(crate) enum LaneInput {
    /// Take this partition over; where nothing is stored, begin at `first_offset`.
    Take { partition: Partition, first_offset: i64 },
    /// From now on records of this tenure are welcome.
    Begin {
        partition: Partition,
        tenure: Tenure,
        next_offset: i64,
    },
    /// Records.
    Fetched(Fetched),
    /// This tenure is lost; its records are not.
    Forget { partition: Partition, tenure: Tenure },
    /// These partitions go. The hand-over is let go when what was gathered of them is written.
    Release {
        partitions: Vec<Partition>,
        done: Arc<HandOver>,
    },
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

/// What passes from the gathering task to the writing one.
#[derive(Debug)]
pub(crate) enum Job {
    Take { partition: Partition, first_offset: i64 },
    Write(Batch),
    Release(#[allow(dead_code, reason = "held only to be dropped in its turn")] Arc<HandOver>),
}

/// The gathering half.
pub(crate) struct Gatherer {
    router: Arc<Router>,
    limits: BatchSettings,
    tolerance: Tolerance,
    jobs: mpsc::Sender<Job>,
    batch_ids: Arc<AtomicU64>,
    held: HashMap<Partition, Held>,
    batch: Batch,
    opened: Option<Instant>,
    vector: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Held {
    tenure: Tenure,
    /// The offset that is stored once all batches so far are written.
    next_offset: i64,
}

/// The writing task is gone; it says why itself.
struct WriterGone;

impl Gatherer {
    pub(crate) fn new(
        router: Arc<Router>,
        limits: BatchSettings,
        tolerance: Tolerance,
        jobs: mpsc::Sender<Job>,
        batch_ids: Arc<AtomicU64>,
    ) -> Self {
        let batch = Batch::new(0, &router);
        let mut gatherer = Self {
            router,
            limits,
            tolerance,
            jobs,
            batch_ids,
            held: HashMap::new(),
            batch,
            opened: None,
            vector: Vec::new(),
        };
        gatherer.renew();
        gatherer
    }

    /// Gathers until `stop`, then passes on what it has.
    ///
    /// # Errors
    /// [`ConnectorError::BadRecord`] with `errors.tolerance: none`; what came before it is passed on.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<LaneInput>,
        stop: CancellationToken,
    ) -> Result<(), ConnectorError> {
        let jobs = self.jobs.clone();
        let mut ended = Ok(());
        loop {
            let due = self.opened.map(|opened| opened + self.limits.max_wait);
            let is_due = self.is_full() || due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                room = jobs.reserve(), if is_due => match room {
                    Ok(room) => {
                        let batch = self.renew();
                        room.send(Job::Write(batch));
                    }
                    Err(_) => return Ok(()),
                },
                // While the writer is busy a batch that is due goes on filling, up to its limits.
                input = inputs.recv(), if !self.is_full() => match input {
                    None => break,
                    Some(input) => match self.accept(input).await {
                        Ok(Ok(())) => {}
                        Ok(Err(bad_record)) => {
                            ended = Err(bad_record);
                            break;
                        }
                        Err(WriterGone) => return Ok(()),
                    },
                },
                () = sleep_until(due), if !is_due && due.is_some() => {}
            }
        }
        if self.flush().await.is_err() {
            return Ok(());
        }
        ended
    }

    async fn accept(&mut self, input: LaneInput) -> Result<Result<(), ConnectorError>, WriterGone> {
        match input {
            LaneInput::Take {
                partition,
                first_offset,
            } => {
                self.pass_on(Job::Take {
                    partition,
                    first_offset,
                })
                .await?;
            }
            LaneInput::Begin {
                partition,
                tenure,
                next_offset,
            } => {
                self.held.insert(partition, Held { tenure, next_offset });
            }
            LaneInput::Fetched(run) => return self.gather(&run).await,
            LaneInput::Forget { partition, tenure } => {
                if self
                    .held
                    .get(&partition)
                    .is_some_and(|held| held.tenure == tenure)
                {
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
        Ok(Ok(()))
    }

    async fn gather(&mut self, run: &Fetched) -> Result<Result<(), ConnectorError>, WriterGone> {
        let partition = run.partition();
        for record in run.records() {
            // Looked up each time: a flush in between may take long, but changes nothing here.
            let Some(held) = self.held.get(partition).copied() else {
                return Ok(Ok(()));
            };
            if held.tenure != run.tenure() {
                return Ok(Ok(()));
            }
            if record.offset < held.next_offset {
                continue;
            }
            let place = Place {
                partition,
                tenure: held.tenure,
                stored: held.next_offset,
            };
            if let Err(reject) = self.add(&place, &record) {
                if self.tolerance == Tolerance::None {
                    let offset = record.offset;
                    return Ok(Err(ConnectorError::BadRecord {
                        partition: partition.clone(),
                        offset,
                        reject,
                    }));
                }
                self.batch.reject(&place, &record, reject);
            }
            self.opened.get_or_insert_with(Instant::now);
            self.held.insert(
                partition.clone(),
                Held {
                    next_offset: record.offset + 1,
                    ..held
                },
            );
            if self.is_full() {
                self.flush().await?;
            }
        }
        Ok(Ok(()))
    }

    /// Decodes a record and puts it into the batch.
    fn add(&mut self, place: &Place<'_>, record: &SourceRecord<'_>) -> Result<(), Reject> {
        let bytes = record.payload.map_or(0, <[u8]>::len);
        if bytes > self.limits.max_bytes {
            return Err(Reject::new(
                RejectReason::TooLarge,
                format!(
                    "the payload has {bytes} bytes; batch.max-bytes is {}",
                    self.limits.max_bytes
                ),
            ));
        }
        match decode::decode(record, &mut self.vector)? {
            Change::Upsert(embedding) => {
                let table = self.router.route(&embedding, self.vector.len())?;
                self.batch.upsert(place, record, table, &embedding, &self.vector);
            }
            Change::Delete { id } => self.batch.delete(place, record, &id),
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.records() >= self.limits.max_rows || self.batch.bytes() >= self.limits.max_bytes
    }

    async fn flush(&mut self) -> Result<(), WriterGone> {
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
        std::mem::replace(&mut self.batch, Batch::new(id, &self.router))
    }

    async fn pass_on(&self, job: Job) -> Result<(), WriterGone> {
        self.jobs.send(job).await.map_err(|_| WriterGone)
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// The writing half: does the jobs of one lane, in order, until there are no more.
///
/// # Errors
/// When a write fails in a way that trying again does not mend.
pub(crate) async fn write_jobs<W: Writer>(
    lane: usize,
    mut writer: W,
    mut jobs: mpsc::Receiver<Job>,
    outputs: mpsc::UnboundedSender<LaneOutput>,
    monitor: Arc<Monitor>,
) -> Result<(), ConnectorError> {
    let listener = LaneMonitor {
        monitor: &monitor,
        lane,
    };
    // A report that nobody takes any more is of a connector that is being torn down.
    let report = |output| drop(outputs.send(output));
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Take {
                partition,
                first_offset,
            } => {
                let taken = take_until_settled(&mut writer, &partition, first_offset, &listener).await?;
                report(LaneOutput::Taken { partition, taken });
            }
            Job::Write(mut batch) => {
                let mut fenced = Vec::new();
                let settled = write_until_settled(&mut writer, &mut batch, &mut fenced, &listener).await;
                if let Some(receipt) = settled.map_err(|error| refused(&batch, error))? {
                    let point = batch.settle(&receipt);
                    monitor.written(&batch, receipt.effect(), &point);
                    report(LaneOutput::Settled(point));
                }
                if !fenced.is_empty() {
                    report(LaneOutput::Fenced(fenced));
                }
            }
            Job::Release(done) => drop(done),
        }
    }
    Ok(())
}

fn refused(batch: &Batch, error: WriteError) -> ConnectorError {
    if error.disposition() != Disposition::Reject {
        return error.into();
    }
    let covers: Vec<String> = batch
        .spans()
        .map(|span| format!("{} offsets {} to {}", span.partition, span.from, span.to - 1))
        .collect();
    ConnectorError::RefusedBatch {
        covers: covers.join(", "),
        error,
    }
}
