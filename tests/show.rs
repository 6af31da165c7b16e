//! What is looked at before and beside a run: `embedsink config show`, `embedsink offsets show`.

use std::fs;

use serde_json::Value;

use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{Database, positions, run};
use crate::support::record::Shape;

const PLAIN: Shape =
    Shape { tables: &[("embeddings", 3)], partitions: 2, ids: 20, tombstones: 10, damaged: 0 };

async fn plain() -> (Connector, Database, Topic) {
    let (database, topic) = (Database::create().await, Topic::create(PLAIN.partitions).await);
    (Connector::restless(&topic, &database, &PLAIN), database, topic)
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_settings_in_force_are_a_configuration_again_and_hold_no_secret() {
    let (mut connector, _database, topic) = plain().await;
    connector.postgres.push_str("password: canary-password\nmigrate: manual");
    connector.write();
    let path = connector.path();
    let text = connector.run(&["config", "show", "--config", &path]).outputs().await;
    assert!(!text.contains("canary"), "{text}");
    for part in ["# password: hidden", "migrate: manual", "max-rows: 500", "max-bytes: 8MiB", topic.name()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let lines = || text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(':'));
    assert!(lines().all(|line| line.contains("  # ")), "each value has its origin: {text}");
    assert!(
        lines().any(|line| line.trim_start().starts_with("host: 127.0.0.1") && line.contains("url, line ")),
        "{text}"
    );
    fs::write(&path, &text).unwrap();
    let again = connector.run(&["config", "show", "--config", &path]).outputs().await;
    let without_origins = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split("  #").next().unwrap().trim_end().to_owned()).collect()
    };
    let (first, again): (Vec<String>, Vec<String>) = (without_origins(&text), without_origins(&again));
    let no_password = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !line.contains("password:") && !line.is_empty()).cloned().collect()
    };
    assert_eq!(no_password(&first), no_password(&again));
    connector.run(&["check", "--config", &path]).ends_with(0).await;

    let json = connector.run(&["config", "show", "--json", "--config", &path]).outputs().await;
    let rows = objects(&json).into_iter().find(|object| object["key"] == "embedsink.batch.max-rows").unwrap();
    assert_eq!((&rows["value"], &rows["from"]), (&500.into(), &"file".into()));
    let beside = |name: &str| objects(&json).into_iter().find(|object| object["key"] == name).unwrap();
    assert_eq!(
        (&beside("RUST_LOG")["value"], &beside("RUST_LOG")["from"]),
        (&"info".into(), &"environment".into())
    );
    assert!(text.contains("# RUST_LOG: info  "), "{text}");
    let socket = beside("FLUVIO_METRIC_CONNECTOR");
    assert!(socket["value"].as_str().unwrap().ends_with(".sock"), "{socket}");
    fs::write(&path, "meta: {name: docs}").unwrap();
    let process = connector.run(&["config", "show", "--config", &path]);
    assert!(process.ends_with(78).await.contains("embedsink"));
    connector.write();
    connector.run_to_closed_pipe(&["config", "show", "--config", &path]).ends_with(0).await;
}

#[tokio::test]
async fn stored_positions_are_shown_for_one_connector_or_for_all_with_select_rights_only() {
    let (mut connector, database, topic) = plain().await;
    connector.write();
    let path = connector.path();
    let show = |more: &[&str]| {
        let arguments: Vec<&str> =
            ["offsets", "show", "--config", &path].into_iter().chain(more.iter().copied()).collect();
        connector.run(&arguments)
    };
    let text = show(&[]).ends_with(78).await;
    assert!(text.contains("migration 0001_bookkeeping") && text.contains("embedsink migrate"), "{text}");
    connector.migrate().await;
    let text = show(&[]).outputs().await;
    assert!(text.contains("nothing is stored for the connector"), "{text}");
    assert!(show(&["--all"]).outputs().await.contains("no connector has taken"), "nobody has");

    let producer = TopicProducer::new(&topic);
    for number in 0..5 {
        producer.send(0, 1_700_000_000_000 + number, None, Some(br#"{"id": "a", "embedding": [1, 2, 3]}"#));
    }
    producer.finish();
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 5).await;
    process.stop().await;
    assert_eq!(positions(&client, topic.name()).await, [(0, 5), (1, 0)]);
    let other = "insert into embedsink.offsets (connector, topic, partition, next_offset, epoch) \
                 values ('another', E'odd\\x1b[31m', 7, 3, 9)";
    run(&client, other).await;

    let text = show(&[]).outputs().await;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("next offset") && text.contains("2023-11-14T22:13:20.004Z"), "{text}");
    let text = show(&["--all"]).outputs().await;
    assert!(text.contains("another") && text.contains("odd [31m"), "and no escape sequence: {text}");
    let stored = objects(&show(&["--json"]).outputs().await);
    assert_eq!(stored.len(), 2);
    assert_eq!((&stored[0]["next_offset"], &stored[0]["epoch"]), (&5.into(), &1.into()));
    assert_eq!(stored[0]["last_timestamp"], "2023-11-14T22:13:20.004Z");
    assert_eq!(stored[1]["last_timestamp"], Value::Null);
    assert_eq!(objects(&show(&["--json", "--all"]).outputs().await).len(), 3);
    run(&client, "update embedsink.offsets set next_offset = 2 where partition = 0").await;
    assert_eq!(objects(&show(&["--json"]).outputs().await)[0]["last_timestamp"], Value::Null, "set by hand");

    let role = format!("reader_{}", database.name());
    run(&client, &format!("create role {role} login")).await;
    connector.postgres = connector.postgres.replace("postgres@", &format!("{role}@"));
    connector.write();
    let show = || connector.run(&["offsets", "show", "--config", &path]);
    assert!(show().ends_with(78).await.contains("grant"), "what is missing is named");
    let grants = format!(
        "grant usage on schema embedsink to {role}; grant select on embedsink.migrations, embedsink.offsets to {role}"
    );
    run(&client, &grants).await;
    assert!(show().outputs().await.contains(topic.name()));
    run(&client, &format!("drop owned by {role}; drop role {role}")).await;
}
