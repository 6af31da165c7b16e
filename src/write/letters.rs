//! Dead letters as people deal with them: found, shown, replayed. Their writing is the ledger's.
//!
//! Invariant: every statement names the connector, so nobody sees or changes another one's letters.

mod selection;

use std::time::SystemTime;

use sink_postgres_vector::{Connection, Error, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::reject::Reject;
use crate::source::Partition;

pub(crate) use selection::{Range, Selection};

/// What is known of a dead letter, but for the record itself.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: i64,
    pub(crate) partition: Partition,
    pub(crate) offset: i64,
    pub(crate) table: Option<String>,
    pub(crate) reason: String,
    pub(crate) sqlstate: Option<String>,
    pub(crate) message: String,
    /// The record's own timestamp, where people can be shown it: from 1970 to 9999.
    pub(crate) record_timestamp: Option<SystemTime>,
    /// The same as it is kept.
    kept_timestamp: Option<SystemTime>,
    pub(crate) first_seen: SystemTime,
    pub(crate) tries: i32,
    pub(crate) last_tried: SystemTime,
    /// How long the payload was.
    pub(crate) payload_bytes: Option<i64>,
    /// How much of it is kept.
    pub(crate) kept_bytes: Option<i64>,
}

impl Letter {
    /// Whether only a part of the payload is kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.payload_bytes > self.kept_bytes
    }

    /// Where its record stands in the log.
    pub(crate) fn standing(&self) -> Standing {
        let Self { id, offset, first_seen, .. } = *self;
        Standing { partition: self.partition.clone(), offset, id, first_seen }
    }

    /// The record's own timestamp in milliseconds, as the source gave it.
    pub(crate) fn record_millis(&self) -> Option<i64> {
        match self.kept_timestamp?.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).ok(),
            Err(before) => i64::try_from(before.duration().as_millis()).ok().map(|millis| -millis),
        }
    }
}

/// Where a letter's record stands in the log. Letters of a partition sort by it in the order of the log, unless the
/// topic was created again or the position set back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    partition: Partition,
    offset: i64,
    id: i64,
    first_seen: SystemTime,
}

impl Standing {
    /// Whether it is certain that this record came before the other one.
    ///
    /// A batch stores its letters in any order, but all of them with the same time; batches of a partition follow
    /// one another. So where offsets and numbers disagree beyond one batch, the offsets are those of two logs.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        let is_one_batch = self.first_seen == other.first_seen && self.offset < other.offset;
        self.partition == other.partition
            && (is_one_batch || self.offset <= other.offset && self.id < other.id)
    }
}

/// The record of a dead letter. Nothing here is shown by `Debug`.
pub(crate) struct Contents {
    pub(crate) key: Option<Vec<u8>>,
    /// A list of JSON objects.
    pub(crate) headers: Option<String>,
    pub(crate) payload: Option<Vec<u8>>,
}

const COLUMNS: &str = "\
id, topic, partition, \"offset\", table_name, reason, sqlstate, message, record_timestamp, first_seen, tries,
last_tried, coalesce(payload_bytes, octet_length(payload)), octet_length(payload)::int8";

const READING: &str = "read embedsink.dead_letters";
const LOCKING: &str = "lock records in embedsink.dead_letters";
const UPDATING: &str = "update embedsink.dead_letters";

const FORGET: &str = "delete from embedsink.dead_letters where connector = $1 and id = any($2)";

const KEEP: &str = "\
update embedsink.dead_letters as l
set tries = l.tries + 1, last_tried = now(), reason = k.reason, sqlstate = k.sqlstate, message = k.message,
  table_name = coalesce(k.table_name, l.table_name)
from unnest($2::int8[], $3::text[], $4::text[], $5::text[], $6::text[])
  as k (id, reason, sqlstate, message, table_name)
where l.connector = $1 and l.id = k.id";

