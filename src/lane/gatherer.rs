//! The gathering half of a lane: fills batches, and decides when one is written.
//!
//! Invariant: what it was given of a partition goes into its batches in order, each record once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Desk, Job, LaneInput, ScribeGone};
use crate::batch::{Batch, Place};
use crate::config::{BatchSettings, Tolerance};
use crate::error::ConnectorError;
use crate::intake::Intake;
use crate::route::Router;
use crate::source::{Fetched, Partition, SourceError, SourceRecord, Tenure};

/// The gathering half.
pub(crate) struct Gatherer {
    intake: Intake,
    limits: BatchSettings,
    tolerance: Tolerance,
    desk: Desk,
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
    ScribeGone,
    Failed(ConnectorError),
}

impl From<ScribeGone> for Halt {
    fn from(ScribeGone: ScribeGone) -> Self {
        Self::ScribeGone
    }
}

impl Gatherer {
    pub(crate) fn new(
        router: Arc<Router>,
        limits: BatchSettings,
        tolerance: Tolerance,
        desk: Desk,
        batch_ids: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> Self {
        let intake = Intake::new(router, limits.max_bytes);
        let batch = intake.batch(batch_ids.fetch_add(1, Ordering::Relaxed));
        Self { intake, limits, tolerance, desk, batch_ids, stop, held: HashMap::new(), batch, opened: None }
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
        let (jobs, stop) = (self.desk.jobs.clone(), self.stop.clone());
        loop {
            let due = self.opened.map(|opened| opened + self.limits.max_wait);
            let (is_full, limits, opened) = (self.is_full(), self.limits, self.opened);
            let is_due = is_full || due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                room = jobs.reserve(), if is_due => {
                    drop(room);
                    self.flush().await?;
                }
                // While the scribe is busy a batch that is due goes on filling, up to its limits.
                input = inputs.recv(), if !is_full => match input {
                    Some(input) => self.accept(input).await?,
                    None => return Ok(()),
                },
                // Nothing more is at hand.
                worth = is_worth_writing(&mut self.desk, &limits, opened), if !is_due && opened.is_some() => {
                    worth?;
                    self.flush().await?;
                }
                () = until(due), if !is_due && due.is_some() => {}
            }
        }
    }

    async fn accept(&mut self, input: LaneInput) -> Result<(), Halt> {
        match input {
            LaneInput::Take { partition, first } => self.desk.pass_on(Job::Take { partition, first }).await?,
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
                self.desk.pass_on(Job::Release(done)).await?;
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
        Ok(self.desk.pass_on(Job::Write(batch)).await?)
    }

    /// The batch gathered so far; a new one takes its place.
    fn renew(&mut self) -> Batch {
        self.opened = None;
        let id = self.batch_ids.fetch_add(1, Ordering::Relaxed);
        std::mem::replace(&mut self.batch, self.intake.batch(id))
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

/// Waits until the scribe is free, and the batch that was `opened` has waited as long as the scribe took for the one
/// before: where records trickle, little is gathered and soon visible; where they come faster than they are written,
/// batches grow until they keep up. Cancel-safe.
async fn is_worth_writing(
    desk: &mut Desk,
    limits: &BatchSettings,
    opened: Option<Instant>,
) -> Result<(), ScribeGone> {
    let took = desk.is_free().await?;
    until(opened.map(|opened| opened + took.max(limits.linger).min(limits.max_wait))).await;
    Ok(())
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due).await;
    }
}
