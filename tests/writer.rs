//! The promise as far as [`PostgresWriter`] holds it, against a real Postgres.

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
use crate::support::proxy::{Loss, Proxy};
use crate::support::random::Random;
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
        PostgresWriter::new(connector.to_owned(), options(&self.database, port), self.tables.clone())
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

/// Writes a batch as a lane does, making dead letters of what is refused. Returns the offsets of these.
async fn write_sparing(writer: &mut PostgresWriter, mut batch: Batch) -> Vec<i64> {
    loop {
        match writer.write(&batch).await.unwrap() {
            Written::Durable(_) => break,
            Written::Refused(refusals) => {
                assert!(!refusals.is_empty(), "every attempt finds somebody to blame");
                batch.refuse(refusals);
            }
            Written::Fenced(lost) => panic!("fenced: {lost:?}"),
        }
    }
    let mut offsets: Vec<i64> = batch.rejected().map(|rejected| rejected.offset).collect();
    offsets.sort_unstable();
    offsets
}

#[tokio::test]
async fn a_refused_record_is_one_dead_letter_and_all_others_of_the_batch_are_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table second add constraint no check (text <> 'c4nary')").await;
    let records = [
        (0, "good", payload("fine")),
        (1, "c4nary", payload_for("second", "c4nary")),
        (2, "letter", Some("c4nary".to_owned())),
    ];
    let batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
    assert_eq!(refusal.reject.sqlstate.as_deref(), Some("23514"));
    assert!(!format!("{refusal:?}").contains("c4nary"), "{refusal:?}");
    assert_eq!(stage.happened().await, BTreeMap::new(), "an attempt that finds culprits writes nothing");
    assert_eq!(write_sparing(&mut writer, batch).await, [1, 2]);
    assert_eq!(stage.rows().await, rows(&[("first/good", "fine")]));
    assert_eq!(stage.position(&holding.partition).await, 3);
    let whole = "select convert_from(payload, 'utf8') || reason || sqlstate || table_name || tries \
                 from embedsink.dead_letters where \"offset\" = 1";
    let wanted = payload_for("second", "c4nary").unwrap() + "refused23514second1";
    assert_eq!(stage.one::<String>(whole).await, wanted);
}

#[tokio::test]
async fn what_only_the_commit_would_refuse_is_found_too() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint late unique (text) deferrable initially deferred")
        .await;
    let records = [(0, "b", payload("same")), (1, "a", payload("same")), (2, "c", payload("other"))];
    let batch = stage.batch(1, &holding, &records);
    // The later one of the log gives way, whatever the keys are.
    assert_eq!(write_sparing(&mut writer, batch).await, [1]);
    assert_eq!(stage.rows().await, rows(&[("first/b", "same"), ("first/c", "other")]));
}

#[tokio::test]
async fn rows_are_copied_into_an_empty_table_until_a_key_comes_twice() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let first =
        [(0, "a", payload("one")), (1, "b", payload("two")), (2, "c", payload_for("second", "three"))];
    assert_eq!(durable(writer.write(&stage.batch(1, &holding, &first)).await).upserted, 3);
    // One key that is there, one that is new, one that is deleted.
    let second = [(3, "b", payload("newer")), (4, "d", payload("new")), (5, "a", None)];
    let effect = durable(writer.write(&stage.batch(2, &holding.at(3), &second)).await);
    assert_eq!(effect, Effect { upserted: 2, deleted: 1, ..Effect::default() });
    let third = [(6, "b", payload("newer")), (7, "d", payload("newest"))];
    let effect = durable(writer.write(&stage.batch(3, &holding.at(6), &third)).await);
    assert_eq!(effect, Effect { upserted: 1, unchanged: 1, ..Effect::default() });
    assert_eq!(
        stage.rows().await,
        rows(&[("first/b", "newer"), ("first/d", "newest"), ("second/c", "three")])
    );
}

#[tokio::test]
async fn a_key_that_is_taken_from_an_empty_table_stops_the_copying_and_nothing_moves() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("one"))])).await);
    run(&stage.outside, "alter table first drop constraint first_pkey").await;
    let batch = stage.batch(2, &holding.at(1), &[(1, "b", payload("two"))]);
    let error = writer.write(&batch).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Stop, "{error}");
    assert_eq!(stage.rows().await, rows(&[("first/a", "one")]));
    assert_eq!(stage.position(&holding.partition).await, 1);
}

