//! One batch, one transaction. Fifth stop on a record's way. The lanes repeat it until it is settled
//! (`attempt.rs`).
//!
//! Invariant: a [`Receipt`] is made only where a transaction has committed, or where the ledger
//! proves that one had. Nothing else moves a position.

#[cfg(feature = "lancedb")]
pub(crate) mod lancedb;
mod ledger;
pub(crate) mod letters;
mod pieces;
pub(crate) mod positions;
mod postgres;
pub(crate) mod replay;
mod sparing;
pub(crate) mod topic;

use std::future::Future;

use sink_postgres_vector::Committed;

use crate::batch::{Batch, Refusal};
use crate::error::WriteError;
use crate::source::{Partition, Tenure};

#[cfg(feature = "lancedb")]
pub use lancedb::LanceWriter;
pub use postgres::PostgresWriter;
pub use topic::LetterError;

/// What a transaction did, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Rows inserted or changed.
    pub upserted: u64,
    /// Rows that were as they should be already, and were left alone.
    pub unchanged: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Changes that were left out because what they meet is newer (`stale-writes: skip`).
    pub stale: u64,
    /// Records kept as dead letters.
    pub dead_lettered: u64,
}

impl Effect {
    /// Adds what another part of the transaction did.
    pub(crate) fn add(&mut self, other: Self) {
        self.upserted += other.upserted;
        self.unchanged += other.unchanged;
        self.deleted += other.deleted;
        self.stale += other.stale;
        self.dead_lettered += other.dead_lettered;
    }
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

    /// Everything of the batch was durable before its positions were, which are now.
    #[cfg(feature = "lancedb")]
    fn after_positions(batch: &Batch, effect: Effect) -> Self {
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
    /// Nothing was written: these changes are refused by the target whenever they are tried. Without them the batch is to
    /// be tried again; others may turn out to be refused then. Never empty.
    Refused(Vec<Refusal>),
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
    /// Where the partition ends at this moment, for other instances to know. `None` where that is not known.
    pub end: Option<i64>,
}

impl First {
    /// The same offset in both cases, and nothing known of the end.
    pub fn at(offset: i64) -> Self {
        Self { offset, late: offset, end: None }
    }
}

/// Where rows and positions go together. The other of the two seams of the house.
///
/// Contract: the positions of a batch move as a whole, and only when all else of it is durable. A batch
/// whose outcome is unknown (the answer to the commit got lost) may be given again, unchanged, and leaves what it would
/// have left the first time.
///
/// PostgreSQL does all of a batch in one transaction. LanceDB has none over several tables: after a crash, rows of a batch may
/// be there whose positions have not moved. They have their keys, so that the batch, coming again, puts the same in
/// their place.
pub trait Writer: Send + 'static {
    /// What people call the target.
    const NAME: &'static str = "the target";

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
    /// Cancel-safe: giving the same batch again settles how far a write that was cut off had come.
    ///
    /// # Errors
    /// See [`WriteError::disposition`]. No position has moved, unless the error came in answer to the
    /// commit; giving the batch again settles that too.
    fn write(&mut self, batch: &Batch) -> impl Future<Output = Result<Written, WriteError>> + Send;

    /// Keeps the target in order, between two writes, which wait for it; and while there are none, now and then. Does nothing where the target does so itself.
    ///
    /// Cancel-safe, and fails nobody.
    fn tend(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
