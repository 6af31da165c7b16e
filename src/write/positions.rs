//! Positions as people and other instances look at them, and those of imports set back and forgotten. Their moving is the
//! ledger's.

use std::time::SystemTime;

use sink_postgres_vector::{Connection, Error};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::source::Partition;

/// Where a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) connector: String,
    pub(crate) partition: Partition,
    pub(crate) next_offset: i64,
    pub(crate) epoch: i64,
    /// The timestamp of the record before `next_offset`, in milliseconds, as it was written.
    pub(crate) last_timestamp: Option<i64>,
    pub(crate) updated: SystemTime,
}

/// A value with its type: statements are sent unnamed, in one round trip.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

const LISTING: &str = "read embedsink.offsets";

const LIST: &str = "\
select connector, topic, partition, next_offset, epoch,
  case when last_offset = next_offset - 1 then last_timestamp end, updated_at
from embedsink.offsets where $1 is null or connector = $1
order by connector, topic, partition";

const SETTING_BACK: &str = "set a position back in embedsink.offsets";

const SET_BACK: &str = "\
update embedsink.offsets set next_offset = $3, last_offset = null, last_timestamp = null, updated_at = now()
where connector = $1 and topic = $2";

const FORGETTING: &str = "delete a position from embedsink.offsets";

const FORGET: &str = "delete from embedsink.offsets where connector = $1 and topic = $2";

const TELLING: &str = "tell in embedsink.offsets where partitions end";

/// What is being moved at this moment is left out: nobody is to wait for a word.
const TELL: &str = "\
update embedsink.offsets as o set end_offset = m.end_offset, told_at = now()
from (select w.topic, w.partition, w.end_offset
      from embedsink.offsets as known
      join unnest($2::text[], $3::int4[], $4::int8[]) as w (topic, partition, end_offset) using (topic, partition)
      where known.connector = $1
      for update of known skip locked) as m
where o.connector = $1 and o.topic = m.topic and o.partition = m.partition";

const ASKING: &str = "look in embedsink.offsets for what other instances have to do";

/// A word that is older than a minute is that of an instance that is gone: by then somebody else has its partitions.
const ASK: &str = "\
select least(coalesce(sum(greatest(o.end_offset - o.next_offset, 0)), 0), 9223372036854775807)::int8
from embedsink.offsets as o
where o.connector = $1 and greatest(o.updated_at, o.told_at) > now() - interval '1 minute'
  and not exists (select from unnest($2::text[], $3::int4[]) as h (topic, partition)
                  where h.topic = o.topic and h.partition = o.partition)";

/// Tells other instances where partitions end that this one holds; `None` where there is no backlog.
pub(crate) async fn tell(
    connection: &Connection,
    connector: &str,
    ends: &[(Partition, Option<i64>)],
) -> Result<(), Error> {
    let (topics, numbers) = names(ends.iter().map(|(partition, _)| partition));
    let ends: Vec<Option<i64>> = ends.iter().map(|(_, end)| *end).collect();
    let parameters: [Parameter<'_>; 4] = [
        (&connector, Type::TEXT),
        (&topics, Type::TEXT_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&ends, Type::INT8_ARRAY),
    ];
    let told = connection.client().execute_typed(TELL, &parameters);
    connection.during(TELLING, told).await.map(drop)
}

/// How many records are still to be written from partitions other than those that are `held` here.
pub(crate) async fn behind_elsewhere(
    connection: &Connection,
    connector: &str,
    held: &[(Partition, Option<i64>)],
) -> Result<u64, Error> {
    let (topics, numbers) = names(held.iter().map(|(partition, _)| partition));
    let parameters: [Parameter<'_>; 3] =
        [(&connector, Type::TEXT), (&topics, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)];
    let asked = async { connection.client().query_typed_one(ASK, &parameters).await?.try_get::<_, i64>(0) };
    let behind = connection.during(ASKING, asked).await?;
    Ok(u64::try_from(behind).unwrap_or(0))
}

fn names<'p>(partitions: impl Iterator<Item = &'p Partition>) -> (Vec<&'p str>, Vec<i32>) {
    partitions.map(|partition| (partition.topic(), partition.number())).unzip()
}

/// Lets a topic of one partition be written from `offset` on again.
pub(crate) async fn set_back(
    connection: &Connection,
    connector: &str,
    topic: &str,
    offset: i64,
) -> Result<(), Error> {
    let parameters: [Parameter<'_>; 3] =
        [(&connector, Type::TEXT), (&topic, Type::TEXT), (&offset, Type::INT8)];
    let set_back = connection.client().execute_typed(SET_BACK, &parameters);
    connection.during(SETTING_BACK, set_back).await.map(drop)
}

/// Deletes the position of a topic that will never be read again.
pub(crate) async fn forget(connection: &Connection, connector: &str, topic: &str) -> Result<(), Error> {
    let parameters: [Parameter<'_>; 2] = [(&connector, Type::TEXT), (&topic, Type::TEXT)];
    let forgotten = connection.client().execute_typed(FORGET, &parameters);
    connection.during(FORGETTING, forgotten).await.map(drop)
}

/// The positions of a connector, or of all.
pub(crate) async fn list(connection: &Connection, connector: Option<&str>) -> Result<Vec<Stored>, Error> {
    let parameters: [Parameter<'_>; 1] = [(&connector, Type::TEXT)];
    let listed = async {
        let rows = connection.client().query_typed(LIST, &parameters).await?;
        rows.iter().map(stored).collect()
    };
    connection.during(LISTING, listed).await
}

fn stored(row: &Row) -> Result<Stored, tokio_postgres::Error> {
    let topic: &str = row.try_get(1)?;
    Ok(Stored {
        connector: row.try_get(0)?,
        partition: Partition::new(topic, row.try_get(2)?),
        next_offset: row.try_get(3)?,
        epoch: row.try_get(4)?,
        last_timestamp: row.try_get(5)?,
        updated: row.try_get(6)?,
    })
}
