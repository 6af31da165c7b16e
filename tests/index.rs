//! The vector index out of the way of a backlog: when it is built, by whom, and what is told of it.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_postgres::Client;

use crate::support::connector::{Connector, Process, SMALL_BATCHES};
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{Database, one, run};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::turn::alone;

const PLAIN: Shape = Shape { tables: &[("embeddings", 8)], partitions: 2, ids: 0, tombstones: 0, damaged: 0 };
const OURS: &str = "embeddings_embedsink_hnsw_l2";
const FREQUENT: &str =
    "properties: {session.timeout.ms: 6000, heartbeat.interval.ms: 300, statistics.interval.ms: 200}";

/// A topic with `records` records, and a connector with an index as `keys` say, the database migrated.
async fn stage(keys: &str, records: usize) -> (Connector, Database, Topic, Client) {
    let (database, topic) = (Database::create().await, Topic::create(PLAIN.partitions).await);
    topic.produce(&Generator::new(Random::new("index"), PLAIN).records(records));
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    connector.migrate().await;
    connector.tables = format!("embeddings: {{dimensions: 8, index: {{metric: l2, {keys}}}}}");
    connector.kafka.push_str(FREQUENT);
    connector.more.push_str(SMALL_BATCHES);
    let client = database.connect().await;
    (connector, database, topic, client)
}

/// What is told of the table's index; `null` if nobody answers.
async fn told(socket: &Path) -> Value {
    let mut text = String::new();
    let read = async { UnixStream::connect(socket).await?.read_to_string(&mut text).await };
    if read.await.is_err() {
        return Value::Null;
    }
    let mut document: Value = serde_json::from_str(&text).unwrap();
    // It has none until the tables are checked.
    document.pointer_mut("/sink/indexes/0").map(Value::take).unwrap_or_default()
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
    let (connector, _database, _topic, client) = stage("", 300).await;
    run(&client, "create index mine on embeddings using hnsw (embedding vector_l2_ops)").await;
    let mut process = connector.start();
    process.settles(&client, 300).await;
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
    let (connector, database, _topic, client) = stage("", 300).await;
    // The build waits for whoever may write what it would not see.
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    for crash in [false, true] {
        let mut process = connector.start();
        process.settles(&client, 300).await;
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
    let (connector, database, topic, client) = stage("", 300).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in row exclusive mode").await;
    let mut process = connector.start();
    process.settles(&client, 300).await;
    // It waits for the transaction above, and an index that is begun is there.
    let backend: i32 = process
        .until("a build that waits", async |_| {
            let sql = "select pid from pg_stat_progress_create_index where phase like 'waiting%' and index_relid <> 0";
            client.query_opt(sql, &[]).await.unwrap().map(|row| row.get(0))
        })
        .await;
    assert!(one::<bool>(&client, &format!("select pg_cancel_backend({backend})")).await);
    run(&old, "rollback").await;
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("somebody cancelled the build"), "{failed}");
    assert_eq!(indexes(&client).await, 0, "nothing is left of it");
    let more = TopicProducer::new(&topic);
    more.send(0, 0, None, Some(br#"{"id": "later", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}"#));
    more.finish();
    process.settles(&client, 301).await;
    process.stop().await;
}

#[tokio::test]
async fn a_server_that_runs_out_three_times_is_not_asked_again() {
    let (connector, _database, _topic, client) = stage("", 300).await;
    run(
        &client,
        "create function run_out() returns event_trigger language plpgsql as \
         $$ begin raise exception 'no room' using errcode = '53200'; end $$; \
         create event trigger run_out on ddl_command_start when tag in ('CREATE INDEX') execute function run_out()",
    )
    .await;
    let mut process = connector.start();
    process.settles(&client, 300).await;
    let failed = until_state(&mut process, "failed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("the server ran out 3 times"), "{failed}");
    let log = process.stop().await;
    assert_eq!(log.matches("building the vector index").count(), 3, "{log}");
}

#[tokio::test]
async fn who_may_not_index_starts_while_somebody_builds() {
    let (mut connector, database, _topic, client) = stage("", 300).await;
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
    owner.settles(&client, 300).await;
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
    let (connector, _database, topic, client) = stage("", 300).await;
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
    process
        .until("a wait for others", async |process| {
            let reason = told(process.socket()).await["reason"].as_str().map(str::to_owned);
            reason.filter(|reason| reason.contains("backlog of other instances"))
        })
        .await;
    assert_eq!(indexes(&client).await, 0);
    run(&client, "update embedsink.offsets set next_offset = 990000 where partition = 8").await;
    until_state(&mut process, "ready").await;
    process.stop().await;
}

#[tokio::test]
async fn other_instances_are_told_where_a_backlog_ends_with_the_take_and_as_it_grows() {
    let (connector, database, topic, client) = stage("", 300).await;
    let old = database.connect().await;
    run(&old, "begin; lock table embeddings in share mode").await;
    let mut process = connector.start();
    let end = "select coalesce(sum(end_offset), 0)::int8 from embedsink.offsets";
    process
        .until("the ends of a take", async |_| (one::<i64>(&client, end).await == 300).then_some(()))
        .await;
    topic.produce(&Generator::new(Random::new("more"), PLAIN).records(12_000));
    process.until("the new ends", async |_| (one::<i64>(&client, end).await == 12_300).then_some(())).await;
    run(&old, "rollback").await;
    let none = "select count(end_offset) from embedsink.offsets";
    process.until("no backlog", async |_| (one::<i64>(&client, none).await == 0).then_some(())).await;
    process.stop().await;
}
