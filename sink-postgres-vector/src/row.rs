//! One row, or a key to delete, borrowed from whoever decoded it.

use std::{fmt, ops::RangeInclusive};

/// One row of a table, borrowed. It is `Copy`: a batch is a `Vec` of these over the caller's own memory.
///
/// What the caller has checked before: the text holds no NUL, `embedding` has the table's dimension and only
/// finite numbers, `metadata` is a JSON object, `id` is not longer than [`max_id_chars`] and `source` not longer
/// than [`max_source_chars`]. A row that breaks this makes the statement fail with [`Class::Data`].
///
/// [`max_id_chars`]: crate::VectorTable::max_id_chars
/// [`max_source_chars`]: crate::VectorTable::max_source_chars
/// [`Class::Data`]: crate::Class::Data
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
    /// The timestamps that PostgreSQL can hold, in microseconds since the Unix epoch. It begins with
    /// 4713-11-24 BC and ends with the largest `i64`, in the year 294247.
    pub const TIMESTAMPS: RangeInclusive<i64> = -210_866_803_200_000_000..=i64::MAX;
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
