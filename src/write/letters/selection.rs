//! Which dead letters are meant, and what is done with many: counting, reading, locking, deleting.

use std::time::SystemTime;

use sink_postgres_vector::{Connection, Error, Transaction};
use tokio_postgres::types::Type;

use super::{COLUMNS, LOCKING, Letter, Parameter, READING, column, letter};

/// Which dead letters are meant. What is not given does not matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The connector whose letters they are.
    pub(crate) connector: String,
    /// These alone.
    pub(crate) ids: Option<Vec<i64>>,
    /// With one of these reasons.
    pub(crate) reasons: Option<Vec<String>>,
    /// Not with this one.
    pub(crate) except: Option<&'static str>,
    /// For this table.
    pub(crate) table: Option<String>,
    /// First seen at this moment, or after.
    pub(crate) since: Option<SystemTime>,
    /// First seen before this moment.
    pub(crate) until: Option<SystemTime>,
    /// From this topic.
    pub(crate) topic: Option<String>,
    /// From this partition.
    pub(crate) partition: Option<i32>,
    /// The lowest and the highest offset.
    pub(crate) offsets: Option<(i64, i64)>,
}

/// How many letters there are, and the largest id among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) count: i64,
    pub(crate) last: i64,
}

const SELECTED: &str = "\
connector = $1 and ($2::int8[] is null or id = any($2)) and ($3::text[] is null or reason = any($3))
and ($4::text is null or reason <> $4) and ($5::text is null or table_name = $5)
and ($6::timestamptz is null or first_seen >= $6) and ($7::timestamptz is null or first_seen < $7)
and ($8::text is null or topic = $8) and ($9::int4 is null or partition = $9)
and ($10::int8 is null or \"offset\" >= $10) and ($11::int8 is null or \"offset\" <= $11)
and id > $12 and id <= $13";

const COUNTING: &str = "count the dead letters";
const PURGING: &str = "delete from embedsink.dead_letters";

/// The letters that are meant, and lie after one id and up to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range<'s> {
    pub(crate) selection: &'s Selection,
    pub(crate) after: i64,
    pub(crate) up_to: i64,
}

impl<'s> Range<'s> {
    /// All that are meant.
    pub(crate) fn all(selection: &'s Selection) -> Self {
        Self { selection, after: i64::MIN, up_to: i64::MAX }
    }

    /// Counts them.
    pub(crate) async fn extent(self, connection: &Connection) -> Result<Extent, Error> {
        let sql =
            format!("select count(*), coalesce(max(id), 0) from embedsink.dead_letters where {SELECTED}");
        let bounds = self.bounds();
        let parameters = self.parameters(&bounds);
        let answer = connection.client().query_typed_one(&sql, &parameters);
        let row = connection.during(COUNTING, answer).await?;
        Ok(Extent { count: column(&row, 0)?, last: column(&row, 1)? })
    }

    /// The first of them, at most `limit`.
    pub(crate) async fn page(self, connection: &Connection, limit: i64) -> Result<Vec<Letter>, Error> {
        let sql = format!(
            "select {COLUMNS} from embedsink.dead_letters where {SELECTED} order by id limit {limit}"
        );
        let bounds = self.bounds();
        let parameters = self.parameters(&bounds);
        let answer = connection.client().query_typed(&sql, &parameters);
        connection.during(READING, answer).await?.iter().map(letter).collect()
    }

    /// Deletes the first of them, at most `limit`. Says how many were there and the last id that was looked at;
    /// `None` when there is none.
    pub(crate) async fn purge(
        self,
        transaction: &Transaction<'_>,
        limit: i64,
    ) -> Result<Option<Extent>, Error> {
        let sql = format!(
            "with doomed as (select id from embedsink.dead_letters where {SELECTED} order by id limit {limit}),
             gone as (delete from embedsink.dead_letters where id in (select id from doomed) returning id)
             select (select count(*) from gone), (select max(id) from doomed)"
        );
        let bounds = self.bounds();
        let parameters = self.parameters(&bounds);
        let answer = transaction.client().query_typed_one(&sql, &parameters);
        let row = transaction.during(PURGING, answer).await?;
        let (count, last) = (column(&row, 0)?, column::<Option<i64>>(&row, 1)?);
        Ok(last.map(|last| Extent { count, last }))
    }

    /// The numbers of the first of them, ascending: at most `limit`, and no more than about `bytes` of keys, headers
    /// and payloads, but at least one if there is one.
    pub(crate) async fn first(
        self,
        transaction: &Transaction<'_>,
        limit: i64,
        bytes: usize,
    ) -> Result<Vec<i64>, Error> {
        let sql = format!(
            "select id from (
               select id, sum(bytes) over (order by id) - bytes as before from (
                 select id, coalesce(octet_length(key), 0)::int8 + coalesce(octet_length(headers::text), 0)
                   + coalesce(octet_length(payload), 0) as bytes
                 from embedsink.dead_letters where {SELECTED} order by id limit {limit}) as first) as sized
             where before < {bytes} order by id"
        );
        let bounds = self.bounds();
        let parameters = self.parameters(&bounds);
        let answer = transaction.client().query_typed(&sql, &parameters);
        let rows = transaction.during(LOCKING, answer).await?;
        rows.iter().map(|row| column(row, 0)).collect()
    }

    fn bounds(self) -> [Option<i64>; 2] {
        let offsets = self.selection.offsets;
        [offsets.map(|(low, _)| low), offsets.map(|(_, high)| high)]
    }

    fn parameters<'a>(&'a self, [low, high]: &'a [Option<i64>; 2]) -> [Parameter<'a>; 13] {
        let selection = self.selection;
        [
            (&selection.connector, Type::TEXT),
            (&selection.ids, Type::INT8_ARRAY),
            (&selection.reasons, Type::TEXT_ARRAY),
            (&selection.except, Type::TEXT),
            (&selection.table, Type::TEXT),
            (&selection.since, Type::TIMESTAMPTZ),
            (&selection.until, Type::TIMESTAMPTZ),
            (&selection.topic, Type::TEXT),
            (&selection.partition, Type::INT4),
            (low, Type::INT8),
            (high, Type::INT8),
            (&self.after, Type::INT8),
            (&self.up_to, Type::INT8),
        ]
    }
}