#[tokio::test]
async fn all_refused_versions_of_one_key_are_found_in_one_attempt() {
    const VERSIONS: i64 = 300;
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint no check (text <> 'refused')").await;
    let mut records = vec![(0, "hot", payload("good"))];
    records.extend((1..=VERSIONS).map(|offset| (offset, "hot", payload("refused"))));
    records.push((VERSIONS + 1, "cold", payload("good too")));
    let mut batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    assert_eq!(refusals.len() as i64, VERSIONS);
    batch.refuse(refusals);
    durable(writer.write(&batch).await);
    let refused: Vec<i64> = batch.dead_letters().map(|letter| letter.record.offset).collect();
    assert_eq!(refused, (1..=VERSIONS).rev().collect::<Vec<_>>());
    assert_eq!(stage.rows().await, rows(&[("first/hot", "good"), ("first/cold", "good too")]));
}

#[tokio::test]
async fn where_nearly_all_is_refused_no_more_is_looked_for_than_it_takes_to_know() {
    let stage = Stage::set().await;
    let mut writer = stage.writer().with_max_refused(500);
    let holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, "alter table first add constraint no check (text <> 'refused')").await;
    let names: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    let records: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (at as i64, name.as_str(), payload("refused"))).collect();
    let mut batch = stage.batch(1, &holding, &records);
    let Written::Refused(refusals) = writer.write(&batch).await.unwrap() else { panic!("not refused") };
    assert_eq!(refusals.len(), 101, "one more than half of them");
    batch.refuse(refusals);
    assert_eq!(write_sparing(&mut writer, batch).await.len(), 200, "the rest is found if it is asked for");
    assert_eq!(stage.rows().await, rows(&[]));
}

#[tokio::test]
async fn a_deletion_that_is_refused_by_one_table_is_done_in_none() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let both = [(0, "a", payload("one")), (1, "a", payload_for("second", "two")), (2, "b", payload("three"))];
    assert!(write_sparing(&mut writer, stage.batch(1, &holding, &both)).await.is_empty());
    run(
        &stage.outside,
        "create table child (id varchar(255) references second); insert into child values ('a')",
    )
    .await;
    let deletions = [(3, "a", None), (4, "b", None)];
    let batch = stage.batch(2, &holding.at(3), &deletions);
    assert_eq!(write_sparing(&mut writer, batch).await, [3]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "one"), ("second/a", "two")]));
    assert_eq!(stage.position(&holding.partition).await, 5);
}

#[tokio::test]
async fn keys_that_a_trigger_makes_equal_do_not_stop_the_batch_and_the_later_one_wins() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    run(
        &stage.outside,
        "create function fold() returns trigger language plpgsql as $$ begin new.id = lower(new.id); return new; end $$;
         create trigger fold before insert on first for each row execute function fold()",
    )
    .await;
    let records = [(0, "a", payload("first")), (1, "B", payload("alone")), (2, "A", payload("last"))];
    assert!(write_sparing(&mut writer, stage.batch(1, &holding, &records)).await.is_empty());
    assert_eq!(stage.rows().await, rows(&[("first/a", "last"), ("first/b", "alone")]));
}

#[tokio::test]
async fn for_any_poisoned_subset_the_dead_letters_are_exactly_that_and_all_else_is_applied_in_order() {
    const POISON: &str = "
        create function poison() returns trigger language plpgsql as $$ begin
          if new.text like 'poison%' then
            raise exception using errcode = (array['22023', '23514', 'P0001', '22003', '23505'])[1 + length(new.text) % 5];
          end if;
          return new;
        end $$;
        create trigger poison before insert or update on first for each row execute function poison();
        create trigger poison before insert or update on second for each row execute function poison()";
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let mut holding = Holding::take(&mut writer, 0).await;
    run(&stage.outside, POISON).await;
    let mut random = Random::new("poisoned subsets");
    let names: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    let mut table: BTreeMap<String, Option<String>> = BTreeMap::new();
    for round in 0..60 {
        let (count, share, keys) =
            (1 + random.below(120), random.pick(&[0, 1, 5, 30, 90, 100]), 1 + random.below(200));
        let from = holding.taken.next_offset;
        let mut records = Vec::new();
        for number in 0..count {
            let key = names[random.below(keys)].as_str();
            let to = random.pick(&["first", "second"]);
            let text = match random.chance(share) {
                true => format!("poison {}", "x".repeat(random.below(5))),
                false => format!("text {round} {number}"),
            };
            let payload = (!random.chance(8)).then(|| payload_for(to, &text).unwrap());
            records.push((from + number as i64, key, payload));
        }
        // What is refused: a poisoned record, unless a later good one of its key and table, or a deletion, has
        // overtaken it within the batch.
        let mut refused = Vec::new();
        let mut settled: std::collections::BTreeSet<(String, &str)> = Default::default();
        for (offset, key, payload) in records.iter().rev() {
            let tables: Vec<&str> = match payload {
                None => vec!["first", "second"],
                Some(text) => vec![if text.contains("\"second\"") { "second" } else { "first" }],
            };
            let is_poison = payload.as_ref().is_some_and(|text| text.contains("poison"));
            for table_name in tables {
                let place = (table_name.to_owned(), *key);
                if settled.contains(&place) {
                    continue;
                }
                if is_poison {
                    refused.push(*offset);
                } else {
                    settled.insert(place);
                }
            }
        }
        refused.sort_unstable();
        for (_, key, payload) in &records {
            match payload {
                None => {
                    ["first", "second"].iter().for_each(|name| drop(table.remove(&format!("{name}/{key}"))));
                }
                Some(text) if text.contains("poison") => {}
                Some(text) => {
                    let json: serde_json::Value = serde_json::from_str(text).unwrap();
                    let place = format!("{}/{key}", json["table_name"].as_str().unwrap());
                    table.insert(place, json["text"].as_str().map(str::to_owned));
                }
            }
        }
        let batch = stage.batch(round, &holding, &records);
        assert_eq!(write_sparing(&mut writer, batch).await, refused, "round {round}");
        assert_eq!(stage.rows().await, table, "round {round}");
        holding = holding.at(from + count as i64);
        assert_eq!(stage.position(&holding.partition).await, holding.taken.next_offset);
    }
    let letters: i64 =
        stage.one("select count(*) from embedsink.dead_letters where reason = 'refused'").await;
    assert!(letters > 500, "{letters} dead letters");
}

