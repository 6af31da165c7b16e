//! The promise as far as [`PostgresWriter`] holds it, against a real Postgres.

mod again;
mod doubt;
mod pieces;
mod refused;
mod tenure;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use embedsink::batch::{Batch, Place};
use embedsink::decode::{Change, decode};
use embedsink::error::{Disposition, WriteError};
use embedsink::reject::RejectReason;
use embedsink::route::{Router, TableLimits};
use embedsink::source::{FetchedBuilder, Headers, Partition, SourceRecord, Tenure};
use embedsink::write::{Effect, First, PostgresWriter, Receipt, Taken, Writer, Written};
use sink_postgres_vector::{
    ConnectOptions, Connection, Ident, Migration, Migrator, TableSpec, Tls, TlsMode, VectorTable,
};
use tokio_postgres::Client;

use crate::support::postgres::{Database, one, run};
use crate::support::wait::until;

static MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "bookkeeping", sql: include_str!("../migrations/0001_bookkeeping.sql") },
    Migration { number: 2, name: "backlog", sql: include_str!("../migrations/0002_backlog.sql") },
];

const DIMENSIONS: usize = 3;

/// Keeps account of what happens to each row, dead letter and position, in the transaction that does it.
const AUDIT: &str = "
create table audit (relation text, key text, operation text, transaction xid8);
create function audit_row() returns trigger language plpgsql as $$
begin
  insert into audit values (tg_table_name, coalesce(new.id, old.id), tg_op, pg_current_xact_id());
  return null;
end $$;
create function audit_offset() returns trigger language plpgsql as $$
begin
  insert into audit values ('offsets', new.topic || '/' || new.partition, tg_op, pg_current_xact_id());
  return null;
