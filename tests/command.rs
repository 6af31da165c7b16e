//! The command line: what is said, and with which exit code.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::support::connector::{Connector, Process};
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::model::{assert_fold, assert_fold_of_all};
use crate::support::postgres::{self, Database, one, positions};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::stage::Stage;
use crate::support::turn::alone;
use crate::support::wait::until;

const PLAIN: Shape =
    Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 20, tombstones: 10, damaged: 0 };

async fn plain() -> (Connector, Database, Topic) {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    (Connector::restless(&topic, &database, &PLAIN), database, topic)
}

#[tokio::test]
async fn help_and_version_are_given() {
    let (connector, _database, _topic) = plain().await;
    let output = async |arguments: &[&str]| connector.run(arguments).outputs().await;
    let help = output(&["--help"]).await;
    for word in ["--config", "--secrets", "check", "status", "migrate", "SIGTERM", "78", "RUST_LOG"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert!(output(&["migrate", "--help"]).await.contains("--config"));
    assert_eq!(output(&["--version"]).await.trim(), concat!("embedsink ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_bad_configuration_is_told_in_full_and_opens_no_connection() {
    let (mut connector, _database, _topic) = plain().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = listener.local_addr().unwrap();
    connector.kafka =
        format!("bootstrap-servers: ['{here}']\nstrat: beginning\nproperties: {{group.id: mine}}");
    connector.postgres = format!("url: postgres://postgres@{here}/nothing");
    connector.tables = "embeddings: {dimensions: 0}".to_owned();
    connector.more = "batch: {max-rows: -1}\nerrors: {tolerance: some}".to_owned();
    let text = connector.start().ends_with(78).await;
    for word in ["strat", "start", "group.id", "dimensions", "max-rows", "tolerance"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(listener.accept().is_err(), "nobody has connected");

    let checked = connector.run(&["check", "--config", &connector.path()]).ends_with(78).await;
    assert!(checked.contains("max-rows"), "{checked}");
    let missing = connector.run(&["--config", "no/such/file.yaml"]).ends_with(78).await;
    assert!(missing.contains("no/such/file.yaml"), "{missing}");
}

#[tokio::test]
async fn check_says_what_is_configured_and_opens_no_connection() {
    let (mut connector, _database, _topic) = plain().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    connector.postgres = format!("url: postgres://postgres@{}/nothing", listener.local_addr().unwrap());
    connector.write();
    let text = connector.run(&["check", "--config", &connector.path()]).outputs().await;
    assert!(text.contains("is valid") && text.contains("embeddings(3)"), "{text}");
    assert!(listener.accept().is_err(), "nobody has connected");
}

#[tokio::test]
async fn no_command_minds_that_nobody_reads_what_it_prints_and_logs() {
    let (connector, database, topic) = plain().await;
    connector.migrate().await;
    let path = connector.path();
    let records = connector.file("records.jsonl");
    fs::write(&records, "{\"id\": \"a\", \"embedding\": [1, 2, 3]}\nno record\n").unwrap();
    let records = records.to_str().unwrap();
    for command in [
        &["write", records][..],
        &["check"],
        &["config", "show"],
        &["migrate"],
        &["offsets", "show"],
        &["query", "embeddings"],
        &["query", "embeddings", "--json"],
        &["dlq", "list", "--limit", "1"],
        &["dlq", "list", "--json"],
        &["dlq", "show", "1"],
        &["dlq", "replay", "--dry-run"],
        &["dlq", "purge", "--yes"],
    ] {
        let arguments: Vec<&str> = command.iter().copied().chain(["--config", &path]).collect();
        connector.run_to_closed_pipe(&arguments).ends_with(0).await;
        connector.run_to_nobody(&arguments).ends_with(0).await;
    }
    connector.run_to_nobody(&["check", "--config", "/nowhere"]).ends_with(78).await;
    connector.run_to_nobody(&["query", "nothing", "--config", &path]).ends_with(1).await;

    // Nor does the connector itself, and it drains.
    let producer = TopicProducer::new(&topic);
    producer.send(0, 0, None, Some(br#"{"id": "b", "embedding": [1, 2, 3]}"#));
    producer.finish();
    let client = database.connect().await;
    let mut process = connector.run_to_nobody(&["--config", &path]);
    let written = async |_: &Process| (positions(&client, topic.name()).await == [(0, 1)]).then_some(());
    process.until("the record to be written", written).await;
    process.stop().await;
}

#[tokio::test]
async fn migrate_makes_the_tables_and_may_be_repeated() {
    let (connector, database, _topic) = plain().await;
    connector.migrate().await;
    connector.migrate().await;
    let client = database.connect().await;
    assert_eq!(one::<i64>(&client, "select count(*) from embedsink.migrations").await, 2);
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 0);
}

#[tokio::test]
async fn with_manual_migration_nothing_is_changed_at_start() {
    let (mut connector, database, _topic) = plain().await;
    connector.postgres.push_str("migrate: manual");
    let text = connector.start().ends_with(78).await;
    assert!(text.contains("embedsink migrate"), "{text}");
    let made: bool = one(&database.connect().await, "select to_regnamespace('embedsink') is not null").await;
    assert!(!made, "nothing was made");
    connector.migrate().await;
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    process.stop().await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_bad_configuration() {
    let (mut connector, database, _topic) = plain().await;
    connector.postgres = connector.postgres.replace(database.name(), "no_such_database");
    let text = connector.start().ends_with(78).await;
    assert!(text.contains("no_such_database"), "{text}");
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_told() {
    let (mut connector, _database, _topic) = plain().await;
    connector.topic = "no-such-topic".to_owned();
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("there is no topic no-such-topic"), "{text}");
}

#[tokio::test]
async fn a_table_of_another_shape_is_a_bad_configuration() {
    let (connector, database, _topic) = plain().await;
    let client = database.connect().await;
    let table = "create extension vector; create table embeddings (id text primary key, text text, \
                 embedding vector(5), \"timestamp\" timestamptz, source text, metadata json)";
    postgres::run(&client, table).await;
    let text = connector.start().ends_with(78).await;
    assert!(text.contains("vector(5)") || text.contains('5'), "{text}");
    assert!(text.contains("alter table"), "the SQL that mends it: {text}");
    assert!(text.contains("metadata"), "every mismatch: {text}");
}

#[tokio::test]
async fn a_foreign_key_between_two_target_tables_is_a_bad_configuration() {
    let (mut connector, database, _topic) = plain().await;
    connector.tables.push_str("\narticles: {dimensions: 3}");
    connector.migrate().await;
    let client = database.connect().await;
    let key = "alter table articles add constraint of_source foreign key (source) references embeddings \
               deferrable initially deferred";
    postgres::run(&client, key).await;
    let text = connector.start().ends_with(78).await;
    for part in ["of_source", "leads to", "not in the order the rows came in", "drop constraint"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let path = connector.path();
    for command in [&["migrate"][..], &["dlq", "replay"]] {
        let arguments: Vec<&str> = command.iter().copied().chain(["--config", &path]).collect();
        assert!(connector.run(&arguments).ends_with(78).await.contains("of_source"), "{command:?}");
    }
    postgres::run(&client, "alter table articles drop constraint of_source").await;
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    process.stop().await;
}

#[tokio::test]
async fn with_tolerance_none_the_first_bad_record_stops_it_and_what_came_before_is_written() {
    let (mut connector, database, topic) = plain().await;
    connector.more.push_str("\nerrors: {tolerance: none}");
    let mut generator = Generator::new(Random::new("tolerance none"), PLAIN);
    let mut log = generator.records(1_234);
    generator.shape.damaged = 100;
    generator.shape.tombstones = 0;
    log.extend(generator.records(1));
    generator.shape.damaged = 0;
    log.extend(generator.records(500));
    topic.produce(&log);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("[0] offset 1234 cannot be used"), "{text}");
    let client = database.connect().await;
    assert_eq!(positions(&client, topic.name()).await, [(0, 1234)]);
    assert_fold(&client, &PLAIN, topic.name(), &log, &[(0, 1234)]).await;
    assert!(connector.start().ends_with(1).await.contains("offset 1234"), "and so does the next start");
}

#[tokio::test]
async fn a_second_sigterm_gives_up_what_cannot_be_drained() {
    let _alone = alone().await;
    let mut stage = Stage::new("second SIGTERM", 30_000).await;
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;
    let locker = stage.database.connect().await;
    postgres::run(&locker, "begin; lock table embeddings in exclusive mode").await;
    waits_for_the_lock(&locker).await;
    process.signal("TERM");
    process.logs(1, "stopping").await;
    process.signal("TERM");
    let text = process.ends_within(Duration::from_secs(5), 1).await;
    assert!(text.contains("second signal"), "{text}");
    postgres::run(&locker, "commit").await;
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_drain_that_cannot_finish_ends_at_the_deadline_with_a_failure() {
    let _alone = alone().await;
    let mut stage = Stage::new("deadline", 30_000).await;
    stage.connector.more.push_str("\nshutdown-timeout: 2s");
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;
    let locker = stage.database.connect().await;
    postgres::run(&locker, "begin; lock table embeddings in exclusive mode").await;
    waits_for_the_lock(&locker).await;
    process.signal("TERM");
    let text = process.ends_within(Duration::from_secs(10), 1).await;
    assert!(text.contains("shutdown-timeout passed"), "{text}");
    postgres::run(&locker, "commit").await;
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}

async fn waits_for_the_lock(client: &tokio_postgres::Client) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    until("a write to wait for the lock", async || (one::<i64>(client, sql).await > 0).then_some(())).await;
}

#[tokio::test]
async fn the_reference_configuration_runs_as_it_stands() {
    let (connector, database, topic) = plain().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = fs::read_to_string(root.join("connector.yaml")).unwrap();
    // Its servers and names; all else as it is.
    let yaml = reference
        .replace("localhost:9092", topic.broker())
        .replace("postgres://postgres@localhost:5432/embeddings_db", &database.url())
        .replace("name: docs", &format!("name: {}", connector.name()))
        .replace("topic: embeddings", &format!("topic: {}", topic.name()));
    fs::write(connector.path(), &yaml).unwrap();
    let shape = Shape { tables: &[("embeddings", 384)], ..PLAIN };
    let log = Generator::new(Random::new("reference"), shape).records(10);
    topic.produce(&log);
    let mut process = connector.run(&["--config", &connector.path()]);
    let client = database.connect().await;
    process.settles(&client, 10).await;
    process.stop().await;
    assert_fold_of_all(&client, &shape, topic.name(), &log).await;
}

#[tokio::test]
async fn no_secret_key_or_payload_is_ever_logged() {
    let (mut connector, database, topic) = plain().await;
    connector.log = "info,embedsink=trace,sink_postgres_vector=trace";
    connector.postgres.push_str("password: canary-password-7");
    let producer = TopicProducer::new(&topic);
    let good = br#"{"text": "canary-text-1", "embedding": [0.271828, 1, 2], "source": "canary-source-2",
                    "metadata": {"canary-key-3": "canary-value-4"}}"#;
    let bad: [&[u8]; 4] = [
        br#"{"id": "canary-id-5", "embedding": [0.271828, canary-6]}"#,
        br#"canary-payload-8"#,
        br#"{"id": "a", "embedding": [1, 2, 3], "table_name": "canary-table-9", "timestamp": "canary-time-10"}"#,
        br#"{"id": "a", "embedding": [1, 2, 3], "table_name": "canary-table-9"}"#,
    ];
    producer.send(0, 0, Some(b"canary-key-11"), Some(good));
    for payload in bad {
        producer.send(0, 0, Some(b"canary-key-12"), Some(payload));
    }
    producer.send(0, 0, Some(b"canary-key-11"), None);
    producer.finish();
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 6).await;
    let mut text = process.stop().await;
    // An error of the server's that quotes the row.
    let refuse = "alter table embeddings add constraint refuse check (text is null)";
    postgres::run(&client, refuse).await;
    let producer = TopicProducer::new(&topic);
    producer.send(0, 0, Some(b"canary-key-11"), Some(good));
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, 7).await;
    text.push_str(&process.stop().await);
    let told = "select string_agg(message, ' ') from embedsink.dead_letters";
    let messages: String = postgres::one(&client, told).await;
    assert!(messages.contains("23514") && messages.contains("constraint refuse"), "{messages}");
    text.push_str(&messages);
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains("0.271828"), "{text}");
}