#[tokio::test]
async fn a_writer_whose_partition_was_taken_by_another_writes_nothing() {
    let stage = Stage::set().await;
    let (mut zombie, mut heir) = (stage.writer(), stage.writer());
    let old = Holding::take(&mut zombie, 0).await;
    durable(zombie.write(&stage.batch(1, &old, &[(0, "a", payload("first"))])).await);

    let new = Holding::take(&mut heir, 0).await;
    assert!(new.taken.tenure > old.taken.tenure);
    assert_eq!(new.taken.next_offset, 1);
    let late = stage.batch(
        2,
        &old.at(1),
        &[(1, "a", payload("zombie")), (2, "b", None), (3, "c", Some(String::new()))],
    );
    let before = stage.happened().await;
    for _ in 0..3 {
        assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
    }
    assert_eq!(stage.happened().await, before);
    assert_eq!(stage.position(&new.partition).await, 1);

    durable(heir.write(&stage.batch(3, &new, &[(1, "a", payload("heir"))])).await);
    assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "heir")]));
    // The stored position is by now where the zombie's batch would have put it.
    durable(heir.write(&stage.batch(4, &new.at(2), &[(2, "x", None), (3, "x", None)])).await);
    assert_eq!(fenced(zombie.write(&late).await), [old.lost()]);
}

#[tokio::test]
async fn a_take_waits_for_the_write_under_way_and_goes_on_behind_it() {
    let stage = Stage::set().await;
    let (mut old, mut new) = (stage.writer(), stage.writer());
    let holding = Holding::take(&mut old, 0).await;
    durable(old.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second")), (2, "b", payload("third"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let writing = tokio::spawn(async move { old.write(&batch).await });
    stage.waiting(1).await;
    let partition = holding.partition.clone();
    let taking = tokio::spawn(async move { new.take(&partition, First::at(0)).await });
    stage.waiting(2).await;
    run(&other, "commit").await;

    durable(writing.await.unwrap());
    let taken = taking.await.unwrap().unwrap();
    assert_eq!((taken.next_offset, taken.stored), (3, true));
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "third")]));
}

#[tokio::test]
async fn a_take_raises_the_epoch_and_keeps_the_position() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let partition = Partition::new("topic", 0);
    let first = writer.take(&partition, First::at(40)).await.unwrap();
    assert_eq!((first.next_offset, first.stored), (40, false));
    let second = writer.take(&partition, First::at(90)).await.unwrap();
    assert_eq!((second.next_offset, second.stored), (40, true));
    assert!(second.tenure > first.tenure);
    // Another partition, another topic, another connector: each has its own.
    for (mut writer, partition) in [
        (stage.writer(), Partition::new("topic", 1)),
        (stage.writer(), Partition::new("topic 2", 0)),
        (stage.writer_of("connector 2", stage.database.port()), partition),
    ] {
        let taken = writer.take(&partition, First::at(7)).await.unwrap();
        assert_eq!((taken.next_offset, taken.stored), (7, false));
    }
}

#[tokio::test]
async fn takes_at_the_same_time_get_tenures_of_their_own() {
    let stage = Stage::set().await;
    let mut takes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut writer = stage.writer();
        takes.spawn(async move { writer.take(&Partition::new("topic", 0), First::at(5)).await.unwrap() });
    }
    let taken = takes.join_all().await;
    let mut tenures: Vec<Tenure> = taken.iter().map(|taken| taken.tenure).collect();
    tenures.sort();
    tenures.dedup();
    assert_eq!(tenures.len(), 8);
    assert!(taken.iter().all(|taken| taken.next_offset == 5));
    assert_eq!(taken.iter().filter(|taken| !taken.stored).count(), 1);
}

