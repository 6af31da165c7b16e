//! Dead letters in a Lance table.

use jiff::Timestamp;
use sink_lancedb::{KeyedRow, KeyedSpec, Kind, Upkeep, Value};

use super::LETTERS;
use crate::batch::DeadLetter;
use crate::write::ledger;

/// How the table looks. Its columns are those of `embedsink.dead_letters`, as far as LanceDB has a use for them.
pub(super) fn spec() -> KeyedSpec {
    let columns = [
        ("connector", Kind::Text),
        ("topic", Kind::Text),
        ("partition", Kind::Integer),
        ("offset", Kind::Integer),
        ("record_key", Kind::Bytes),
        ("headers", Kind::Text),
        ("payload", Kind::Bytes),
        ("payload_bytes", Kind::Integer),
        ("table_name", Kind::Text),
        ("reason", Kind::Text),
        ("message", Kind::Text),
        ("record_timestamp", Kind::Timestamp),
        ("first_seen", Kind::Timestamp),
    ];
    KeyedSpec {
        name: LETTERS.to_owned(),
        columns: columns.map(|(name, kind)| (name.to_owned(), kind)).into(),
        upkeep: Upkeep::default(),
    }
}

/// The letters of a batch, with at most `max_payload` bytes of each payload.
///
/// The key tells a record from others at its place in a topic that was created anew, as far as its timestamp does: a batch
/// that comes again writes the same letters, and a letter never takes another's place.
pub(super) fn rows(connector: &str, letters: &[DeadLetter<'_>], max_payload: usize) -> Vec<KeyedRow> {
    let now = Timestamp::now().as_microsecond();
    letters.iter().map(|letter| row(connector, letter, max_payload, now)).collect()
}

fn row(connector: &str, letter: &DeadLetter<'_>, max_payload: usize, now: i64) -> KeyedRow {
    let DeadLetter { rejected, table, record } = letter;
    let (topic, number) = (rejected.partition.topic(), rejected.partition.number());
    let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| Value::Bytes(bytes.to_vec()));
    let payload = record.payload.map(|payload| &payload[..payload.len().min(max_payload)]);
    let length = record.payload.map(|payload| (payload.len() + record.omitted) as i64);
    let stamp = record.timestamp.and_then(|millis| millis.checked_mul(1_000));
    let millis = record.timestamp.map_or(String::new(), |millis| millis.to_string());
    KeyedRow {
        key: format!("{connector}/{number}/{}/{millis}/{topic}", rejected.offset),
        values: vec![
            Value::Text(connector.to_owned()),
            Value::Text(topic.to_owned()),
            Value::Integer(number.into()),
            Value::Integer(rejected.offset),
            bytes(record.key),
            text(ledger::json(record.headers)),
            bytes(payload),
            length.map_or(Value::Null, Value::Integer),
            text(table.map(str::to_owned)),
            Value::Text(rejected.reject.reason.as_str().to_owned()),
            Value::Text(rejected.reject.message.to_string()),
            stamp.map_or(Value::Null, Value::Timestamp),
            Value::Timestamp(now),
        ],
    }
}
