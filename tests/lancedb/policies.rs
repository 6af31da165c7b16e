//! What a configuration may ask for beyond the defaults: it means what it means with PostgreSQL.

use rdkafka::Message;

use crate::stage::Stage;
use crate::support::kafka::{LetterReader, Topic, TopicProducer};

const EMBEDDING: &str = "[1, 2, 3, 4, 5, 6, 7, 8]";

#[tokio::test]
async fn where_stale_writes_are_skipped_a_newer_row_stays_whatever_comes_later_in_the_log() {
    let mut stage = Stage::new("stale writes", 0).await;
    stage.connector.tables =
        "embeddings: {dimensions: 8, stale-writes: skip}\narticles: {dimensions: 12}".to_owned();
    // What is sent together is written together.
    stage.connector.more = "batch: {linger: 500ms}".to_owned();
    let send = |records: &[(&str, Option<&str>, i64)]| {
        let producer = TopicProducer::new(&stage.topic);
        for (id, text, millis) in records {
            let row =
                |text| format!(r#"{{"text": "{text}", "timestamp": {millis}, "embedding": {EMBEDDING}}}"#);
            // A tombstone is as old as its record.
            let payload = text.map(row);
            producer.send(0, *millis, Some(id.as_bytes()), payload.as_deref().map(str::as_bytes));
        }
        producer.finish();
    };
    send(&[
        ("a", Some("newer"), 20),
        ("a", Some("older"), 10),
        ("b", Some("gone"), 10),
        ("b", None, 20),
        ("c", Some("stays"), 20),
    ]);
    let mut process = stage.connector.start();
    stage.settles(&mut process, 5).await;
    // What is in the table counts as what is in the batch does.
    send(&[
        ("a", Some("oldest"), 5),
        ("a", None, 15),
        ("c", None, 19),
        ("d", Some("new"), 1),
        ("c", Some("as old"), 20),
    ]);
    stage.settles(&mut process, 10).await;
    let text = process.stop().await;
    assert!(text.contains("stale=2"), "what was overtaken within a batch is not stale: {text}");
    let rows = stage.rows().await;
    let rows: Vec<_> =
        rows.iter().map(|((_, id), row)| (id.as_str(), row.text.as_deref().unwrap())).collect();
    assert_eq!(rows, [("a", "newer"), ("c", "as old"), ("d", "new")]);
}

#[tokio::test]
async fn with_tolerance_none_the_first_bad_record_stops_it_and_what_came_before_is_written() {
    let mut stage = Stage::new("no tolerance", 0).await;
    stage.connector.more.push_str("\nerrors: {tolerance: none}");
    let producer = TopicProducer::new(&stage.topic);
    let send = |id: usize, payload: &str| {
        producer.send(0, 1_700_000_000_000, Some(format!("k{id}").as_bytes()), Some(payload.as_bytes()));
    };
    let good = format!("{{\"embedding\": {EMBEDDING}}}");
    (0..1_234).for_each(|id| send(id, &good));
    send(1_234, "no JSON");
    (1_235..1_500).for_each(|id| send(id, &good));
    producer.finish();
    for _ in 0..2 {
        let text = stage.connector.start().ends_with(1).await;
        assert!(text.contains("[0] offset 1234 cannot be used"), "{text}");
        assert_eq!(stage.positions().await.get(&0), Some(&1_234));
        assert_eq!((stage.rows().await.len(), stage.letters().await.len()), (1_234, 0));
    }
}

#[tokio::test]
async fn a_dead_letter_is_on_its_topic_as_well_and_without_that_topic_nothing_is_written() {
    let (mut stage, letters) = (Stage::new("letters' topic", 0).await, Topic::create(1).await);
    let producer = TopicProducer::new(&stage.topic);
    let headers = [("traceparent", Some(&b"00-af-01"[..]))];
    producer.send_with_headers(0, 1_700_000_000_000, Some(b"key"), Some(b"no JSON"), &headers);
    producer.finish();
    stage.connector.more = "errors: {dead-letter-topic: embedsink-there-is-no-such-topic}".to_owned();
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("embedsink-there-is-no-such-topic") && text.contains("Create it"), "{text}");
    assert_eq!((stage.settled().await, stage.letters().await.len()), (0, 0));

    stage.connector.more = format!("errors: {{dead-letter-topic: {}}}", letters.name());
    let mut process = stage.connector.start();
    stage.settles(&mut process, 1).await;
    process.stop().await;
    assert_eq!(stage.letters().await[&(0, 0)].reason, "bad_json");
    let mut reader = LetterReader::new(&letters, stage.connector.name());
    let letter = reader.next().await;
    assert_eq!((letter.key(), letter.payload()), (Some(&b"key"[..]), Some(&b"no JSON"[..])));
    for (name, wanted) in [
        ("traceparent", "00-af-01"),
        ("__connect.errors.topic", stage.topic.name()),
        ("__connect.errors.offset", "0"),
        ("__connect.errors.exception.class.name", "bad_json"),
    ] {
        assert_eq!(LetterReader::told(&letter, name).as_deref(), Some(wanted), "{name}");
    }
}

#[tokio::test]
async fn partitions_that_a_topic_gets_while_it_is_read_are_read_from_their_beginning() {
    let mut stage = Stage::new("late partitions", 2_000).await;
    let soon = "heartbeat.interval.ms: 300, topic.metadata.refresh.interval.ms: 300";
    stage.connector.kafka = stage.connector.kafka.replace("heartbeat.interval.ms: 300", soon);
    let mut process = stage.connector.start();
    stage.settles(&mut process, 2_000).await;
    stage.topic.grow(6).await;
    stage.generator.grow(6);
    stage.produce(1_000);
    let text = stage.finish(process).await;
    assert!(text.contains("[5] offset=0 origin="), "{text}");
    assert_eq!(stage.positions().await.len(), 6);
    stage.assert_complete().await;
}
