//! Positions as people look at them, and those of imports set back and forgotten. Their moving is the ledger's.

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
