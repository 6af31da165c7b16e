//! One batch, one transaction, until it is settled. Fifth stop on a record's way.
//!
//! Invariant: a [`Receipt`] is made only where a transaction has committed, or where the ledger
//! proves that one had. Nothing else moves a position.

mod ledger;
mod postgres;

use std::future::Future;

use backon::{BackoffBuilder, ExponentialBuilder};
use sink_postgres_vector::Committed;

use crate::batch::Batch;
use crate::error::{Disposition, WriteError};
use crate::monitoring::LaneMonitor;
use crate::source::{Partition, Tenure};

pub use postgres::PostgresWriter;

/// What a transaction did, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Rows inserted or changed.
    pub upserted: u64,
    /// Rows that were as they should be already, and were left alone.
    pub unchanged: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Records kept as dead letters.
    pub dead_lettered: u64,
}

/// Proof that a batch is durable, with all its rows, deletions, dead letters and positions.
#[derive(Debug)]
#[must_use = "a receipt is what allows the positions to be committed"]
pub struct Receipt {
    batch_id: u64,
    effect: Effect,
}

impl Receipt {
    /// The server confirmed the commit.
    fn committed(_proof: Committed, batch: &Batch, effect: Effect) -> Self {
        Self { batch_id: batch.id(), effect }
    }

    /// The answer to an earlier commit got lost, but every position of the batch stands where only
    /// that commit can have put it.
    fn found_in_ledger(batch: &Batch, effect: Effect) -> Self {
        Self { batch_id: batch.id(), effect }
    }

    /// A proof of nothing, for tests of what follows a receipt.
    #[cfg(test)]
    pub(crate) fn for_tests(batch_id: u64) -> Self {
        Self { batch_id, effect: Effect::default() }
    }

    /// The batch it was made for.
    pub fn batch_id(&self) -> u64 {
        self.batch_id
    }

    /// What the transaction did.
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

/// How an attempt to write ended, where nothing failed.
#[derive(Debug)]
pub enum Written {
    /// Everything is durable.
    Durable(Receipt),
    /// Nothing was written: these partitions belong to somebody else by now, or their stored
    /// position is not the one that the batch goes on from.
    Fenced(Vec<(Partition, Tenure)>),
}

/// A partition taken over from whoever had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The new tenure. Writes under an earlier one no longer succeed.
    pub tenure: Tenure,
    /// The offset of the next record to write.
    pub next_offset: i64,
    /// Whether the offset was stored before, or is the given first one.
    pub stored: bool,
    /// The timestamp, in milliseconds, of the last record before `next_offset`, as it was written.
    pub last_timestamp: Option<i64>,
}

/// Where a partition begins for which nothing is stored yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// In a topic that this connector begins to read now.
    pub offset: i64,
    /// In a topic that it has been reading: the partition was added, and nothing in it has been seen.
    pub late: i64,
}

impl First {
    /// The same offset in both cases.
    pub fn at(offset: i64) -> Self {
        Self { offset, late: offset }
    }
}

/// Where rows and positions go together. The other of the two seams of the house.
///
/// Contract: [`write`](Writer::write) does all of a batch in one atomic step, or nothing. A batch
/// whose outcome is unknown (the answer to the commit got lost) may be given again, unchanged, and
/// is then not applied a second time.
pub trait Writer: Send + 'static {
    /// Takes a partition over: from here on only the returned tenure can write it. Where no offset
    /// is stored, one of `first` is stored.
    ///
    /// Cancel-safe: a take that was cut off may have happened; taking again is harmless.
    ///
    /// # Errors
    /// See [`WriteError::disposition`].
    fn take(
        &mut self,
        partition: &Partition,
        first: First,
    ) -> impl Future<Output = Result<Taken, WriteError>> + Send;

    /// Writes a batch, once.
    ///
    /// Cancel-safe: a write that was cut off has happened as a whole or not at all, and giving the
    /// same batch again settles which.
    ///
    /// # Errors
    /// See [`WriteError::disposition`]. Nothing is written, unless the error came in answer to the
    /// commit; giving the batch again settles that too.
    fn write(&mut self, batch: &Batch) -> impl Future<Output = Result<Written, WriteError>> + Send;
}

/// Takes a partition over, however long the database needs for it.
///
/// # Errors
/// Only those that asking again does not mend.
pub(crate) async fn take_until_settled<W: Writer>(
    writer: &mut W,
    partition: &Partition,
    first: First,
    listener: &LaneMonitor<'_>,
) -> Result<Taken, WriteError> {
    let mut pauses = pauses();
    loop {
        match writer.take(partition, first).await {
            Ok(taken) => {
                listener.recovered();
                return Ok(taken);
            }
            Err(error) => pause_or_give_up(error, listener, &mut pauses).await?,
        }
    }
}

/// Writes a batch, however long the database needs for it. Partitions that were lost meanwhile are
/// taken out of it and added to `fenced`. `None` when nothing of the batch is left to write.
///
/// # Errors
/// Only those that asking again does not mend; the batch's positions have not moved then.
pub(crate) async fn write_until_settled<W: Writer>(
    writer: &mut W,
    batch: &mut Batch,
    fenced: &mut Vec<(Partition, Tenure)>,
    listener: &LaneMonitor<'_>,
) -> Result<Option<Receipt>, WriteError> {
    let mut pauses = pauses();
    loop {
        match writer.write(batch).await {
            Ok(Written::Durable(receipt)) => {
                listener.recovered();
                return Ok(Some(receipt));
            }
            Ok(Written::Fenced(lost)) => {
                listener.recovered();
                let left = batch.drop_tenures(&lost);
                fenced.extend(lost);
                if !left {
                    return Ok(None);
                }
            }
            Err(error) => pause_or_give_up(error, listener, &mut pauses).await?,
        }
    }
}

async fn pause_or_give_up(
    error: WriteError,
    listener: &LaneMonitor<'_>,
    pauses: &mut impl Iterator<Item = std::time::Duration>,
) -> Result<(), WriteError> {
    match error.disposition() {
        Disposition::Retry => {
            listener.failed(&error);
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            Ok(())
        }
        Disposition::Reject | Disposition::Stop => Err(error),
    }
}

const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

/// Pauses between attempts: from 50 ms, doubled up to 10 s, each lengthened by a random part of
/// itself so that many connectors do not come back at once. They never end.
pub(crate) fn pauses() -> impl Iterator<Item = std::time::Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(std::time::Duration::from_millis(50))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