/// What one batch of [`records_of_all_kinds`] does, when it is applied once.
const APPLIED_ONCE: &[(&str, i64)] = &[
    ("dead_letters topic/4 INSERT", 1),
    ("first a INSERT", 1),
    ("first gone DELETE", 1),
    ("first gone INSERT", 1),
    ("offsets topic/0 UPDATE", 2),
    ("second b INSERT", 1),
];

fn records_of_all_kinds() -> Vec<(i64, &'static str, Option<String>)> {
    vec![
        (1, "a", payload("one")),
        (2, "b", payload_for("second", "two")),
        (3, "gone", None),
        (4, "bad", Some("no JSON".to_owned())),
    ]
}

fn counts(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_in_the_ledger() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    let mut writer = stage.writer_of("connector", proxy.port());
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "gone", payload("x"))])).await);

    let batch = stage.batch(2, &holding.at(1), &records_of_all_kinds());
    proxy.lose_at("select; commit", Loss::Answer);
    assert_eq!(disposition(writer.write(&batch).await), Disposition::Retry);
    assert!(proxy.has_lost());
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE), "the server had committed");

    let receipt = receipt(writer.write(&batch).await);
    assert_eq!(
        receipt.effect(),
        Effect { upserted: 2, unchanged: 0, deleted: 1, stale: 0, dead_lettered: 1 }
    );
    assert_eq!(batch.settle(&receipt).next_offsets(), [(holding.partition.clone(), 5)]);
    // However often it is given again.
    durable(writer.write(&batch).await);
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE));
    // A writer that was not there finds it, too.
    durable(stage.writer().write(&batch).await);
    assert_eq!(stage.happened().await, counts(APPLIED_ONCE));
}

#[tokio::test]
async fn a_connection_lost_anywhere_in_a_write_leaves_all_of_the_batch_or_nothing() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    let mut writer = stage.writer_of("connector", proxy.port());
    let mut holding = Holding::take(&mut writer, 0).await;
    let places = [
        "begin isolation",
        "update embedsink.offsets",
        "insert into",
        "delete from",
        "embedsink.dead_letters",
        "select; commit",
    ];
    let mut id = 0;
    for _ in 0..10 {
        for place in places {
            for loss in [Loss::Before, Loss::Behind, Loss::Answer] {
                let from = holding.taken.next_offset;
                let key = format!("key {from}");
                let records = [
                    (from, key.as_str(), payload("one")),
                    (from + 1, "same", payload(&format!("{from}"))),
                    (from + 2, "gone", payload("x")),
                    (from + 3, "nothing", None),
                    (from + 4, "bad", Some("no JSON".to_owned())),
                ];
                id += 1;
                let batch = stage.batch(id, &holding, &records);
                proxy.lose_at(place, loss);
                let first = writer.write(&batch).await;
                if proxy.has_lost() {
                    assert_eq!(disposition(first), Disposition::Retry, "{place} {loss:?}");
                    // A server that was cut off may still be at it; its locks make us wait for the end.
                    durable(writer.write(&batch).await);
                } else {
                    // The statement is prepared already, so its text is not sent any more.
                    durable(first);
                    proxy.cut();
                }
                holding = holding.at(from + 5);
                assert_eq!(stage.position(&holding.partition).await, from + 5);
            }
        }
    }
    let most: i64 = stage
        .one(
            "select max(times) from (select count(*) as times from audit where key like 'key %' \
              or relation = 'dead_letters' group by relation, key) as counted",
        )
        .await;
    assert_eq!(most, 1, "nothing was applied twice");
    let written: i64 = stage.one("select count(*) from first where id like 'key %'").await;
    let letters: i64 = stage.one("select count(*) from embedsink.dead_letters").await;
    assert_eq!((written, letters), (i64::try_from(id).unwrap(), i64::try_from(id).unwrap()));
}

