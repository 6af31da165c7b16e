//! From bytes to an [`Embedding`]. Second stop on a record's way; pure.
//!
//! The embedding array is nearly all of a record, so it is read straight to `f32`, once. Everything
//! else stays with `serde_json`.
//!
//! Invariant: whatever the bytes are, the answer is an [`Embedding`], a deletion or a [`Reject`];
//! never a panic, and time linear in the length of the payload. What is accepted here is accepted by
//! Postgres.

mod embedding;
mod metadata;
mod object;
mod timestamp;

use std::borrow::Cow;
use std::fmt;

use crate::reject::{Reject, RejectReason};
use crate::source::SourceRecord;

/// What a record asks for.
#[derive(PartialEq)]
pub enum Change<'a> {
    /// Insert or overwrite a row.
    Upsert(Embedding<'a>),
    /// Delete the rows with this id, in every table: a tombstone names no table.
    Delete {
        /// The record's key.
        id: Cow<'a, str>,
    },
}

/// A decoded record. Its vector stands in the `Vec<f32>` that was given to [`decode`].
#[derive(PartialEq)]
pub struct Embedding<'a> {
    /// The key of the row; never empty.
    pub id: Cow<'a, str>,
    /// The text that was embedded.
    pub text: Option<Cow<'a, str>>,
    /// Microseconds since the Unix epoch, in the range of `timestamptz`.
    pub timestamp: Option<i64>,
    /// Where the text comes from.
    pub source: Option<Cow<'a, str>>,
    /// The text of a JSON object that `jsonb` accepts.
    pub metadata: Option<&'a str>,
    /// The table that the record names.
    pub table_name: Option<Cow<'a, str>>,
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upsert(embedding) => fmt::Debug::fmt(embedding, f),
            Self::Delete { .. } => f.write_str("Delete { .. }"),
        }
    }
}

impl fmt::Debug for Embedding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedding").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}

/// Decodes one record; `vector` is overwritten with its numbers, all finite.
///
/// # Errors
/// A [`Reject`] for a record that cannot be used.
pub fn decode<'a>(record: &SourceRecord<'a>, vector: &mut Vec<f32>) -> Result<Change<'a>, Reject> {
    vector.clear();
    let Some(payload) = record.payload else {
        return match key_as_id(record)? {
            Some(id) => Ok(Change::Delete { id: Cow::Borrowed(id) }),
            None => Err(Reject::new(
                RejectReason::MissingId,
                "the payload is null, which deletes by key, but the record has no key",
            )),
        };
    };
    let fields = match object::read(payload, vector) {
        Ok(fields) if fields.skipped => utf8(payload).map(|()| fields),
        Ok(fields) => Ok(fields),
        // That a payload is no text at all says more than what is wrong with it as JSON.
        Err(reject) => utf8(payload).and(Err(reject)),
    }?;

    let id = match fields.id {
        Some(id) => id,
        None => key_as_id(record)?.map(Cow::Borrowed).ok_or_else(|| {
            Reject::new(RejectReason::MissingId, "there is no field `id`, and the record has no key")
        })?,
    };
    if id.is_empty() {
        return Err(Reject::new(RejectReason::BadId, "the id is empty"));
    }
    refuse_nul("id", Some(&id))?;
    refuse_nul("text", fields.text.as_deref())?;
    refuse_nul("source", fields.source.as_deref())?;
    if !fields.has_embedding {
        return Err(Reject::new(RejectReason::MissingEmbedding, "there is no field `embedding`"));
    }
    let timestamp = match fields.timestamp {
        Some(stated) => Some(stated),
        // A producer's clock that is off by centuries is no fault of the record: it has no timestamp then.
        None => record.timestamp.and_then(|millis| timestamp::from_millis(millis).ok()),
    };
    Ok(Change::Upsert(Embedding {
        id,
        text: fields.text,
        timestamp,
        source: fields.source,
        metadata: fields.metadata,
        table_name: fields.table_name,
    }))
}

/// Reads a vector that stands alone, as people give one; `vector` is overwritten with its numbers, all finite.
///
/// # Errors
/// A [`Reject`] for what is no array of numbers.
pub(crate) fn vector(text: &str, vector: &mut Vec<f32>) -> Result<(), Reject> {
    vector.clear();
    let text = text.trim();
    let end = embedding::read(text.as_bytes(), 0, vector)?;
    if end < text.len() {
        let message = format!("something follows behind the `]` of `embedding`, at byte {end}");
        return Err(Reject::new(RejectReason::BadEmbedding, message));
    }
    Ok(())
}

fn key_as_id<'a>(record: &SourceRecord<'a>) -> Result<Option<&'a str>, Reject> {
    let Some(key) = record.key.filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    let id = std::str::from_utf8(key).map_err(|fault| {
        Reject::new(
            RejectReason::InvalidUtf8,
            format!("the record's key is not UTF-8 at byte {}", fault.valid_up_to()),
        )
    })?;
    refuse_nul("key", Some(id))?;
    Ok(Some(id))
}

/// Refuses what is no text. Only the strings that are taken have been looked at in this regard.
fn utf8(payload: &[u8]) -> Result<(), Reject> {
    if payload.first() == Some(&0) && payload.len() > 5 {
        return Err(Reject::new(
            RejectReason::BadJson,
            "the payload starts with byte 0, as records framed by a schema registry do; plain JSON is expected",
        ));
    }
    std::str::from_utf8(payload).map(drop).map_err(|fault| {
        Reject::new(
            RejectReason::InvalidUtf8,
            format!("the payload is not UTF-8 at byte {}", fault.valid_up_to()),
        )
    })
}

fn refuse_nul(field: &str, value: Option<&str>) -> Result<(), Reject> {
    match value {
        Some(value) if value.as_bytes().contains(&0) => Err(Reject::new(
            RejectReason::NulByte,
            format!(
                "`{field}` holds the character U+0000, which is not taken, since PostgreSQL cannot store it"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
