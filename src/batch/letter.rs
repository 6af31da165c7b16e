//! Records of a batch that cannot be used.

use std::fmt;

use super::table::{EntryId, Origin};
use crate::reject::Reject;
use crate::route::TableId;
use crate::source::{Partition, SourceRecord};

/// A record that cannot be used, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The partition it came from.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// The table it was for, if that is known.
    pub table: Option<TableId>,
    /// The verdict.
    pub reject: Reject,
    pub(super) origin: Origin,
}

/// The target's verdict on one change of a batch.
#[derive(Debug)]
pub struct Refusal {
    /// The table that refuses it.
    pub table: TableId,
    /// The change.
    pub entry: EntryId,
    /// The verdict.
    pub reject: Reject,
}

/// All that is kept of a record that cannot be used. `Debug` shows no byte of it.
#[derive(Clone, Copy)]
pub struct DeadLetter<'a> {
    /// Where it stands, and the verdict.
    pub rejected: &'a Rejected,
    /// The name of the table it was for, if that is known.
    pub table: Option<&'a str>,
    /// The record as it came.
    pub record: SourceRecord<'a>,
}

impl fmt::Debug for DeadLetter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter").field("rejected", self.rejected).finish_non_exhaustive()
    }
}