#[tokio::test]
async fn a_commit_in_doubt_of_which_a_part_was_taken_meanwhile_is_still_applied_once() {
    let stage = Stage::set().await;
    let proxy = Proxy::before(stage.database.port()).await;
    for (round, loss) in [Loss::Answer, Loss::Before].into_iter().enumerate() {
        run(&stage.outside, "truncate audit, first, second, embedsink.offsets").await;
        let (mut writer, mut other) = (stage.writer_of("connector", proxy.port()), stage.writer());
        let kept = Holding::take(&mut writer, 0).await;
        let lost = Holding::take(&mut writer, 1).await;
        let mut batch = stage.batch(round as u64, &kept, &[(0, "a", payload("kept"))]);
        stage.fill(&mut batch, &lost, &[(0, "b", payload("lost"))]);
        proxy.lose_at("select; commit", loss);
        assert_eq!(disposition(writer.write(&batch).await), Disposition::Retry);

        let heir = Holding::take(&mut other, 1).await;
        let was_committed = loss == Loss::Answer;
        assert_eq!(heir.taken.next_offset, i64::from(was_committed));
        assert_eq!(fenced(writer.write(&batch).await), [lost.lost()]);
        assert!(batch.drop_tenures(&[lost.lost()]));
        let receipt = receipt(writer.write(&batch).await);
        assert_eq!(batch.settle(&receipt).next_offsets(), [(kept.partition.clone(), 1)]);
        if !was_committed {
            durable(other.write(&stage.batch(9, &heir, &[(0, "b", payload("lost"))])).await);
        }
        let once = [
            ("first a INSERT", 1),
            ("first b INSERT", 1),
            ("offsets topic/0 UPDATE", 1),
            ("offsets topic/1 UPDATE", 1),
        ];
        assert_eq!(stage.happened().await, counts(&once), "{loss:?}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_batch_is_written_when_a_part_of_it_was_lost() {
    let stage = Stage::set().await;
    let (mut writer, mut other) = (stage.writer(), stage.writer());
    let kept = Holding::take(&mut writer, 0).await;
    let lost = Holding::take(&mut writer, 1).await;
    let mut batch = stage.batch(1, &kept, &[(0, "a", payload("kept"))]);
    stage.fill(
        &mut batch,
        &lost,
        &[(0, "a", payload("lost")), (1, "b", payload("lost")), (2, "x", Some("{".into()))],
    );
    Holding::take(&mut other, 1).await;

    assert_eq!(fenced(writer.write(&batch).await), [lost.lost()]);
    assert_eq!(stage.happened().await, BTreeMap::new(), "no part of it is written alone");
    assert!(batch.drop_tenures(&[lost.lost()]));
    let receipt = receipt(writer.write(&batch).await);
    assert_eq!(receipt.effect(), Effect { upserted: 1, ..Effect::default() });
    assert_eq!(batch.settle(&receipt).next_offsets(), [(kept.partition.clone(), 1)]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "kept")]));
    assert_eq!(stage.position(&lost.partition).await, 0);
}

#[tokio::test]
async fn a_batch_that_meets_one_partition_under_two_tenures_is_durable_only_when_it_is_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let before = Holding::take(&mut writer, 0).await;
    let after = Holding::take(&mut writer, 0).await;
    let mut batch = stage.batch(1, &before, &[(0, "a", payload("before")), (1, "b", payload("before"))]);
    stage.fill(
        &mut batch,
        &after,
        &[(0, "a", payload("after")), (1, "b", payload("after")), (2, "c", payload("after"))],
    );

    assert_eq!(fenced(writer.write(&batch).await), [before.lost()]);
    assert_eq!(stage.position(&after.partition).await, 0);
    assert!(batch.drop_tenures(&[before.lost()]));
    durable(writer.write(&batch).await);
    assert_eq!(stage.position(&after.partition).await, 3);
    assert_eq!(stage.rows().await, rows(&[("first/a", "after"), ("first/b", "after"), ("first/c", "after")]));
}

#[tokio::test]
async fn a_session_that_is_terminated_in_the_middle_of_a_write_is_tried_again() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second")), (2, "b", payload("third"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let writing = tokio::spawn(async move {
        let written = writer.write(&batch).await;
        (writer, batch, written)
    });
    for pid in stage.waiting(1).await {
        stage.outside.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    }
    let (mut writer, batch, written) = writing.await.unwrap();
    assert_eq!(disposition(written), Disposition::Retry);
    run(&other, "commit").await;
    assert_eq!(stage.position(&holding.partition).await, 1);
    assert_eq!(stage.rows().await, rows(&[("first/a", "first")]));

    durable(writer.write(&batch).await);
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "third")]));
}

#[tokio::test]
async fn a_row_that_somebody_holds_too_long_is_tried_again() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    durable(writer.write(&stage.batch(1, &holding, &[(0, "a", payload("first"))])).await);
    let batch = stage.batch(2, &holding.at(1), &[(1, "a", payload("second"))]);

    let other = stage.database.connect().await;
    run(&other, "begin; select from first where id = 'a' for update").await;
    let error = writer.write(&batch).await.expect_err("the lock is held");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(error.to_string().contains("55P03"), "{error}");
    assert_eq!(stage.position(&holding.partition).await, 1);
    run(&other, "commit").await;
    durable(writer.write(&batch).await);
    assert_eq!(stage.position(&holding.partition).await, 2);
}

