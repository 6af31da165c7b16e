//! One row, or a key to delete, borrowed from whoever decoded it; and a row as it is read back.

use std::{fmt, ops::RangeInclusive};

/// One row of a table, borrowed. It is `Copy`: a batch is a `Vec` of these over the caller's own memory.
///
/// `embedding` has the table's dimension and only finite numbers, and `timestamp` lies within
/// [`VectorRow::TIMESTAMPS`]: a row that breaks this is refused with [`Class::Data`](crate::Class::Data) before
/// anything is written. That `metadata` is the text of a JSON object is the caller's to know; here it is text.
#[derive(Clone, Copy)]
pub struct VectorRow<'a> {
    /// The key.
    pub id: &'a str,
    /// The text that was embedded.
    pub text: Option<&'a str>,
    /// The embedding. `-0.0` and subnormal numbers are kept as they are.
    pub embedding: &'a [f32],
    /// Microseconds since the Unix epoch, within [`VectorRow::TIMESTAMPS`].
    pub timestamp: Option<i64>,
    /// Where the text came from.
    pub source: Option<&'a str>,
    /// The text of a JSON object.
    pub metadata: Option<&'a str>,
}

impl VectorRow<'_> {
    /// The timestamps that the column can hold, in microseconds since the Unix epoch: those whose nanoseconds fit 64
    /// bits, from 1677-09-21 to 2262-04-11.
    pub const TIMESTAMPS: RangeInclusive<i64> = -9_223_372_036_854_775..=9_223_372_036_854_775;
}

/// Says how long the row is, never what is in it.
impl fmt::Debug for VectorRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorRow").field("dimensions", &self.embedding.len()).finish_non_exhaustive()
    }
}

/// A key to delete.
#[derive(Clone, Copy)]
pub struct Deletion<'a> {
    /// The key.
    pub id: &'a str,
    /// When it was asked for, in microseconds since the Unix epoch: compared with the row's, if
    /// [`Overwrite`](crate::Overwrite) says so. `None` deletes whatever is there, but with
    /// [`Overwrite::Older`](crate::Overwrite::Older) nothing.
    pub timestamp: Option<i64>,
}

/// Says that it is one, never of what.
impl fmt::Debug for Deletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deletion").finish_non_exhaustive()
    }
}

/// A row as it is stored.
#[derive(Clone, PartialEq)]
pub struct StoredRow {
    /// The key.
    pub id: String,
    /// The text that was embedded.
    pub text: Option<String>,
    /// The embedding; empty where somebody else has stored none.
    pub embedding: Vec<f32>,
    /// Microseconds since the Unix epoch; what somebody else stored more finely is cut off.
    pub timestamp: Option<i64>,
    /// Where the text came from.
    pub source: Option<String>,
    /// The text of a JSON object.
    pub metadata: Option<String>,
}

/// Says how long the row is, never what is in it.
impl fmt::Debug for StoredRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRow").field("dimensions", &self.embedding.len()).finish_non_exhaustive()
    }
}
