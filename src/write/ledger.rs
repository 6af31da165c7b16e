//! The bookkeeping in schema `embedsink`: positions and dead letters. All SQL on it stands here.
//!
//! Invariant: `next_offset` moves only by compare-and-set on `(epoch, next_offset)`, so a writer
//! whose partition was taken by another finds no row to move.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sink_postgres_vector::{Error, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::{First, Taken};
use crate::batch::{DeadLetter, Span};
use crate::source::{Headers, Partition, Tenure};

/// A stored position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partition: Partition,
    pub(super) epoch: i64,
    pub(super) next_offset: i64,
}

/// A value with its type: statements that are rare are sent unnamed, in one round trip.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

const TAKING: &str = "take a partition over in embedsink.offsets";
const MOVING: &str = "move the positions in embedsink.offsets";
const READING: &str = "read the positions in embedsink.offsets";
const KEEPING: &str = "keep records in embedsink.dead_letters";

const TAKE: &str = "\
insert into embedsink.offsets as o (connector, topic, partition, next_offset, epoch, end_offset)
values ($1, $2, $3,
  case when exists (select from embedsink.offsets as known
                    where known.connector = $1 and known.topic = $2
                      and known.created_at < now() - interval '1 minute')
    then $5 else $4 end, 1, $6)
on conflict (connector, topic, partition) do update
set epoch = o.epoch + 1, end_offset = excluded.end_offset, updated_at = now()
returning o.next_offset, o.epoch, case when o.last_offset = o.next_offset - 1 then o.last_timestamp end";

const MOVE: &str = "\
update embedsink.offsets as o
set next_offset = m.target, last_offset = m.target - 1, last_timestamp = m.last_timestamp,
  updated_at = now()
from unnest($2::text[], $3::int4[], $4::int8[], $5::int8[], $6::int8[], $7::int8[])
  as m (topic, partition, epoch, stored, target, last_timestamp)
where o.connector = $1 and o.topic = m.topic and o.partition = m.partition
  and o.epoch = m.epoch and o.next_offset = m.stored
returning o.topic, o.partition, o.epoch, o.next_offset";

const READ: &str = "\
select o.topic, o.partition, o.epoch, o.next_offset
from embedsink.offsets as o
join unnest($2::text[], $3::int4[]) as m (topic, partition) using (topic, partition)
where o.connector = $1";

const KEEP: &str = "\
insert into embedsink.dead_letters
  (connector, topic, partition, \"offset\", key, headers, payload, payload_bytes, table_name, reason, sqlstate,
   message, record_timestamp)
select $1, topic, partition, position, key, headers::jsonb, payload, payload_bytes, table_name, reason, sqlstate,
  message, record_timestamp
from unnest($2::text[], $3::int4[], $4::int8[], $5::bytea[], $6::text[], $7::bytea[], $8::int8[], $9::text[],
  $10::text[], $11::text[], $12::text[], $13::timestamptz[])
  as l (topic, partition, position, key, headers, payload, payload_bytes, table_name, reason, sqlstate, message,
    record_timestamp)";

/// Raises the partition's epoch, and reads where to go on.
pub(super) async fn take(
    transaction: &Transaction<'_>,
    connector: &str,
    partition: &Partition,
    first: First,
) -> Result<Taken, Error> {
    let parameters: [Parameter<'_>; 6] = [
        (&connector, Type::TEXT),
        (&partition.topic(), Type::TEXT),
        (&partition.number(), Type::INT4),
        (&first.offset, Type::INT8),
        (&first.late, Type::INT8),
        (&first.end, Type::INT8),
    ];
    let row = transaction.during(TAKING, transaction.client().query_typed_one(TAKE, &parameters)).await?;
    let epoch: i64 = column(&row, 1)?;
    Ok(Taken {
        tenure: Tenure(epoch),
        next_offset: column(&row, 0)?,
        stored: epoch > 1,
        last_timestamp: column(&row, 2)?,
    })
}

/// Moves the positions of all spans that are still ours; returns those that moved.
pub(super) async fn move_positions(
    transaction: &mut Transaction<'_>,
    connector: &str,
    spans: &[&Span],
) -> Result<Vec<Position>, Error> {
    let (topics, partitions) = names(spans);
    let epochs: Vec<i64> = spans.iter().map(|span| span.tenure.0).collect();
    let stored: Vec<i64> = spans.iter().map(|span| span.from).collect();
    let targets: Vec<i64> = spans.iter().map(|span| span.to).collect();
    let stamps: Vec<Option<i64>> = spans.iter().map(|span| span.last_timestamp).collect();
    let parameters: [Parameter<'_>; 7] = [
        (&connector, Type::TEXT),
        (&topics, Type::TEXT_ARRAY),
        (&partitions, Type::INT4_ARRAY),
        (&epochs, Type::INT8_ARRAY),
        (&stored, Type::INT8_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&stamps, Type::INT8_ARRAY),
    ];
    // It runs with each batch, and planning it took longer than running it.
    let rows = transaction.query(MOVING, MOVE, &parameters).await?;
    rows.iter().map(position).collect()
}