#[tokio::test]
async fn writers_that_lock_the_same_rows_in_another_order_break_no_promise() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let both = [(0, "a", payload("first")), (1, "b", payload("first"))];
    durable(writer.write(&stage.batch(1, &holding, &both)).await);
    let batch = stage.batch(2, &holding.at(2), &[(2, "a", payload("second")), (3, "b", payload("second"))]);

    // Somebody who locks b before a, while we hold a and want b.
    let other = stage.database.connect().await;
    run(&other, "set deadlock_timeout = '1h'; begin; update first set text = 'other' where id = 'b'").await;
    let writing = tokio::spawn(async move {
        let written = writer.write(&batch).await;
        (writer, batch, written)
    });
    stage.waiting(1).await;
    let theirs = tokio::spawn(async move {
        run(&other, "update first set text = 'other' where id = 'a'; commit").await;
    });
    let (mut writer, batch, written) = writing.await.unwrap();
    let error = written.expect_err("a deadlock");
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    theirs.await.unwrap();
    durable(writer.write(&batch).await);
    assert_eq!(stage.rows().await, rows(&[("first/a", "second"), ("first/b", "second")]));
}

#[tokio::test]
async fn reading_a_log_again_leaves_every_row_as_it_is() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let records = [
        (
            0,
            "a",
            Some(
                r#"{"text": "t", "embedding": [0.1, -0.0, 1e-45], "metadata": {"b": 1, "a": [null]}}"#
                    .to_owned(),
            ),
        ),
        (1, "b", Some(r#"{"embedding": [1, 2, 3], "source": "s", "timestamp": 1}"#.to_owned())),
        (2, "gone", payload("x")),
        (3, "gone", None),
    ];
    durable(writer.write(&stage.batch(1, &holding, &records)).await);
    let versions = "select string_agg(id || xmin || ctid, ',' order by id) from first";
    let before: String = stage.one(versions).await;

    let mut again = stage.writer_of("connector 2", stage.database.port());
    let holding = Holding::take(&mut again, 0).await;
    let effect = durable(again.write(&stage.batch(1, &holding, &records)).await);
    assert_eq!(effect, Effect { unchanged: 2, ..Effect::default() });
    assert_eq!(stage.one::<String>(versions).await, before);
}

#[tokio::test]
async fn a_batch_that_does_not_go_on_from_the_stored_position_is_not_written() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let early = stage.batch(1, &holding, &[(0, "a", payload("early")), (1, "b", payload("early"))]);
    let late = stage.batch(2, &holding.at(2), &[(2, "a", payload("late")), (3, "b", None)]);
    assert_eq!(fenced(writer.write(&late).await), [holding.lost()], "there is a gap before it");
    durable(writer.write(&early).await);
    durable(writer.write(&late).await);
    assert_eq!(fenced(writer.write(&early).await), [holding.lost()], "it was written before");
    let overlapping =
        stage.batch(3, &holding.at(1), &[(1, "a", payload("early")), (2, "a", payload("early"))]);
    assert_eq!(fenced(writer.write(&overlapping).await), [holding.lost()]);
    assert_eq!(stage.rows().await, rows(&[("first/a", "late")]));
    run(&stage.outside, "delete from embedsink.offsets").await;
    assert_eq!(fenced(writer.write(&late).await), [holding.lost()], "the operator has removed the position");
}

#[tokio::test]
async fn whatever_is_replayed_or_taken_over_an_earlier_record_never_overwrites_a_later_one() {
    let stage = Stage::set().await;
    let mut random = Random::new("an earlier record never overwrites a later one");
    let keys = ["a", "b", "c"];
    // The log of one partition, and what is true after each of its records.
    let log: Vec<(i64, &str, Option<String>)> = (0..300)
        .map(|offset| {
            let text = (!random.chance(25)).then(|| payload(&format!("{offset}"))).flatten();
            (offset, random.pick(&keys), text)
        })
        .collect();
    let mut writers: Vec<PostgresWriter> = (0..3).map(|_| stage.writer()).collect();
    let mut holdings = Vec::new();
    for writer in &mut writers {
        holdings.push(Holding::take(writer, 0).await);
    }
    let mut batches: Vec<(usize, Batch)> = Vec::new();
    let mut id = 0;
    loop {
        let who = random.below(writers.len());
        if random.chance(10) {
            holdings[who] = Holding::take(&mut writers[who], 0).await;
        } else if random.chance(30) && !batches.is_empty() {
            // Something from before, once more.
            let (whose, batch) = &batches[random.below(batches.len())];
            drop(writers[*whose].write(batch).await.unwrap());
        } else {
            let from = holdings[who].taken.next_offset;
            let to = (from + 1 + random.below(12) as i64).min(log.len() as i64);
            if from < to {
                id += 1;
                let batch = stage.batch(id, &holdings[who], &log[from as usize..to as usize]);
                match writers[who].write(&batch).await.unwrap() {
                    Written::Durable(_) => holdings[who] = holdings[who].at(to),
                    Written::Fenced(_) => holdings[who] = Holding::take(&mut writers[who], 0).await,
                    Written::Refused(refusals) => panic!("refused: {refusals:?}"),
                }
                batches.push((who, batch));
            }
        }
        let position = stage.position(&Partition::new("topic", 0)).await as usize;
        let mut wanted = BTreeMap::new();
        for (offset, key, text) in &log[..position] {
            match text {
                Some(_) => drop(wanted.insert(format!("first/{key}"), Some(offset.to_string()))),
                None => drop(wanted.remove(&format!("first/{key}"))),
            }
        }
        assert_eq!(stage.rows().await, wanted, "after {position} records");
        if position == log.len() {
            return;
        }
    }
}

