//! Records that cannot be used: why, and in what words. Part of the vocabulary.
//!
//! Invariant: a message names places and sizes, never a value of the record. The payload itself is
//! kept in the dead letter, and nowhere else.

use std::borrow::Cow;
use std::fmt;

use crate::error::WriteError;

/// Why a record cannot be used. A closed set: users filter dead letters by these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The payload is not one JSON object.
    BadJson,
    /// The payload or the key is not UTF-8.
    InvalidUtf8,
    /// There is neither an `id` nor a record key.
    MissingId,
    /// The `id` is not a non-empty string.
    BadId,
    /// The `id` is longer than its column.
    IdTooLong,
    /// There is no `embedding`.
    MissingEmbedding,
    /// The `embedding` is not an array of numbers.
    BadEmbedding,
    /// The `embedding` has another length than the table's column.
    WrongDimension,
    /// A number of the `embedding` is NaN, infinite, or too large for 32 bits.
    NotFinite,
    /// The `timestamp` is neither RFC 3339 nor epoch milliseconds, or out of range.
    BadTimestamp,
    /// The `metadata` is not a JSON object that Postgres can hold.
    BadMetadata,
    /// Another known field has the wrong type.
    BadField,
    /// The `source` is longer than its column.
    FieldTooLong,
    /// A text holds U+0000, which Postgres cannot store.
    NulByte,
    /// `table_name` names a table that is not configured.
    UnknownTable,
    /// The record alone is larger than a whole batch may be.
    TooLarge,
    /// The target refuses the row or the deletion: a constraint, a trigger, a value that does not fit.
    Refused,
    /// A replay found a row that is at least as new. Never the verdict on a live record.
    Superseded,
}

impl RejectReason {
    /// Every reason there is, in a fixed order.
    pub const ALL: [Self; 18] = [
        Self::BadJson,
        Self::InvalidUtf8,
        Self::MissingId,
        Self::BadId,
        Self::IdTooLong,
        Self::MissingEmbedding,
        Self::BadEmbedding,
        Self::WrongDimension,
        Self::NotFinite,
        Self::BadTimestamp,
        Self::BadMetadata,
        Self::BadField,
        Self::FieldTooLong,
        Self::NulByte,
        Self::UnknownTable,
        Self::TooLarge,
        Self::Refused,
        Self::Superseded,
    ];

    /// The verdicts on live records: all but the one that only a replay gives.
    pub const LIVE: &[Self] = {
        let Some((Self::Superseded, live)) = Self::ALL.split_last() else {
            panic!("the last one is a replay's")
        };
        live
    };

    /// The word that stands in `embedsink.dead_letters.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MissingId => "missing_id",
            Self::BadId => "bad_id",
            Self::IdTooLong => "id_too_long",
            Self::MissingEmbedding => "missing_embedding",
            Self::BadEmbedding => "bad_embedding",
            Self::WrongDimension => "wrong_dimension",
            Self::NotFinite => "not_finite",
            Self::BadTimestamp => "bad_timestamp",
            Self::BadMetadata => "bad_metadata",
            Self::BadField => "bad_field",
            Self::FieldTooLong => "field_too_long",
            Self::NulByte => "nul_byte",
            Self::UnknownTable => "unknown_table",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record's verdict: the reason, and a sentence that says where and how it can be mended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Reject {
    /// The class of the fault.
    pub reason: RejectReason,
    /// What is wrong, where, and what was expected. Holds no value of the record.
    pub message: Cow<'static, str>,
    /// What the database calls it, where it was the database that refused the record.
    pub sqlstate: Option<Box<str>>,
}

impl Reject {
    /// A verdict.
    pub fn new(reason: RejectReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), sqlstate: None }
    }

    /// The verdict of the target, as its error tells it.
    pub(crate) fn refused(error: &WriteError) -> Self {
        let message = Cow::Owned(error.with_remedy());
        Self { reason: RejectReason::Refused, message, sqlstate: error.sqlstate().map(Into::into) }
    }
}