/// One letter of the connector, whole.
pub(crate) async fn find(
    connection: &Connection,
    connector: &str,
    id: i64,
) -> Result<Option<(Letter, Contents)>, Error> {
    let sql = format!(
        "select {COLUMNS}, key, headers::text, payload from embedsink.dead_letters
         where connector = $1 and id = $2"
    );
    let parameters: [Parameter<'_>; 2] = [(&connector, Type::TEXT), (&id, Type::INT8)];
    let rows = connection.during(READING, connection.client().query_typed(&sql, &parameters)).await?;
    rows.first().map(|row| Ok((letter(row)?, contents(row)?))).transpose()
}

/// Locks letters for a replay, and reads them. Those that are gone by now are left out.
pub(crate) async fn lock(
    transaction: &Transaction<'_>,
    connector: &str,
    ids: &[i64],
) -> Result<Vec<(Letter, Contents)>, Error> {
    let sql = format!(
        "select {COLUMNS}, key, headers::text, payload from embedsink.dead_letters
         where connector = $1 and id = any($2) order by id for update"
    );
    let parameters: [Parameter<'_>; 2] = [(&connector, Type::TEXT), (&ids, Type::INT8_ARRAY)];
    let rows = transaction.during(LOCKING, transaction.client().query_typed(&sql, &parameters)).await?;
    rows.iter().map(|row| Ok((letter(row)?, contents(row)?))).collect()
}

/// Deletes letters whose records are written by now.
pub(crate) async fn forget(transaction: &Transaction<'_>, connector: &str, ids: &[i64]) -> Result<(), Error> {
    let parameters: [Parameter<'_>; 2] = [(&connector, Type::TEXT), (&ids, Type::INT8_ARRAY)];
    transaction.during(UPDATING, transaction.client().execute_typed(FORGET, &parameters)).await?;
    Ok(())
}

/// A letter whose record cannot be used this time either.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) id: i64,
    /// The table it was for, if that is known now.
    pub(crate) table: Option<String>,
    pub(crate) reject: Reject,
}

/// Counts a try of these letters, with what came of it.
pub(crate) async fn keep(
    transaction: &Transaction<'_>,
    connector: &str,
    letters: &[Kept],
) -> Result<(), Error> {
    let ids: Vec<i64> = letters.iter().map(|kept| kept.id).collect();
    let reasons: Vec<&str> = letters.iter().map(|kept| kept.reject.reason.as_str()).collect();
    let states: Vec<Option<&str>> = letters.iter().map(|kept| kept.reject.sqlstate.as_deref()).collect();
    let messages: Vec<&str> = letters.iter().map(|kept| kept.reject.message.as_ref()).collect();
    let tables: Vec<Option<&str>> = letters.iter().map(|kept| kept.table.as_deref()).collect();
    let parameters: [Parameter<'_>; 6] = [
        (&connector, Type::TEXT),
        (&ids, Type::INT8_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&messages, Type::TEXT_ARRAY),
        (&tables, Type::TEXT_ARRAY),
    ];
    transaction.during(UPDATING, transaction.client().execute_typed(KEEP, &parameters)).await?;
    Ok(())
}

/// A value with its type: statements are sent unnamed, in one round trip.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

fn letter(row: &Row) -> Result<Letter, Error> {
    let topic: &str = column(row, 1)?;
    let kept_timestamp: Option<SystemTime> = column(row, 8)?;
    Ok(Letter {
        id: column(row, 0)?,
        partition: Partition::new(topic, column(row, 2)?),
        offset: column(row, 3)?,
        table: column(row, 4)?,
        reason: column(row, 5)?,
        sqlstate: column(row, 6)?,
        message: column(row, 7)?,
        record_timestamp: kept_timestamp.filter(|moment| is_shown(*moment)),
        kept_timestamp,
        first_seen: column(row, 9)?,
        tries: column(row, 10)?,
        last_tried: column(row, 11)?,
        payload_bytes: column(row, 12)?,
        kept_bytes: column(row, 13)?,
    })
}

/// Whether RFC 3339 has a word for it.
fn is_shown(moment: SystemTime) -> bool {
    const END_OF_9999: u64 = 253_402_300_800;
    moment.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.as_secs() < END_OF_9999)
}

fn contents(row: &Row) -> Result<Contents, Error> {
    Ok(Contents { key: column(row, 14)?, headers: column(row, 15)?, payload: column(row, 16)? })
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Error> {
    row.try_get(index).map_err(|fault| Error::during(READING, fault))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn standing(partition: i32, id: i64, offset: i64, batch: u64) -> Standing {
        let first_seen = SystemTime::UNIX_EPOCH + Duration::from_secs(batch);
        Standing { partition: Partition::new("topic", partition), offset, id, first_seen }
    }

    #[test]
    fn within_a_batch_the_offset_says_which_record_came_first_whatever_the_numbers_of_the_letters() {
        let (first, last) = (standing(0, 8, 10, 1), standing(0, 7, 11, 1));
        assert!(first.precedes(&last) && !last.precedes(&first));
        assert!(!standing(1, 8, 10, 1).precedes(&last), "partitions have no order between them");
    }

    #[test]
    fn a_record_that_was_read_again_counts_once_and_the_offsets_of_two_logs_say_nothing() {
        let (once, again) = (standing(0, 7, 10, 1), standing(0, 9, 10, 2));
        assert!(once.precedes(&again) && !again.precedes(&once));
        let of_a_new_topic = standing(0, 20, 3, 3);
        assert!(!once.precedes(&of_a_new_topic) && !of_a_new_topic.precedes(&once));
        assert!(!once.precedes(&once));
    }
}
