//! What the database must hold: the fold of the log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::Client;

use super::record::{NO_TIME, Outcome, Record, Row, Shape};

/// Where a dead letter comes from.
type Position = (i32, i64);

/// A dead letter: reason, key, payload, timestamp in milliseconds.
#[derive(Debug, PartialEq)]
struct DeadLetter {
    reason: String,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    timestamp: Option<i64>,
}

/// Compares tables and dead letters with the fold of the records that lie before `positions`.
///
/// # Panics
/// At the first differences.
pub(crate) async fn assert_fold(
    client: &Client,
    shape: &Shape,
    topic: &str,
    log: &[Record],
    positions: &[(i32, i64)],
) {
    let ends: BTreeMap<i32, i64> = positions.iter().copied().collect();
    let settled =
        || log.iter().filter(|record| record.offset < ends.get(&record.partition).copied().unwrap_or(0));
    let mut letters = stored_letters(client, topic).await;
    let rows = fold(shape, settled(), &letters);
    let mut wrong = Vec::new();
    for record in settled() {
        let letter = letters.remove(&(record.partition, record.offset));
        if let Some(complaint) = judge(record, letter.as_ref()) {
            wrong.push(format!("dead letter {}/{}: {complaint}", record.partition, record.offset));
        }
    }
    wrong.extend(letters.keys().map(|position| format!("dead letter {position:?}: nothing there to reject")));
    for (table, (name, _)) in shape.tables.iter().enumerate() {
        let of_table = rows.iter().filter(|((of, _), _)| *of == table);
        let expected = of_table.map(|((_, id), row)| (id.as_str(), row.as_ref())).collect();
        let stored = stored_rows(client, table, name).await;
        wrong.extend(differences(name, &expected, &stored));
    }
    assert!(
        wrong.is_empty(),
        "{} differences, such as:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
}

/// [`assert_fold`] over the whole log.
pub(crate) async fn assert_fold_of_all(client: &Client, shape: &Shape, topic: &str, log: &[Record]) {
    let positions: Vec<_> = (0..shape.partitions).map(|partition| (partition, i64::MAX)).collect();
    assert_fold(client, shape, topic, log, &positions).await;
}

type Rows<'a> = BTreeMap<(usize, String), Cow<'a, Row>>;

/// The last row per table and id. Every id has all its records in one partition.
fn fold<'a>(
    shape: &Shape,
    records: impl Iterator<Item = &'a Record>,
    letters: &BTreeMap<Position, DeadLetter>,
) -> Rows<'a> {
    let mut rows = Rows::new();
    for record in records {
        match &record.outcome {
            Outcome::Row(row) => {
                rows.insert((row.table, row.id.clone()), Cow::Borrowed(row));
            }
            Outcome::Delete(id) => {
                for table in 0..shape.tables.len() {
                    rows.remove(&(table, id.clone()));
                }
            }
            Outcome::Dead(_) => {}
            Outcome::Open => {
                if !letters.contains_key(&(record.partition, record.offset)) {
                    let row = read(shape, record);
                    rows.insert((row.table, row.id.clone()), Cow::Owned(row));
                }
            }
        }
    }
    rows
}

