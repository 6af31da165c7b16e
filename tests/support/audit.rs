//! Triggers that note, in the connector's own transactions, which record each row came from and how
//! each position moved.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::postgres::run;
use super::record::Shape;

const TABLES: &str = "
create schema audit;
create table audit.applied (
  seq bigint generated always as identity, xid xid8 not null default pg_current_xact_id(),
  target text, id text, partition int, record_offset bigint);
create table audit.moves (
  seq bigint generated always as identity, xid xid8 not null default pg_current_xact_id(),
  partition int, epoch bigint, before bigint, after bigint);
create function audit.row() returns trigger language plpgsql as $$ begin
  insert into audit.applied (target, id, partition, record_offset)
  values (tg_table_name, new.id, (new.metadata->>'partition')::int, (new.metadata->>'offset')::bigint);
  return null;
end $$;
create function audit.letter() returns trigger language plpgsql as $$ begin
  insert into audit.applied (target, partition, record_offset)
  values ('dead_letters', new.partition, new.\"offset\");
  return null;
end $$;
create function audit.move() returns trigger language plpgsql as $$ begin
  insert into audit.moves (partition, epoch, before, after)
  values (new.partition, new.epoch, case when tg_op = 'UPDATE' then old.next_offset end, new.next_offset);
  return null;
end $$;
create trigger audit after insert or update on embedsink.dead_letters for each row execute function audit.letter();
create trigger audit after insert or update on embedsink.offsets for each row execute function audit.move();
";

/// Installs the triggers in a database that was migrated and not yet written to.
pub(crate) async fn install(client: &Client, shape: &Shape) {
    run(client, TABLES).await;
    for (table, _) in shape.tables {
        let sql = format!(
            "create trigger audit after insert or update on {table} for each row execute function audit.row()"
        );
        run(client, &sql).await;
    }
}

/// Proves that nothing was applied twice or out of order, and that positions moved as they must:
///
/// * no (partition, offset) became a row or a dead letter twice;
/// * for one key, no record was applied after a later one;
/// * every row and dead letter was written in a transaction that moved its partition over its offset;
/// * each partition's moves form one chain without gap or overlap, and its epoch never falls, so that
///   who had lost a partition never wrote it again.
pub(crate) async fn assert_exactly_once(client: &Client, log_ends: &BTreeMap<i32, i64>) {
    let none = async |what: &str, sql: &str| {
        let rows = client.query(sql, &[]).await.unwrap();
        let shown: Vec<String> = rows.iter().take(5).map(|row| row.get(0)).collect();
        assert!(rows.is_empty(), "{what}, {} times, such as {shown:?}", rows.len());
    };
    none(
        "a record was applied twice",
        "select format('%s/%s', partition, record_offset) from audit.applied where partition is not null
         group by partition, record_offset having count(*) > 1",
    )
    .await;
    none(
        "a record was applied after a later one of its key",
        "select id from (
           select id, record_offset, lag(record_offset) over (partition by target, id order by seq) as earlier
           from audit.applied where id is not null) as a where earlier >= record_offset",
    )
    .await;
    none(
        "a record was applied without its position",
        "select format('%s/%s', partition, record_offset) from audit.applied as a
         where partition is not null and not exists (
           select from audit.moves as m where m.xid = a.xid and m.partition = a.partition
           and m.before <= a.record_offset and a.record_offset < m.after)",
    )
    .await;
    assert_chains(client, log_ends).await;
}

async fn assert_chains(client: &Client, log_ends: &BTreeMap<i32, i64>) {
    let sql = "select partition, epoch, before, after from audit.moves order by seq";
    let mut at: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let (partition, epoch, after): (i32, i64, i64) = (row.get(0), row.get(1), row.get(3));
        let before: Option<i64> = row.get(2);
        let (last_epoch, last) = at.get(&partition).copied().unwrap_or((0, 0));
        assert_eq!(
            before.unwrap_or(0),
            last,
            "partition {partition}: a move goes on from where the last ended"
        );
        let is_take = epoch == last_epoch + 1 && after == last;
        let is_write = epoch == last_epoch && after > last;
        assert!(
            is_take || is_write,
            "partition {partition}: {last} (epoch {last_epoch}) to {after} (epoch {epoch})"
        );
        at.insert(partition, (epoch, after));
    }
    let ends: BTreeMap<i32, i64> = at.iter().map(|(partition, (_, end))| (*partition, *end)).collect();
    assert_eq!(ends, *log_ends, "every partition is written to its end");
}
