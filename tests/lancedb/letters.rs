//! Records that cannot be used.

use crate::stage::{MIXED, Stage};
use crate::support::kafka::Topic;
use crate::support::record::{Outcome, Record};

#[tokio::test]
async fn what_lancedb_cannot_hold_becomes_a_dead_letter_and_the_others_are_written() {
    let mut stage = Stage::new("timestamps", 0).await;
    let record = |offset, id: &str, timestamp: &str| Record {
        partition: 0,
        offset,
        timestamp: 1_700_000_000_000,
        key: Some(id.as_bytes().to_vec()),
        payload: Some(
            format!("{{\"timestamp\": \"{timestamp}\", \"embedding\": [1, 2, 3, 4, 5, 6, 7, 8]}}")
                .into_bytes(),
        ),
        outcome: Outcome::Open,
    };
    // PostgreSQL holds all of them.
    stage.log = vec![
        record(0, "good", "2026-01-01T00:00:00Z"),
        record(1, "late", "2263-01-01T00:00:00Z"),
        record(2, "early", "1676-01-01T00:00:00Z"),
        record(3, "good", "2262-04-11T00:00:00Z"),
    ];
    stage.topic.produce(&stage.log);
    stage.finish(stage.connector.start()).await;
    let rows = stage.rows().await;
    let ids: Vec<&str> = rows.keys().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids, ["good"]);
    let letters = stage.letters().await;
    assert_eq!(letters.keys().collect::<Vec<_>>(), [&(0, 1), &(0, 2)]);
    let letter = &letters[&(0, 1)];
    assert_eq!((letter.reason.as_str(), letter.table.as_deref()), ("bad_timestamp", Some(MIXED.tables[0].0)));
    assert_eq!((&letter.key, &letter.payload), (&stage.log[1].key, &stage.log[1].payload));
}

#[tokio::test]
async fn a_letter_keeps_the_headers_of_its_record() {
    let stage = Stage::new("headers", 0).await;
    let headers = rdkafka::message::OwnedHeaders::new()
        .insert(rdkafka::message::Header { key: "trace", value: Some("α") });
    produce(&stage.topic, headers);
    let mut process = stage.connector.start();
    stage.settles(&mut process, 1).await;
    process.stop().await;
    let letters = stage.letters().await;
    let headers = letters[&(0, 0)].headers.as_deref().map(|json| serde_json::from_str(json).unwrap());
    assert_eq!(headers, Some(serde_json::json!([{"name": "trace", "value": "α"}])));
    assert_eq!(letters[&(0, 0)].reason, "bad_json");
}

/// One record that is no JSON, in the first partition.
fn produce(topic: &Topic, headers: rdkafka::message::OwnedHeaders) {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let producer: BaseProducer = topic.config().create().unwrap();
    let record =
        BaseRecord::<str, str>::to(topic.name()).partition(0).key("k").payload("no").headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(crate::support::wait::PATIENCE).unwrap();
}