/// A text of JSON that few programs would write: escapes of all kinds, numbers out of all measure.
fn wild_json(random: &mut Random, depth: usize, out: &mut String) {
    let space = |random: &mut Random| random.pick(&["", "", "", " ", "\n\t ", "\r"]);
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => out.push_str(random.pick(&["null", "true", "false"])),
        1 => wild_number(random, out),
        2 | 3 => wild_string(random, out),
        4 => {
            out.push('[');
            for index in 0..random.below(4) {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(space(random));
                wild_json(random, depth - 1, out);
                out.push_str(space(random));
            }
            out.push(']');
        }
        _ => wild_object(random, depth - 1, out),
    }
}

fn wild_object(random: &mut Random, depth: usize, out: &mut String) {
    out.push('{');
    for index in 0..random.below(4) {
        if index > 0 {
            out.push(',');
        }
        wild_string(random, out);
        out.push_str(random.pick(&[":", " : ", ":\n"]));
        wild_json(random, depth, out);
    }
    out.push('}');
}

fn wild_number(random: &mut Random, out: &mut String) {
    let most = if random.chance(5) { 20_000 } else { 20 };
    out.push_str(random.pick(&["", "-"]));
    if random.chance(40) {
        out.push('0');
    } else {
        out.push(char::from(b'1' + random.below(9) as u8));
        digits(random, most, out);
    }
    if random.chance(40) {
        out.push_str(random.pick(&[".0", ".9"]));
        digits(random, most, out);
    }
    if random.chance(40) {
        let most = random.pick(&[10, 400, 20_000, 200_000, usize::MAX >> 1]);
        out.push_str(random.pick(&["e", "E", "e+", "e-"]));
        out.push_str(&random.below(most).to_string());
    }
}

fn digits(random: &mut Random, most: usize, out: &mut String) {
    out.extend((0..random.below(most)).map(|_| char::from(b'0' + random.below(10) as u8)));
}