end $$;
create function audit_letter() returns trigger language plpgsql as $$
begin
  insert into audit values ('dead_letters', new.topic || '/' || new.\"offset\", tg_op, pg_current_xact_id());
  return null;
end $$;
create trigger audit after insert or update or delete on first for each row execute function audit_row();
create trigger audit after insert or update or delete on second for each row execute function audit_row();
create trigger audit after update of next_offset on embedsink.offsets
  for each row when (old.next_offset <> new.next_offset) execute function audit_offset();
create trigger audit after insert on embedsink.dead_letters for each row execute function audit_letter();
";

/// A database with two tables, `first` and `second`, and somebody who looks at it from outside.
struct Stage {
    tables: Vec<VectorTable>,
    router: Router,
    outside: Client,
    database: Database,
}

impl Stage {
    async fn set() -> Self {
        let database = Database::create().await;
        let specs = ["first", "second"]
            .map(|name| TableSpec { name: Ident::new(name).unwrap(), dimensions: DIMENSIONS as u16 });
        let mut connection = Connection::open(&options(&database, database.port())).await.unwrap();
        Migrator::new(MIGRATIONS).apply(&mut connection, &specs).await.unwrap();
        let mut tables = Vec::new();
        for spec in &specs {
            tables.push(VectorTable::check(connection.client(), spec).await.unwrap());
        }
        let limits = specs.iter().map(|spec| TableLimits {
            name: spec.name.as_str().to_owned(),
            dimensions: DIMENSIONS,
            max_id_chars: Some(255),
            max_source_chars: Some(255),
            skip_stale: false,
        });
        let router = Router::new(limits.collect());
        let outside = database.connect().await;
        run(&outside, AUDIT).await;
        Self { tables, router, outside, database }
    }

    fn writer(&self) -> PostgresWriter {
        self.writer_of("connector", self.database.port())
    }

    fn writer_of(&self, connector: &str, port: u16) -> PostgresWriter {
        self.writer_with(connector, options(&self.database, port))
    }

    fn writer_with(&self, connector: &str, options: ConnectOptions) -> PostgresWriter {
        PostgresWriter::new(connector.to_owned(), options, self.tables.clone())
    }

    /// A batch with these records of one partition: offset, key, and payload or none.
    fn batch(&self, id: u64, holding: &Holding, records: &[(i64, &str, Option<String>)]) -> Batch {
        let mut batch = Batch::new(id, &self.router);
        self.fill(&mut batch, holding, records);
        batch
    }

    /// Does what a lane does with each record.
    fn fill(&self, batch: &mut Batch, holding: &Holding, records: &[(i64, &str, Option<String>)]) {
        let mut vector = Vec::new();
        let mut run = FetchedBuilder::new(holding.partition.clone(), holding.taken.tenure);
        for (offset, key, payload) in records {
            run.push(SourceRecord {
                offset: *offset,
                timestamp: Some(1_704_067_200_000),
                key: Some(key.as_bytes()),
                payload: payload.as_deref().map(str::as_bytes),
                headers: Headers::default(),
                omitted: 0,
            });
        }
        let run = Arc::new(run.finish());
        batch.keep(&run);
        for record in run.records() {
            let place = Place {
                partition: &holding.partition,
                tenure: holding.taken.tenure,
                stored: holding.taken.next_offset,
            };
            let change = match decode(&record, &mut vector) {
                Ok(Change::Upsert(embedding)) => match self.router.route(&embedding, vector.len()) {
                    Ok(table) => {
                        batch.upsert(&place, &record, table, &embedding, &vector);
                        Ok(())
                    }
                    Err(reject) => Err(reject),
                },
                Ok(Change::Delete { id }) => {
                    batch.delete(&place, &record, &id);
                    Ok(())
                }
                Err(reject) => Err(reject),
            };
            if let Err(reject) = change {
                batch.reject(&place, &record, None, reject);
            }
        }
    }

    async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        one(&self.outside, sql).await
    }

    /// Key and text of every row, over both tables.
    async fn rows(&self) -> BTreeMap<String, Option<String>> {
        let sql = "select 'first/' || id, text from first union all select 'second/' || id, text from second";
        let rows = self.outside.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// The stored position of a partition.
    async fn position(&self, partition: &Partition) -> i64 {
        let sql = "select next_offset from embedsink.offsets where topic = $1 and partition = $2";
        let row = self.outside.query_one(sql, &[&partition.topic(), &partition.number()]).await.unwrap();
        row.get(0)
    }

    /// What happened to anything, how often: `relation key operation` to count.
    async fn happened(&self) -> BTreeMap<String, i64> {
        let sql = "select relation || ' ' || key || ' ' || operation, count(*) from audit group by 1";
        let rows = self.outside.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until `count` sessions of writers wait for a lock, and returns their process ids.
    async fn waiting(&self, count: usize) -> Vec<i32> {
        let sql = "select pid from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock' order by query_start";
        until("sessions that wait for a lock", async || {
            let rows = self.outside.query(sql, &[]).await.unwrap();
            (rows.len() >= count).then(|| rows.iter().map(|row| row.get(0)).collect())
        })
        .await
    }
}

fn options(database: &Database, port: u16) -> ConnectOptions {
    ConnectOptions {
        host: "127.0.0.1".to_owned(),
        port,
        database: database.name().to_owned(),
        user: "postgres".to_owned(),
        password: None,
        tls: Tls { mode: TlsMode::Disable, ca_file: None, client: None },
        application_name: "embedsink tests: a writer".to_owned(),
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(300),
        prepared: true,
    }
}

/// A partition as somebody has taken it.
struct Holding {
    partition: Partition,
    taken: Taken,
}

impl Holding {
    async fn take(writer: &mut PostgresWriter, number: i32) -> Self {
        let partition = Partition::new("topic", number);
        let taken = writer.take(&partition, First::at(0)).await.unwrap();
        Self { partition, taken }
    }

    fn lost(&self) -> (Partition, Tenure) {
        (self.partition.clone(), self.taken.tenure)
    }

    /// The same holding, further on.
    fn at(&self, next_offset: i64) -> Self {
        Self { partition: self.partition.clone(), taken: Taken { next_offset, ..self.taken } }
    }
}

fn payload(text: &str) -> Option<String> {
    Some(format!(r#"{{"text": "{text}", "embedding": [1, 2, 3]}}"#))
}

fn payload_for(table: &str, text: &str) -> Option<String> {
    Some(format!(r#"{{"text": "{text}", "table_name": "{table}", "embedding": [1, 2, 3]}}"#))
}

#[track_caller]
fn receipt(written: Result<Written, WriteError>) -> Receipt {
    match written {
        Ok(Written::Durable(receipt)) => receipt,
        other => panic!("not durable: {other:?}"),
    }
}

/// What was done, where that is durable.
#[track_caller]
fn durable(written: Result<Written, WriteError>) -> Effect {
    receipt(written).effect()
}

#[track_caller]
fn fenced(written: Result<Written, WriteError>) -> Vec<(Partition, Tenure)> {
    match written {
        Ok(Written::Fenced(lost)) => lost,
        other => panic!("not fenced: {other:?}"),
    }
}

#[track_caller]
fn disposition(written: Result<Written, WriteError>) -> Disposition {
    written.expect_err("a failure").disposition()
}

/// Rows as [`Stage::rows`] gives them.
fn rows(rows: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
    rows.iter().map(|(key, text)| ((*key).to_owned(), Some((*text).to_owned()))).collect()
}

#[tokio::test]
async fn rows_deletions_dead_letters_and_the_position_are_one_transaction() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let first =
        stage.batch(1, &holding, &[(0, "old", payload("old")), (1, "older", payload_for("second", "older"))]);
    assert_eq!(durable(writer.write(&first).await), Effect { upserted: 2, ..Effect::default() });

    let batch = stage.batch(
        2,
        &holding.at(2),
        &[
            (2, "a", payload("one")),
            (3, "b", payload_for("second", "two")),
            (4, "bad", Some("{".to_owned())),
            (7, "old", None),
            (8, "older", None),
            (9, "a", payload("three")),
            (10, "worse", None),
        ],
    );
    let receipt = receipt(writer.write(&batch).await);
    let effect = Effect { upserted: 2, unchanged: 0, deleted: 2, stale: 0, dead_lettered: 1 };
    assert_eq!(receipt.effect(), effect);
    assert_eq!(batch.settle(&receipt).next_offsets(), [(holding.partition.clone(), 11)]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "three"), ("second/b", "two")]));
    assert_eq!(stage.position(&holding.partition).await, 11);
    let transactions: i64 = stage.one("select count(distinct transaction) from audit").await;
    assert_eq!(transactions, 2, "one for each batch");
    let letter = "select connector || topic || partition || \"offset\" || convert_from(key, 'UTF8') \
                  || convert_from(payload, 'UTF8') || reason || extract(epoch from record_timestamp)::int8 \
                  from embedsink.dead_letters";
    assert_eq!(stage.one::<String>(letter).await, "connectortopic04bad{bad_json1704067200");
}

#[tokio::test]
async fn when_the_bookkeeping_fails_nothing_is_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let records = [(0, "good", payload("fine")), (1, "letter", Some("c4nary".to_owned()))];
    let batch = stage.batch(1, &holding, &records);
    let broken = "alter table embedsink.dead_letters add constraint no check (\"offset\" <> 1)";
    run(&stage.outside, broken).await;
    let error = writer.write(&batch).await.expect_err("a check refuses it");
    assert_eq!(error.disposition(), Disposition::Reject);
    let said = format!("{error} {error:?}");
    assert!(!said.contains("c4nary") && said.contains("23514"), "{said}");
    assert_eq!(stage.happened().await, BTreeMap::new());
    assert_eq!(stage.position(&holding.partition).await, 0);

    run(&stage.outside, "alter table embedsink.dead_letters drop constraint no").await;
    durable(writer.write(&batch).await);
    assert_eq!(stage.position(&holding.partition).await, 2);
}
