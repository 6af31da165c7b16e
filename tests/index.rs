//! The vector index out of the way of a backlog: when it is built, by whom, and what is told of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_postgres::Client;

use crate::support::connector::{Connector, Process, SMALL_BATCHES};
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{Database, one, run};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::servers::OwnServer;
use crate::support::turn::alone;
use crate::support::wait::until;

const PLAIN: Shape = Shape { tables: &[("embeddings", 8)], partitions: 2, ids: 0, tombstones: 0, damaged: 0 };
/// So many that an index is built as soon as they are written.
const MANY: usize = 1_200;
const OURS: &str = "embeddings_embedsink_hnsw_l2";
const FREQUENT: &str =
    "properties: {session.timeout.ms: 6000, heartbeat.interval.ms: 300, statistics.interval.ms: 200}";

/// Rows by hand.
const ROWS: &str = "insert into embeddings (id, embedding) \
                    select 'by hand ' || n, array_fill(n::float4, array[8])::vector from generate_series(1, 1200) n";
/// What is told of an index that waits for another.
const QUEUED: &str = "waiting for another index";

/// A topic with `records` records, and a connector with an index as `keys` say, the database migrated.
async fn stage(keys: &str, records: usize) -> (Connector, Database, Topic, Client) {
    stage_in(Database::create().await, keys, records).await
}

async fn stage_in(database: Database, keys: &str, records: usize) -> (Connector, Database, Topic, Client) {
    let topic = Topic::create(PLAIN.partitions).await;
    topic.produce(&Generator::new(Random::new("index"), PLAIN).records(records));
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    connector.migrate().await;
    connector.tables = format!("embeddings: {{dimensions: 8, index: {{metric: l2, {keys}}}}}");
    connector.kafka.push_str(FREQUENT);
    connector.more.push_str(SMALL_BATCHES);
    let client = database.connect().await;
    (connector, database, topic, client)
}