fn wild_string(random: &mut Random, out: &mut String) {
    out.push('"');
    for _ in 0..random.below(6) {
        match random.below(100) {
            0 => out.push_str(r"\u0000"),
            1 => out.push_str(random.pick(&[r"\ud800", r"\udfff", r"\ud800\ud800", r"\udc00\ud800"])),
            2..20 => out.push_str(random.pick(&[
                r"\ud83d\ude00",
                r"\uD83D\uDE00",
                r"\udbff\udfff",
                r"\uFFFE",
                r"\uffff",
            ])),
            20..40 => out.push_str(
                random.pick(&[r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\\u0000"]),
            ),
            40..60 => out.push_str(&format!("\\u{:04x}", 1 + random.below(0xD7FF))),
            60..80 => out.extend(
                char::from_u32(0x20 + random.below(0x11_0000 - 0x20) as u32)
                    .filter(|c| !r#"\""#.contains(*c)),
            ),
            _ => out.push(random.pick(&['a', 'é', '😀', '{', '[', ',', '\u{7f}', '\u{feff}', '\'', '$'])),
        }
    }
    out.push('"');
}

#[tokio::test]
async fn metadata_that_is_accepted_is_accepted_by_postgres() {
    let database = Database::create().await;
    let client = database.connect().await;
    let statement = client.prepare("select $1::text::jsonb is not null").await.unwrap();
    let mut random = Random::new("metadata that is accepted is accepted by Postgres");
    let (mut both, mut neither, mut ours_alone) = (0, 0, BTreeMap::new());
    for round in 0..6_000 {
        let mut metadata = String::new();
        let depth = if round % 50 == 0 { 100 + random.below(60) } else { 0 };
        metadata.push_str(&"{\"a\":[".repeat(depth / 2));
        wild_object(&mut random, 4, &mut metadata);
        metadata.push_str(&"]}".repeat(depth / 2));
        let payload = format!(r#"{{"id": "a", "embedding": [], "metadata": {metadata}}}"#);
        let record = SourceRecord {
            offset: 0,
            timestamp: None,
            key: None,
            payload: Some(payload.as_bytes()),
            headers: Headers::default(),
            omitted: 0,
        };
        let ours = decode(&record, &mut Vec::new()).map(drop);
        let theirs = client.query_one(&statement, &[&metadata]).await;
        match (ours, theirs) {
            (Ok(()), Ok(_)) => both += 1,
            (Err(_), Err(_)) => neither += 1,
            (Ok(()), Err(error)) => panic!("Postgres refuses {metadata}: {error:?}"),
            (Err(reject), Ok(_)) => *ours_alone.entry(reject.to_string()).or_insert(0) += 1,
        }
    }
    println!("accepted: {both}, refused: {neither}, refused by us alone: {ours_alone:?}");
    assert!(both > 3_000 && neither > 100);
    assert!(ours_alone.values().sum::<i32>() < 600, "{ours_alone:?}");
    let reasons =
        ours_alone.keys().all(|said| said.contains("deeper than 128") || said.contains("more digits"));
    assert!(reasons, "{ours_alone:?}");
}

#[tokio::test]
async fn what_is_decoded_is_what_stands_in_the_table() {
    let stage = Stage::set().await;
    let mut writer = stage.writer();
    let holding = Holding::take(&mut writer, 0).await;
    let mut random = Random::new("what is decoded is what stands in the table");
    let mut records = Vec::new();
    for offset in 0..2_000_i64 {
        let mut fields = Vec::new();
        let number = |random: &mut Random| loop {
            let number = f32::from_bits(random.next() as u32);
            if number.is_finite() {
                return format!("{number:e}");
            }
        };
        let numbers: Vec<String> = (0..DIMENSIONS).map(|_| number(&mut random)).collect();
        fields.push(format!(r#""embedding":[{}]"#, numbers.join(",")));
        for field in ["text", "source"] {
            if random.chance(70) {
                let mut text = String::new();
                wild_string(&mut random, &mut text);
                fields.push(format!(r#""{field}":{text}"#));
            }
        }
        if random.chance(70) {
            let mut metadata = String::new();
            wild_object(&mut random, 3, &mut metadata);
            fields.push(format!(r#""metadata":{metadata}"#));
        }
        if random.chance(90) {
            let millis = random.pick(&[
                "-62135596800000",
                "253402300799999",
                "0",
                "-1",
                "1704067200000.125",
                "\"9999-12-31T23:59:59.999999Z\"",
                "\"0001-01-01T00:00:00Z\"",
                "\"2024-02-29 12:00:00.000001+05:30\"",
                "null",
            ]);
            fields.push(format!(r#""timestamp":{millis}"#));
        }
        records.push((offset, format!("key {offset}"), format!("{{{}}}", fields.join(","))));
    }
    let log: Vec<(i64, &str, Option<String>)> =
        records.iter().map(|(offset, key, payload)| (*offset, key.as_str(), Some(payload.clone()))).collect();
    durable(writer.write(&stage.batch(1, &holding, &log)).await);

    let statement = stage
        .outside
        .prepare(
            "select text, embedding::real[], (extract(epoch from timestamp) * 1000000)::int8, source, \
             metadata is not distinct from $2::text::jsonb from first where id = $1",
        )
        .await
        .unwrap();
    let (mut vector, mut good) = (Vec::new(), 0);
    for (_, key, payload) in &records {
        let record = SourceRecord {
            offset: 0,
            timestamp: Some(1_704_067_200_000),
            key: Some(key.as_bytes()),
            payload: Some(payload.as_bytes()),
            headers: Headers::default(),
            omitted: 0,
        };
        let Ok(Change::Upsert(wanted)) = decode(&record, &mut vector) else {
            continue;
        };
        good += 1;
        let row = stage.outside.query_one(&statement, &[key, &wanted.metadata]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), wanted.text.as_deref());
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&row.get::<_, Vec<f32>>(1)), bits(&vector), "{payload}");
        assert_eq!(row.get::<_, Option<i64>>(2), wanted.timestamp, "{payload}");
        assert_eq!(row.get::<_, Option<&str>>(3), wanted.source.as_deref());
        assert!(row.get::<_, bool>(4), "{payload}");
    }
    assert!(good > 1_000);
    let kept: i64 = stage.one("select count(*) from embedsink.dead_letters").await;
    assert_eq!(kept, 2_000 - good);
    let reasons: i64 =
        stage.one("select count(*) from embedsink.dead_letters where reason = 'nul_byte'").await;
    assert!(reasons > 0 && RejectReason::NulByte.as_str() == "nul_byte");
}
