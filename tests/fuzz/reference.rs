//! A second decoder, to compare with: slow, simple, on top of `serde_json`, and sharing no code with the first.
//!
//! It reads the whole object first and judges its fields then. Where a payload is broken in the middle of a
//! value, more than one reason may be given for it, and any of them is right.

use std::cell::RefCell;
use std::fmt;

use embedsink::reject::RejectReason::{self, *};
use embedsink::source::SourceRecord;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What must become of a record.
#[derive(Debug)]
pub(crate) enum Answer {
    Upsert(Row),
    Delete(String),
    /// Refused for one of these reasons.
    Reject(Vec<RejectReason>),
}

/// What must be found in a good record.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) text: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) table_name: Option<String>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) metadata: Option<String>,
    pub(crate) vector: Vec<f32>,
}

type Verdict<T> = Result<T, Vec<RejectReason>>;

/// Reads one record.
pub(crate) fn decode(record: &SourceRecord<'_>) -> Answer {
    let answer = match record.payload {
        None => key(record).and_then(|id| id.ok_or(vec![MissingId])).map(Answer::Delete),
        Some(payload) => row(record, payload).map(Answer::Upsert),
    };
    answer.unwrap_or_else(Answer::Reject)
}

fn row(record: &SourceRecord<'_>, payload: &[u8]) -> Verdict<Row> {
    if payload.len() > 5 && payload.starts_with(b"\0") {
        return Err(vec![BadJson]);
    }
    let text = String::from_utf8(payload.to_vec()).map_err(|_| vec![InvalidUtf8])?;
    let (fields, broken) = fields(&text);
    let mut row = Row { timestamp: record.timestamp.and_then(micros), ..Row::default() };
    let (mut id, mut embedding, mut seen) = (None, false, Vec::new());
    let count = fields.len();
    for (index, (name, value)) in fields.into_iter().enumerate() {
        // What stands behind the last value may belong to it, as in `12x`.
        let or_broken = |mut reasons: Vec<RejectReason>| {
            if broken.is_some() && index + 1 == count {
                reasons.push(BadJson);
            }
            reasons
        };
        if is_known(&name) && seen.contains(&name) {
            return Err(vec![BadJson]);
        }
        seen.push(name.clone());
        if value == "null" {
            continue;
        }
        let string = |reason| string(value, reason).map(Some);
        match name.as_str() {
            "id" => string(BadId).map(|value| id = value),
            "text" => string(BadField).map(|value| row.text = value),
            "source" => string(BadField).map(|value| row.source = value),
            "table_name" => string(BadField).map(|value| row.table_name = value),
            "timestamp" => timestamp(value).map(|value| row.timestamp = Some(value)),
            "metadata" => metadata(value).map(|()| row.metadata = Some(value.to_owned())),
            "embedding" => numbers(value).map(|value| (row.vector, embedding) = (value, true)),
            _ => Ok(()),
        }
        .map_err(or_broken)?;
    }
    if let Some(name) = broken {
        return Err(match name.as_deref() {
            Some(name) if is_known(name) && seen.iter().any(|seen| seen == name) => vec![BadJson],
            Some("id") => vec![BadId, BadJson],
            Some("text" | "source" | "table_name") => vec![BadField, BadJson],
            Some("embedding") => vec![BadEmbedding, NotFinite, BadJson],
            _ => vec![BadJson],
        });
    }
    row.id = match id {
        Some(id) => id,
        None => key(record)?.ok_or(vec![MissingId])?,
    };
    if row.id.is_empty() {
        return Err(vec![BadId]);
    }
    let texts = [Some(&row.id), row.text.as_ref(), row.source.as_ref()];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(vec![NulByte]);
    }
    if embedding { Ok(row) } else { Err(vec![MissingEmbedding]) }
}

fn is_known(name: &str) -> bool {
    ["id", "text", "embedding", "timestamp", "source", "metadata", "table_name"].contains(&name)
}

fn key(record: &SourceRecord<'_>) -> Verdict<Option<String>> {
    let Some(key) = record.key.filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    match String::from_utf8(key.to_vec()) {
        Err(_) => Err(vec![InvalidUtf8]),
        Ok(key) if key.contains('\0') => Err(vec![NulByte]),
        Ok(key) => Ok(Some(key)),
    }
}

/// The fields up to the first fault; when there is one, the field in whose value it stands, if it is in one.
fn fields(text: &str) -> (Vec<(String, &str)>, Option<Option<String>>) {
    let read: RefCell<Read<'_>> = RefCell::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let is_whole = Object(&read).deserialize(&mut json).is_ok() && json.end().is_ok();
    let (fields, open) = read.into_inner();
    (fields, (!is_whole).then_some(open))
}