/// Records of new ids behind those that are there.
fn produce_more(topic: &Topic, records: usize) {
    let more = TopicProducer::new(topic);
    for number in 0..records {
        let record = format!(r#"{{"id": "more {number}", "embedding": [{number}, 2, 3, 4, 5, 6, 7, 8]}}"#);
        more.send((number % 2) as i32, 0, None, Some(record.as_bytes()));
    }
    more.finish();
}

/// What is told of the table's index; `null` if nobody answers.
async fn told(socket: &Path) -> Value {
    all_told(socket).await.into_iter().next().unwrap_or_default()
}

/// What is told of the indexes of all tables.
async fn all_told(socket: &Path) -> Vec<Value> {
    let mut text = String::new();
    let read = async { UnixStream::connect(socket).await?.read_to_string(&mut text).await };
    if read.await.is_err() {
        return Vec::new();
    }
    let document: Value = serde_json::from_str(&text).unwrap();
    // It has none until the tables are checked.
    document["sink"]["indexes"].as_array().cloned().unwrap_or_default()
}

/// Waits until the index is in `state`, and returns what is told.
async fn until_state(process: &mut Process, state: &str) -> Value {
    let socket = process.socket().to_owned();
    let what = format!("an index that is {state}");
    process.until(&what, async |_| Some(told(&socket).await).filter(|told| told["state"] == state)).await
}

async fn is_searched(client: &Client) -> bool {
    run(client, "set enable_seqscan = off").await;
    let sql = "explain select id from embeddings order by embedding <-> '[1,2,3,4,5,6,7,8]' limit 5";
    let plan = client.query(sql, &[]).await.unwrap();
    plan.iter().any(|line| line.get::<_, &str>(0).contains(OURS))
}

/// The server's process of a build that waits for an old transaction, and has begun an index.
async fn waiting_build(process: &mut Process, client: &Client) -> i32 {
    process
        .until("a build that waits", async |_| {
            let sql = "select pid from pg_stat_progress_create_index \
                       where datname = current_database() and phase like 'waiting%' and index_relid <> 0";
            client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
        })
        .await
}

/// Waits until the reason that is told of the index holds `text`.
async fn until_reason(process: &mut Process, text: &str) {
    let socket = process.socket().to_owned();
    process
        .until(text, async |_| {
            told(&socket).await["reason"].as_str().is_some_and(|reason| reason.contains(text)).then_some(())
        })
        .await;
}

/// Vector indexes of the table.
async fn indexes(client: &Client) -> i64 {
    let sql = "select count(*) from pg_indexes where tablename = 'embeddings' and indexdef like '%hnsw%'";
    one(client, sql).await
}

#[tokio::test]
async fn a_backlog_is_loaded_before_its_index_is_built() {
    const RECORDS: usize = 30_000;
    let _alone = alone().await;
    let (connector, _database, topic, client) = stage("m: 4, ef-construction: 8", RECORDS).await;
    let mut process = connector.start();
    process.settles(&client, RECORDS).await;
    let ready = until_state(&mut process, "ready").await;
    assert_eq!(
        ready,
        json!({"table": "embeddings", "state": "ready", "reason": null, "phase": null, "percent": null})
    );
    assert!(is_searched(&client).await);
    let socket = process.socket().to_str().unwrap().to_owned();
    let table = connector.run(&["status", "--socket", &socket]).outputs().await;
    assert!(table.contains("vector index of") && table.contains("embeddings       ready"), "{table}");
    let prometheus = connector.run(&["status", "--socket", &socket, "--prometheus"]).outputs().await;
    assert!(prometheus.contains("table=\"embeddings\",state=\"ready\"} 1"), "{prometheus}");

    // From now on rows are put in as they come.
    let more = TopicProducer::new(&topic);
    more.send(0, 0, None, Some(br#"{"id": "later", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}"#));
    more.finish();
    process.settles(&client, RECORDS + 1).await;
    let log = process.stop().await;
    let built: Vec<&str> = log.lines().filter(|line| line.contains("built the vector index")).collect();
    assert_eq!(built.len(), 1, "{log}");
    assert!(built[0].contains(&format!("rows={RECORDS}")), "{built:?}");
    let nearest = "select id from embeddings order by embedding <-> '[1,2,3,4,5,6,7,8]' limit 1";
    assert_eq!(one::<String>(&client, nearest).await, "later");
}

#[tokio::test]
async fn an_immediate_index_is_there_before_the_first_record_and_an_empty_table_waits_for_a_deferred_one() {
    let (connector, _database, topic, client) = stage("build: deferred", 0).await;
    let mut process = connector.start();
    process.logs(2, "partition begins").await;
    let waiting = until_state(&mut process, "waiting").await;
    assert_eq!(indexes(&client).await, 0, "{waiting}");
    process.stop().await;
    drop((connector, topic));

    let (connector, _database, _topic, client) = stage("build: immediate", 500).await;
    let mut process = connector.start();
    process.settles(&client, 500).await;
    until_state(&mut process, "ready").await;
    let log = process.stop().await;
    let line = |text: &str| log.lines().position(|line| line.contains(text)).expect(text);
    assert!(line("built the vector index") < line("partition begins"), "{log}");
    assert_eq!(indexes(&client).await, 1);
}

#[tokio::test]
async fn an_index_made_by_hand_is_left_alone() {
    let (connector, _database, _topic, client) = stage("", MANY).await;
    run(&client, "create index mine on embeddings using hnsw (embedding vector_l2_ops)").await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let told = until_state(&mut process, "by-hand").await;
    assert!(told["reason"].as_str().unwrap().contains("mine"), "{told}");
    process.stop().await;
    assert_eq!(indexes(&client).await, 1);
}

#[tokio::test]
async fn of_two_instances_one_builds() {
    const RECORDS: usize = 12_000;
    let _alone = alone().await;
    let (connector, _database, _topic, client) = stage("m: 4, ef-construction: 8", RECORDS).await;
    let (mut a, mut b) = (connector.start(), connector.start());
    a.settles(&client, RECORDS).await;
    for process in [&mut a, &mut b] {
        process.logs(1, "partition begins").await;
        until_state(process, "ready").await;
    }
    let logs = a.stop().await + &b.stop().await;
    assert_eq!(logs.matches("built the vector index").count(), 1, "{logs}");
    assert!(!logs.contains("ERROR") && is_searched(&client).await, "{logs}");
}

#[tokio::test]
async fn a_build_that_a_stop_or_a_crash_breaks_off_is_done_anew_by_the_next_start() {
    let (connector, database, _topic, client) = stage("", MANY).await;
    // The build waits for whoever may write what it would not see.
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    for crash in [false, true] {
        let mut process = connector.start();
        process.settles(&client, MANY).await;
        let told = process
            .until("a build that waits", async |process| {
                let told = told(process.socket()).await;
                told["phase"].as_str().is_some_and(|phase| phase.starts_with("waiting")).then_some(told)
            })
            .await;
        assert_eq!((&told["state"], &told["table"]), (&"building".into(), &"embeddings".into()));
        if crash {
            process.kill();
        } else {
            let log = process.stop().await;
            assert!(log.contains("was broken off by the stop"), "{log}");
            run(&old, "rollback").await;
            let mut next = connector.start();
            until_state(&mut next, "ready").await;
            next.stop().await;
            run(&client, &format!("drop index {OURS}")).await;
            run(&old, "begin; lock table embeddings in row exclusive mode").await;
        }
    }
    let invalid = format!("select not indisvalid from pg_index where indexrelid = '{OURS}'::regclass");
    assert!(one::<bool>(&client, &invalid).await);
    run(&old, "rollback").await;
    let mut process = connector.start();
    until_state(&mut process, "ready").await;
    process.stop().await;
    assert!(!one::<bool>(&client, &invalid).await && is_searched(&client).await);
}

#[tokio::test]
async fn a_role_that_may_not_index_is_told_so_and_migrate_builds_for_it() {
    let (mut connector, database, _topic, client) = stage("", 10).await;
    let role = format!("{}_writer", database.name());
    run(
        &client,
        &format!(
            "create role {role} login; grant usage on schema embedsink, public to {role}; \
         grant all on all tables in schema embedsink to {role}; grant all on embeddings to {role}"
        ),
    )
    .await;
    let owner = std::mem::take(&mut connector.postgres);
    let login = |user: &str| {
        let (port, name) = (database.port(), database.name());
        format!("host: 127.0.0.1\nport: {port}\ndatabase: {name}\nuser: {user}\nmigrate: manual\n")
    };
    connector.postgres = login(&role);
    let log = connector.start().ends_with(78).await;
    assert!(log.contains("does not own the table") && log.contains("embedsink migrate"), "{log}");
    connector.postgres = login("postgres");
    connector.migrate().await;
    assert_eq!(indexes(&client).await, 1);
    connector.postgres = login(&role);
    let mut process = connector.start();
    process.settles(&client, 10).await;
    until_state(&mut process, "ready").await;
    process.stop().await;
    connector.postgres = owner;
    run(&client, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_build_that_somebody_cancels_on_the_server_is_over_and_says_so_while_writing_goes_on() {
    let (connector, database, topic, client) = stage("", MANY).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let backend = waiting_build(&mut process, &client).await;
    assert!(one::<bool>(&client, &format!("select pg_cancel_backend({backend})")).await);
    // What is left of it cannot be dropped yet.
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("somebody cancelled the build"), "{failed}");
    assert_eq!(indexes(&client).await, 1);
    run(&old, "rollback").await;
    process.until("nothing left of it", async |_| (indexes(&client).await == 0).then_some(())).await;
    assert_eq!(told(process.socket()).await["state"], "failed");
    let more = TopicProducer::new(&topic);
    more.send(0, 0, None, Some(br#"{"id": "later", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}"#));
    more.finish();
    process.settles(&client, MANY + 1).await;
    process.stop().await;
}

#[tokio::test]
async fn a_server_that_runs_out_three_times_is_not_asked_again() {
    let (connector, _database, _topic, client) = stage("", MANY).await;
    run(
        &client,
        "create function run_out() returns event_trigger language plpgsql as \
         $$ begin raise exception 'no room' using errcode = '53200'; end $$; \
         create event trigger run_out on ddl_command_start when tag in ('CREATE INDEX') execute function run_out()",
    )
    .await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("the server ran out 3 times"), "{failed}");
    let log = process.stop().await;
    assert_eq!(log.matches("building the vector index").count(), 3, "{log}");
}

#[tokio::test]
async fn who_may_not_index_starts_while_somebody_builds() {
    let (mut connector, database, _topic, client) = stage("", MANY).await;
    let role = format!("{}_beside", database.name());
    run(
        &client,
        &format!(
            "create role {role} login; grant usage on schema embedsink, public to {role}; \
             grant all on all tables in schema embedsink to {role}; grant all on embeddings to {role}"
        ),
    )
    .await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut owner = connector.start();
    owner.settles(&client, MANY).await;
    until_state(&mut owner, "building").await;
    let (port, name) = (database.port(), database.name());
    connector.postgres =
        format!("host: 127.0.0.1\nport: {port}\ndatabase: {name}\nuser: {role}\nmigrate: manual\n");
    let mut other = connector.start();
    until_state(&mut other, "waiting").await;
    run(&old, "rollback").await;
    until_state(&mut owner, "ready").await;
    let log = owner.stop().await + &other.stop().await;
    assert!(!log.contains("ERROR"), "{log}");
    run(&client, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn an_index_waits_until_the_backlog_of_other_instances_is_written_but_not_for_one_that_is_gone() {
    let (connector, _database, topic, client) = stage("", MANY).await;
    // Another instance of this connector has begun to write a large partition, and one that is gone has left another.
    let position = |partition: i32, age: &str| {
        format!(
            "insert into embedsink.offsets (connector, topic, partition, next_offset, epoch, end_offset, updated_at) \
             values ('{}', '{}', {partition}, 5, 1, 1000000, now() - interval '{age}')",
            connector.name(),
            topic.name()
        )
    };
    run(&client, &position(8, "0 s")).await;
    run(&client, &position(9, "61 s")).await;
    let mut process = connector.start();
    until_reason(&mut process, "backlog of other instances").await;
    assert_eq!(indexes(&client).await, 0);
    run(&client, "update embedsink.offsets set next_offset = 990000 where partition = 8").await;
    until_state(&mut process, "ready").await;
    process.stop().await;
}

#[tokio::test]
async fn other_instances_are_told_where_a_backlog_ends_with_the_take_and_as_it_grows() {
    let (connector, _database, topic, client) = stage("", MANY).await;
    // Between two attempts nobody holds the positions.
    run(
        &client,
        "create function no_room() returns trigger language plpgsql as \
         $$ begin raise exception 'no room' using errcode = '53100'; end $$; \
         create trigger no_room before insert on embeddings execute function no_room()",
    )
    .await;
    let mut process = connector.start();
    let end = "select coalesce(sum(end_offset), 0)::int8 from embedsink.offsets";
    process
        .until("the ends of a take", async |_| (one::<i64>(&client, end).await == MANY as i64).then_some(()))
        .await;
    produce_more(&topic, 12_000);
    process
        .until("the new ends", async |_| {
            (one::<i64>(&client, end).await == 12_000 + MANY as i64).then_some(())
        })
        .await;
    run(&client, "drop trigger no_room on embeddings").await;
    let left = "select coalesce(sum(greatest(end_offset - next_offset, 0)), 0)::int8 from embedsink.offsets";
    process.until("no backlog", async |_| (one::<i64>(&client, left).await == 0).then_some(())).await;
    process.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_is_in_the_way_of_a_clean_up() {
    let (connector, database, _topic, client) = stage("", MANY).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let backend = waiting_build(&mut process, &client).await;
    let socket = process.socket().to_str().unwrap().to_owned();
    let table = connector.run(&["status", "--socket", &socket]).outputs().await;
    assert!(table.contains("embeddings       building"), "{table}");
    assert!(one::<bool>(&client, &format!("select pg_cancel_backend({backend})")).await);
    let dropping = "select exists (select from pg_stat_activity where datname = current_database() \
                    and query like 'drop index concurrently%' and wait_event_type = 'Lock')";
    process
        .until("a clean-up that waits", async |_| one::<bool>(&client, dropping).await.then_some(()))
        .await;
    process.signal("TERM");
    process.ends_within(Duration::from_secs(10), 0).await;
    assert!(!one::<bool>(&client, dropping).await);
    run(&old, "rollback").await;
}

#[tokio::test]
async fn a_server_that_crashes_three_times_under_a_build_is_not_asked_again_and_nothing_is_left_of_it() {
    let server = OwnServer::start("postgres", "keeper");
    let database = Database::create_on(server.port()).await;
    let (connector, database, _topic, client) = stage_in(database, "", MANY).await;
    // Each build waits at a gate.
    run(
        &client,
        "create table gate (open bool); \
         create function wait() returns event_trigger language plpgsql as \
         $$ begin while not exists (select from gate) loop perform pg_sleep(0.01); end loop; end $$; \
         create event trigger wait on ddl_command_start when tag in ('CREATE INDEX') execute function wait()",
    )
    .await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    for crash in 1..=3 {
        let client = connect_again(&database).await;
        let mut backend: i32 = process
            .until("a build at the gate", async |_| {
                let sql = "select pid from pg_stat_activity where query like 'create index concurrently%' \
                           and datname = current_database() and state = 'active'";
                client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
            })
            .await;
        let old = database.connect().await;
        if crash == 3 {
            run(&old, "begin; lock table embeddings in row exclusive mode").await;
            run(&client, "insert into gate values (true)").await;
            backend = waiting_build(&mut process, &client).await;
        }
        kill(backend);
        // All sessions go with it.
        until("the end of the server's sessions", async || client.is_closed().then_some(())).await;
    }
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("the server ran out 3 times"), "{failed}");
    let client = connect_again(&database).await;
    process.until("nothing left of it", async |_| (indexes(&client).await == 0).then_some(())).await;
    process.stop().await;
}

/// As soon as the server has recovered.
async fn connect_again(database: &Database) -> Client {
    until("a server that has recovered", async || database.try_connect().await.ok()).await
}

/// As the kernel does it when memory runs out.
fn kill(backend: i32) {
    assert!(Command::new("kill").args(["-9", &backend.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_build_that_is_broken_off_again_and_again_is_given_up() {
    let (connector, _database, _topic, client) = stage("", MANY).await;
    run(
        &client,
        "create function lose() returns event_trigger language plpgsql as \
         $$ begin raise exception 'a deadlock' using errcode = '40P01'; end $$; \
         create event trigger lose on ddl_command_start when tag in ('CREATE INDEX') execute function lose()",
    )
    .await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("the build was broken off 5 times"), "{failed}");
    let log = process.stop().await;
    assert_eq!(log.matches("building the vector index").count(), 5, "{log}");
}

#[tokio::test]
async fn a_first_record_alone_gets_no_index_that_a_backlog_behind_it_would_have_to_be_put_into() {
    let (connector, _database, topic, client) = stage("", 1).await;
    let mut process = connector.start();
    process.settles(&client, 1).await;
    until_reason(&mut process, "1000 rows, or 30 s").await;
    produce_more(&topic, MANY);
    process.settles(&client, MANY + 1).await;
    until_state(&mut process, "ready").await;
    let log = process.stop().await;
    let built: Vec<&str> = log.lines().filter(|line| line.contains("built the vector index")).collect();
    let rows: i64 = one(&client, "select count(*) from embeddings").await;
    assert!(built.len() == 1 && built[0].contains(&format!("rows={rows}")), "{built:?}");
}

#[tokio::test]
async fn a_table_that_stays_small_gets_its_index_after_a_while() {
    let (connector, _database, _topic, client) = stage("", 10).await;
    let mut process = connector.start();
    process.settles(&client, 10).await;
    until_state(&mut process, "ready").await;
    process.stop().await;
}

#[tokio::test]
async fn an_index_whose_turn_comes_late_waits_for_a_backlog_that_has_come_meanwhile() {
    let (mut connector, database, topic, client) = stage("", MANY).await;
    run(&client, "create table others (like embeddings including all)").await;
    run(&client, &ROWS.replace("embeddings", "others")).await;
    connector.tables.push_str("\nothers: {dimensions: 8, index: {metric: l2}}");
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings, others in row exclusive mode").await;
    let mut process = connector.start();
    process.settles(&client, MANY).await;
    let socket = process.socket().to_owned();
    let late = process
        .until("an index that waits for another", async |_| {
            let told = all_told(&socket).await;
            told.iter().position(|told| told["reason"].as_str().is_some_and(|why| why.starts_with(QUEUED)))
        })
        .await;
    run(
        &client,
        &format!(
            "insert into embedsink.offsets (connector, topic, partition, next_offset, epoch, end_offset) \
             values ('{}', '{}', 8, 5, 1, 1000000)",
            connector.name(),
            topic.name()
        ),
    )
    .await;
    run(&old, "rollback").await;
    process
        .until("a wait for others", async |_| {
            let told = all_told(&socket).await;
            let reason = told.get(late)?["reason"].as_str()?;
            reason.contains("backlog of other instances").then_some(())
        })
        .await;
    assert_eq!(all_told(&socket).await[1 - late]["state"], "ready");
    run(&client, "update embedsink.offsets set next_offset = 1000000 where partition = 8").await;
    process
        .until("both indexes", async |_| {
            let told = all_told(&socket).await;
            told.iter().all(|told| told["state"] == "ready").then_some(())
        })
        .await;
    process.stop().await;
}

#[tokio::test]
async fn rows_that_somebody_else_writes_are_noticed_by_a_connector_that_has_nothing_to_do() {
    let (connector, _database, _topic, client) = stage("", 0).await;
    let mut process = connector.start();
    until_reason(&mut process, "the first rows").await;
    run(&client, ROWS).await;
    until_state(&mut process, "ready").await;
    process.stop().await;
}

#[tokio::test]
async fn a_stop_at_the_start_breaks_an_immediate_build_off_in_the_server_too() {
    let (connector, database, _topic, client) = stage("build: immediate", 0).await;
    run(&client, ROWS).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut process = connector.start();
    waiting_build(&mut process, &client).await;
    let log = process.stop().await;
    assert!(log.contains("was broken off by the stop"), "{log}");
    let builds = "select count(*) from pg_stat_progress_create_index where datname = current_database()";
    assert_eq!(one::<i64>(&client, builds).await, 0);
    run(&old, "rollback").await;
}

#[tokio::test]
async fn migrate_says_what_to_do_about_an_index_by_hand_that_cannot_be_used() {
    let (connector, _database, _topic, client) = stage("build: immediate", 0).await;
    run(&client, "create index \"By Hand\" on embeddings using hnsw (embedding vector_l2_ops)").await;
    let spoil = "update pg_index set indisvalid = false where indexrelid = '\"By Hand\"'::regclass";
    run(&client, spoil).await;
    connector.write();
    let log = connector.run(&["migrate", "--config", &connector.path()]).ends_with(78).await;
    assert!(log.contains("drop index concurrently \"public\".\"By Hand\";"), "{log}");
}
