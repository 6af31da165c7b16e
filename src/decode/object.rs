//! Walks the top level of a record's JSON object, and hands each known field to its reader.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};
use serde_json::value::RawValue;

use super::{embedding, metadata, timestamp};
use crate::reject::{Reject, RejectReason};

/// The fields of a record that embedsink knows; all others are skipped.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) has_embedding: bool,
    pub(super) timestamp: Option<i64>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) metadata: Option<&'a str>,
    pub(super) table_name: Option<Cow<'a, str>>,
    /// Whether there was a value that nobody has looked into: it may hold bytes that are no UTF-8. All else is.
    pub(super) skipped: bool,
}

/// Reads the object. A field that stands twice is refused: which of the two is meant is a guess.
pub(super) fn read<'a>(bytes: &'a [u8], vector: &mut Vec<f32>) -> Result<Fields<'a>, Reject> {
    let mut fields = Fields::default();
    let mut seen = [false; KNOWN.len()];
    let mut cursor = Cursor { bytes, at: 0 };

    cursor.expect(b'{', "a JSON object, `{`")?;
    if cursor.accept(b'}') {
        return cursor.end().map(|()| fields);
    }
    loop {
        if cursor.peek() != Some(b'"') {
            return Err(cursor.unexpected("a field name in double quotes"));
        }
        let name: Text<'a> = cursor.value()?;
        cursor.expect(b':', "`:` after a field name")?;
        let known = KNOWN.iter().position(|known| *known == name.0);
        if let Some(index) = known
            && std::mem::replace(&mut seen[index], true)
        {
            let message = format!("the field `{}` stands there twice", KNOWN[index]);
            return Err(Reject::new(RejectReason::BadJson, message));
        }
        if cursor.peek() == Some(b'n') {
            // A null is the same as a field that is not there.
            cursor.value::<Option<IgnoredAny>>()?;
        } else {
            match known.map(|index| KNOWN[index]) {
                Some("id") => fields.id = Some(cursor.string("id", RejectReason::BadId)?),
                Some("text") => fields.text = Some(cursor.string("text", RejectReason::BadField)?),
                Some("source") => fields.source = Some(cursor.string("source", RejectReason::BadField)?),
                Some("table_name") => {
                    fields.table_name = Some(cursor.string("table_name", RejectReason::BadField)?);
                }
                Some("embedding") => {
                    cursor.at = embedding::read(bytes, cursor.at, vector)?;
                    fields.has_embedding = true;
                }
                Some("timestamp") => {
                    let raw: &'a RawValue = cursor.value()?;
                    fields.timestamp = Some(timestamp::read(raw)?);
                }
                Some("metadata") => {
                    let raw: &'a RawValue = cursor.value()?;
                    fields.metadata = Some(metadata::check(raw.get())?);
                }
                _ => {
                    cursor.value::<IgnoredAny>()?;
                    fields.skipped = true;
                }
            }
        }
        if cursor.accept(b'}') {
            return cursor.end().map(|()| fields);
        }
        cursor.expect(b',', "`,` or `}` after a field")?;
        cursor.peek();
    }
}

const KNOWN: [&str; 7] = ["id", "text", "embedding", "timestamp", "source", "metadata", "table_name"];

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Skips white space and looks at the next byte.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn accept(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8, name: &str) -> Result<(), Reject> {
        if self.accept(wanted) { Ok(()) } else { Err(self.unexpected(name)) }
    }

    fn end(&mut self) -> Result<(), Reject> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end after the closing `}`")),
        }
    }

    /// Reads one value with the library and steps behind it.
    fn value<T: Deserialize<'a>>(&mut self) -> Result<T, Reject> {
        self.peek();
        let mut values = serde_json::Deserializer::from_slice(&self.bytes[self.at..]).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(fault)) if fault.is_eof() => Err(self.ended()),
            Some(Err(_)) => Err(Reject::new(
                RejectReason::BadJson,
                format!("the value at byte {} is not valid JSON", self.at),
            )),
            None => Err(self.ended()),
        }
    }

    fn string(&mut self, field: &str, reason: RejectReason) -> Result<Cow<'a, str>, Reject> {
        if self.peek().is_some_and(|next| next != b'"') {
            return Err(Reject::new(reason, format!("`{field}` is not a string (byte {})", self.at)));
        }
        self.value::<Text<'a>>().map(|text| text.0)
    }

    fn unexpected(&mut self, wanted: &str) -> Reject {
        match self.peek() {
            None => self.ended(),
            Some(_) => Reject::new(RejectReason::BadJson, format!("at byte {}: expected {wanted}", self.at)),
        }
    }

    fn ended(&self) -> Reject {
        let message = match self.bytes.trim_ascii() {
            b"" => "the payload is empty".to_owned(),
            _ => format!("the JSON ends in the middle, at byte {}", self.bytes.len()),
        };
        Reject::new(RejectReason::BadJson, message)
    }
}

/// A string that borrows from the payload unless it holds escapes. (serde's own `Cow` always owns.)
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}