/// Notes the fields that it has read, and the name whose value it reads, so that a fault does not take them away.
struct Object<'s, 'de>(&'s RefCell<Read<'de>>);

type Read<'de> = (Vec<(String, &'de str)>, Option<String>);

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.borrow_mut().1 = Some(name.clone());
            let value: &'de RawValue = map.next_value()?;
            let mut read = self.0.borrow_mut();
            read.0.push((name, value.get()));
            read.1 = None;
        }
        Ok(())
    }
}

fn string(value: &str, reason: RejectReason) -> Verdict<String> {
    match serde_json::from_str(value) {
        Ok(text) => Ok(text),
        Err(_) if value.starts_with('"') => Err(vec![BadJson]),
        Err(_) => Err(vec![reason]),
    }
}

fn numbers(value: &str) -> Verdict<Vec<f32>> {
    let items: Vec<&RawValue> = serde_json::from_str(value).map_err(|_| vec![BadEmbedding])?;
    items
        .into_iter()
        .map(|item| match item.get().parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Err(vec![NotFinite]),
            Err(_) => Err(vec![BadEmbedding]),
        })
        .collect()
}

fn micros(millis: i64) -> Option<i64> {
    (-62_135_596_800_000..=253_402_300_799_999).contains(&millis).then(|| millis * 1000)
}

fn timestamp(value: &str) -> Verdict<i64> {
    let bad = || vec![BadTimestamp];
    if value.starts_with('"') {
        let text: String = serde_json::from_str(value).map_err(|_| bad())?;
        // The two last days are beyond the library's own range; another year with the same days stands in.
        let (text, shift) = match text.strip_prefix("9999-") {
            Some(rest) => (format!("9599-{rest}"), 400 * 365 + 97),
            None => (text, 0),
        };
        let instant: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        let micros = instant.as_nanosecond().div_euclid(1000) + shift * 86_400_000_000;
        let micros = i64::try_from(micros).map_err(|_| bad())?;
        return self::micros(micros.div_euclid(1000)).map(|_| micros).ok_or_else(bad);
    }
    if let Ok(millis) = value.parse() {
        return micros(millis).ok_or_else(bad);
    }
    let millis: f64 = value.parse().map_err(|_| bad())?;
    let is_in_range = (-62_135_596_800_000.0..=253_402_300_799_999.0).contains(&millis);
    if is_in_range { Ok((millis * 1000.0).round() as i64) } else { Err(bad()) }
}

fn metadata(value: &str) -> Verdict<()> {
    if !value.starts_with('{') {
        return Err(vec![BadMetadata]);
    }
    storable(value, 1)
}

/// Whether `jsonb` takes this value, which is valid JSON.
fn storable(value: &str, depth: usize) -> Verdict<()> {
    if value.starts_with(['{', '[']) && depth > 128 {
        return Err(vec![BadMetadata]);
    }
    match value.as_bytes()[0] {
        b'{' => {
            let read = RefCell::new(Vec::new());
            let mut json = serde_json::Deserializer::from_str(value);
            RawObject(&read).deserialize(&mut json).map_err(|fault| panic!("{fault} in {value}")).ok();
            for (name, value) in read.into_inner() {
                storable(name, depth + 1)?;
                storable(value, depth + 1)?;
            }
            Ok(())
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(value).unwrap();
            items.into_iter().try_for_each(|item| storable(item.get(), depth + 1))
        }
        b'"' => match serde_json::from_str::<String>(value) {
            Ok(text) if text.contains('\0') => Err(vec![NulByte]),
            Ok(_) => Ok(()),
            // Half of a pair, and maybe a NUL too.
            Err(_) if value.contains("\\u0000") => Err(vec![BadMetadata, NulByte]),
            Err(_) => Err(vec![BadMetadata]),
        },
        b'-' | b'0'..=b'9' => {
            let (digits, exponent) = value.split_once(['e', 'E']).unwrap_or((value, "0"));
            let digits = digits.chars().filter(char::is_ascii_digit).count();
            let exponent = exponent.trim_start_matches(['-', '+']).parse().unwrap_or(usize::MAX);
            if digits.saturating_add(exponent) > 16_000 { Err(vec![BadMetadata]) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Collects names and values as they are spelt.
struct RawObject<'s, 'de>(&'s RefCell<Vec<(&'de str, &'de str)>>);

impl<'de> DeserializeSeed<'de> for RawObject<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RawObject<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            self.0.borrow_mut().push((name.get(), value.get()));
        }
        Ok(())
    }
}