/// The row of a record that the connector took for good, as a JSON library reads it.
fn read(shape: &Shape, record: &Record) -> Row {
    let payload = record.payload.as_ref().unwrap();
    let json: Value = serde_json::from_slice(payload)
        .unwrap_or_else(|fault| panic!("offset {} was written, though {fault}", record.offset));
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    let key = record.key.as_ref().map(|key| String::from_utf8(key.clone()).unwrap());
    let table_name = text("table_name");
    let is_named = |(name, _): &(&str, usize)| table_name.as_deref().is_none_or(|wanted| wanted == *name);
    let timestamp = match json.get("timestamp") {
        None | Some(Value::Null) if record.timestamp == NO_TIME => NO_TIME,
        None | Some(Value::Null) => record.timestamp * 1000,
        Some(Value::String(text)) => text.parse::<jiff::Timestamp>().unwrap().as_microsecond(),
        Some(number) => match number.as_i64() {
            Some(millis) => millis * 1000,
            None => (number.as_f64().unwrap() * 1000.0).round() as i64,
        },
    };
    Row {
        table: shape.tables.iter().position(is_named).expect("it names a table"),
        id: text("id").or(key).expect("it has an id"),
        text: text("text"),
        embedding: json["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|number| number.as_f64().unwrap() as f32)
            .collect(),
        timestamp,
        source: text("source"),
        metadata: json.get("metadata").cloned().unwrap_or_default(),
    }
}

/// What is wrong with a record's dead letter, or with there being none.
fn judge(record: &Record, letter: Option<&DeadLetter>) -> Option<String> {
    let reason = match (&record.outcome, letter) {
        (Outcome::Dead(reason), Some(_)) => *reason,
        (Outcome::Dead(reason), None) => return Some(format!("is missing ({reason}): {}", shown(record))),
        (Outcome::Open, Some(letter)) => letter.reason.as_str(),
        (_, Some(letter)) => return Some(format!("{} for a good record: {}", letter.reason, shown(record))),
        (_, None) => return None,
    };
    let letter = letter?;
    if letter.reason != reason {
        return Some(format!("{}, expected {reason}: {}", letter.reason, shown(record)));
    }
    let is_whole = letter.key == record.key
        && letter.payload == record.payload
        && letter.timestamp.unwrap_or(NO_TIME) == record.timestamp;
    (!is_whole).then(|| format!("is not the record as it was: {}", shown(record)))
}

fn shown(record: &Record) -> String {
    let Some(payload) = &record.payload else {
        return "no payload".to_owned();
    };
    let text = String::from_utf8_lossy(&payload[..payload.len().min(600)]).into_owned();
    format!("{} bytes, {text}", payload.len())
}

async fn stored_letters(client: &Client, topic: &str) -> BTreeMap<Position, DeadLetter> {
    let sql = "select partition, \"offset\", reason, key, payload, \
               (extract(epoch from record_timestamp) * 1000)::int8 \
               from embedsink.dead_letters where topic = $1";
    let rows = client.query(sql, &[&topic]).await.unwrap();
    let letter = |row: &tokio_postgres::Row| {
        let letter =
            DeadLetter { reason: row.get(2), key: row.get(3), payload: row.get(4), timestamp: row.get(5) };
        ((row.get(0), row.get(1)), letter)
    };
    let letters: BTreeMap<_, _> = rows.iter().map(letter).collect();
    assert_eq!(letters.len(), rows.len(), "a record has one dead letter at most");
    letters
}

async fn stored_rows(client: &Client, table: usize, name: &str) -> BTreeMap<String, Row> {
    let sql = format!(
        "select id, text, embedding::float4[], (extract(epoch from \"timestamp\") * 1000000)::int8, source, \
         metadata::text from {name}"
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    let row = |row: &tokio_postgres::Row| {
        let metadata: Option<&str> = row.get(5);
        let id: String = row.get(0);
        let metadata = metadata.map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
        let row = Row {
            table,
            id: id.clone(),
            text: row.get(1),
            embedding: row.get(2),
            timestamp: row.get::<_, Option<i64>>(3).unwrap_or(NO_TIME),
            source: row.get(4),
            metadata,
        };
        (id, row)
    };
    rows.iter().map(row).collect()
}

fn differences(table: &str, expected: &BTreeMap<&str, &Row>, stored: &BTreeMap<String, Row>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, row) in expected {
        match stored.get(*id) {
            None => wrong.push(format!("{table}: the row {id} is missing: {row:?}")),
            Some(found) if !is_same(row, found) => {
                wrong.push(format!("{table}: the row {id} is\n  {found:?}, expected\n  {row:?}"));
            }
            Some(_) => {}
        }
    }
    let surplus = stored.iter().filter(|(id, _)| !expected.contains_key(id.as_str()));
    wrong.extend(surplus.map(|(id, row)| format!("{table}: there should be no row {id}: {row:?}")));
    wrong
}

/// Equal, and the vector bit by bit.
fn is_same(expected: &Row, found: &Row) -> bool {
    let bits = |row: &Row| row.embedding.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    expected == found && bits(expected) == bits(found)
}
