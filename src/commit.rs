//! How far a partition is done. Last stop on a record's way.
//!
//! Invariant: a [`CommitPoint`] is made by [`Batch::settle`](crate::batch::Batch::settle) alone, which takes the
//! [`Receipt`](crate::write::Receipt) of a committed transaction. Committing before writing does not compile.

use crate::source::Partition;

/// Positions that are durable in the target: for each partition, the offset of the next record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    next_offsets: Vec<(Partition, i64)>,
}

impl CommitPoint {
    pub(crate) fn new(next_offsets: Vec<(Partition, i64)>) -> Self {
        Self { next_offsets }
    }

    /// Each partition with the offset of its next record to write.
    pub fn next_offsets(&self) -> &[(Partition, i64)] {
        &self.next_offsets
    }
}