/// Reads what is stored for the partitions of these spans.
pub(super) async fn read_positions(
    transaction: &Transaction<'_>,
    connector: &str,
    spans: &[&Span],
) -> Result<Vec<Position>, Error> {
    let (topics, partitions) = names(spans);
    let parameters: [Parameter<'_>; 3] =
        [(&connector, Type::TEXT), (&topics, Type::TEXT_ARRAY), (&partitions, Type::INT4_ARRAY)];
    let rows = transaction.during(READING, transaction.client().query_typed(READ, &parameters)).await?;
    rows.iter().map(position).collect()
}

/// Keeps records that cannot be used. Of a payload only the first `max_payload` bytes are kept.
pub(super) async fn keep_dead_letters(
    transaction: &Transaction<'_>,
    connector: &str,
    letters: &[DeadLetter<'_>],
    max_payload: usize,
) -> Result<u64, Error> {
    let topics: Vec<&str> = letters.iter().map(|letter| letter.rejected.partition.topic()).collect();
    let partitions: Vec<i32> = letters.iter().map(|letter| letter.rejected.partition.number()).collect();
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.rejected.offset).collect();
    let keys: Vec<Option<&[u8]>> = letters.iter().map(|letter| letter.record.key).collect();
    let headers: Vec<Option<String>> = letters.iter().map(|letter| json(letter.record.headers)).collect();
    let whole = || letters.iter().map(|letter| letter.record.payload);
    let payloads: Vec<Option<&[u8]>> =
        whole().map(|payload| payload.map(|bytes| &bytes[..bytes.len().min(max_payload)])).collect();
    let length = |letter: &DeadLetter<'_>| {
        letter.record.payload.map(|bytes| (bytes.len() + letter.record.omitted) as i64)
    };
    let lengths: Vec<Option<i64>> = letters.iter().map(length).collect();
    let tables: Vec<Option<&str>> = letters.iter().map(|letter| letter.table).collect();
    let rejects = || letters.iter().map(|letter| &letter.rejected.reject);
    let reasons: Vec<&str> = rejects().map(|reject| reject.reason.as_str()).collect();
    let states: Vec<Option<&str>> = rejects().map(|reject| reject.sqlstate.as_deref()).collect();
    let messages: Vec<&str> = rejects().map(|reject| reject.message.as_ref()).collect();
    let stamps: Vec<Option<SystemTime>> =
        letters.iter().map(|letter| letter.record.timestamp.and_then(system_time)).collect();
    let parameters: [Parameter<'_>; 13] = [
        (&connector, Type::TEXT),
        (&topics, Type::TEXT_ARRAY),
        (&partitions, Type::INT4_ARRAY),
        (&offsets, Type::INT8_ARRAY),
        (&keys, Type::BYTEA_ARRAY),
        (&headers, Type::TEXT_ARRAY),
        (&payloads, Type::BYTEA_ARRAY),
        (&lengths, Type::INT8_ARRAY),
        (&tables, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&messages, Type::TEXT_ARRAY),
        (&stamps, Type::TIMESTAMPTZ_ARRAY),
    ];
    transaction.during(KEEPING, transaction.client().execute_typed(KEEP, &parameters)).await
}

/// Headers as a JSON list, for people to query. What is not text, or not text that `jsonb` can hold, stands as
/// base64.
pub(super) fn json(headers: Headers<'_>) -> Option<String> {
    let text =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).map(str::to_owned);
    let value = |value: Option<&[u8]>| match value.map(|bytes| (bytes, text(bytes))) {
        None => ("value", Value::Null),
        Some((_, Some(text))) => ("value", Value::String(text)),
        Some((bytes, None)) => ("base64", Value::String(STANDARD.encode(bytes))),
    };
    let header = |(name, bytes): (&[u8], Option<&[u8]>)| {
        let name = text(name).unwrap_or_else(|| STANDARD.encode(name));
        let (key, value) = value(bytes);
        Value::Object(
            [("name".to_owned(), Value::String(name)), (key.to_owned(), value)].into_iter().collect(),
        )
    };
    let list: Vec<Value> = headers.iter().map(header).collect();
    (!list.is_empty()).then(|| Value::Array(list).to_string())
}

fn names<'a>(spans: &[&'a Span]) -> (Vec<&'a str>, Vec<i32>) {
    spans.iter().map(|span| (span.partition.topic(), span.partition.number())).unzip()
}

fn position(row: &Row) -> Result<Position, Error> {
    let topic: &str = column(row, 0)?;
    Ok(Position {
        partition: Partition::new(topic, column(row, 1)?),
        epoch: column(row, 2)?,
        next_offset: column(row, 3)?,
    })
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Error> {
    row.try_get(index).map_err(|fault| Error::during(READING, fault))
}

/// What a `timestamptz` holds, in milliseconds since the Unix epoch: from 4714-11-24 BC up to, not including, the year
/// 294277.
const HELD: Range<i64> = -210_866_803_200_000..9_224_318_016_000_000;

/// A record's own timestamp, unless it is one that `timestamptz` cannot hold.
fn system_time(millis: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(millis.unsigned_abs());
    match millis {
        millis if !HELD.contains(&millis) => None,
        ..0 => SystemTime::UNIX_EPOCH.checked_sub(distance),
        _ => SystemTime::UNIX_EPOCH.checked_add(distance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timestamp_that_postgres_holds_is_kept_to_the_millisecond_and_no_other() {
        for millis in [HELD.start, -62_135_596_800_001, -1, 0, 1, 253_402_300_800_000, HELD.end - 1] {
            let kept = system_time(millis).expect("it is held");
            let back = match kept.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => since.as_millis() as i64,
                Err(before) => -(before.duration().as_millis() as i64),
            };
            assert_eq!(back, millis);
        }
        for millis in [i64::MIN, HELD.start - 1, HELD.end, i64::MAX] {
            assert_eq!(system_time(millis), None, "{millis}");
        }
    }
}
