//! Rows that only Postgres refuses, and what else stands between a bad record and its dead letter: the
//! tolerance, the breaker, the dead-letter topic, and stale writes.

use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use crate::support::audit;
use crate::support::connector::Connector;
use crate::support::kafka::{LetterReader, Topic, TopicProducer};
use crate::support::model::assert_fold_of_all;
use crate::support::postgres::{Database, one, run};
use crate::support::random::Random;
use crate::support::record::{Generator, Outcome, Record, Shape};
use crate::support::turn::alone;

/// Every record has a key of its own, so none is overtaken.
const SINGLE: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 12)],
    partitions: 4,
    ids: 0,
    tombstones: 0,
    damaged: 3,
};

/// A trigger that refuses, each in its own way, what `is_poison` says of a record's place.
const POISON: &str = "
create function poison() returns trigger language plpgsql as $$
declare place bigint := (new.metadata->>'offset')::bigint * 7 + (new.metadata->>'partition')::bigint;
begin
  if place % 41 = 3 then raise exception 'no % here', new.text using errcode = '22023', constraint = new.id; end if;
  if place % 43 = 5 then raise exception 'no %', new.id; end if;
  if place % 47 = 7 then raise check_violation; end if;
  return new;
end $$;
create trigger poison before insert or update on embeddings for each row execute function poison();
create trigger poison before insert or update on articles for each row execute function poison();
";

fn is_poison(record: &Record) -> bool {
    let place = record.offset * 7 + i64::from(record.partition);
    place % 41 == 3 || place % 43 == 5 || place % 47 == 7
}

#[tokio::test]
async fn exactly_the_rows_that_postgres_refuses_become_dead_letters() {
    let _alone = alone().await;
    let mut log = Generator::new(Random::new("refused"), SINGLE).records(20_000);
    for record in &mut log {
        if matches!(record.outcome, Outcome::Row(_)) && is_poison(record) {
            record.outcome = Outcome::Dead("refused");
        }
    }
    let refused = log.iter().filter(|record| matches!(record.outcome, Outcome::Dead("refused"))).count();
    assert!(refused > 500, "{refused} are refused");
    let (database, topic) = (Database::create().await, Topic::create(SINGLE.partitions).await);
    topic.produce(&log);
    let connector = Connector::restless(&topic, &database, &SINGLE);
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, POISON).await;
    audit::install(&client, &SINGLE).await;

    let mut process = connector.start();
    process.settles(&client, log.len()).await;
    let text = process.stop().await;
    assert!(!text.contains("trying again"), "a refused row is no reason to try again: {text}");
    assert_fold_of_all(&client, &SINGLE, topic.name(), &log).await;
    audit::assert_exactly_once(&client, &topic.ends().unwrap()).await;
    let described = "select count(*) from embedsink.dead_letters where reason = 'refused' \
                     and sqlstate in ('22023', 'P0001', '23514') and table_name in ('embeddings', 'articles') \
                     and position(sqlstate in message) > 0 and message not like '%doc-%' \
                     and message not like '%text %' and tries = 1 and payload_bytes = length(payload)";
    assert_eq!(one::<i64>(&client, described).await, refused as i64);
}

#[tokio::test]
async fn with_tolerance_none_a_row_that_postgres_refuses_stops_the_connector_and_nothing_moves() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let producer = TopicProducer::new(&topic);
    for number in 0..20 {
        let payload = format!(r#"{{"id": "doc-{number}", "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}}"#);
        producer.send(0, 0, None, Some(payload.as_bytes()));
    }
    producer.finish();
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.more = "errors: {tolerance: none}".to_owned();
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, "alter table embeddings add constraint unwanted check (id <> 'doc-13')").await;

    let text = connector.start().ends_with(1).await;
    assert!(text.contains("offset 13") && text.contains("23514") && text.contains("unwanted"), "{text}");
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 0);
    assert_eq!(one::<i64>(&client, "select next_offset from embedsink.offsets").await, 0);
}

#[tokio::test]
async fn when_nearly_everything_is_rejected_the_connector_stops_and_asks_about_the_model() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let producer = TopicProducer::new(&topic);
    for number in 0..5_000 {
        let payload = format!(r#"{{"id": "doc-{number}", "embedding": [1, 2, 3]}}"#);
        producer.send(0, 0, None, Some(payload.as_bytes()));
    }
    producer.finish();
    let mut connector = Connector::restless(&topic, &database, &SINGLE);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("Has the embedding model changed") && text.contains("wrong_dimension"), "{text}");
    let client = database.connect().await;
    let kept: i64 = one(&client, "select count(*) from embedsink.dead_letters").await;
    assert!(kept < 1_000, "{kept} dead letters");
    assert_eq!(one::<i64>(&client, "select next_offset from embedsink.offsets").await, kept);

    connector.more.push_str("\nerrors: {max-ratio: 1}");
    let mut process = connector.start();
    process.settles(&client, 5_000).await;
    process.stop().await;
    assert_eq!(one::<i64>(&client, "select count(*) from embedsink.dead_letters").await, 5_000);
}

#[tokio::test]
async fn a_dead_letter_that_is_too_large_for_its_topic_comes_with_less_of_it() {
    let (database, topic, letters) =
        (Database::create().await, Topic::create(1).await, Topic::create(1).await);
    letters.remove().await;
    letters.make(&[("max.message.bytes", "4000")]).await;
    let large = vec![b'x'; 10_000];
    // Larger than the producer itself takes.
    let huge = vec![b'y'; 1_500_000];
    let producer = TopicProducer::new(&topic);
    let own = [("own", Some(&b"kept"[..]))];
    producer.send_with_headers(0, 0, Some(b"first"), Some(b"small"), &own);
    producer.send_with_headers(0, 0, Some(b"second"), Some(&large), &own);
    producer.send_with_headers(0, 0, Some(b"third"), Some(&huge), &own);
    producer.send_with_headers(0, 0, Some(&large), Some(&large), &own);
    producer.send_with_headers(0, 0, Some(b"fifth"), Some(b"small"), &[("large", Some(&large))]);
    producer.send_with_headers(0, 0, None, None, &[("large", Some(&large))]);
    producer.send_with_headers(0, 0, Some(b"last"), Some(b"small"), &own);
    producer.finish();
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.more = format!("errors: {{dead-letter-topic: {}}}", letters.name());
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 7).await;
    let text = process.stop().await;
    assert!(!text.contains("trying again"), "{text}");

    let mut reader = LetterReader::new(&letters, connector.name());
    let mut came = Vec::new();
    for _ in 0..7 {
        came.push(reader.next().await);
    }
    // One that is sent again comes behind those that were not.
    came.sort_by_key(|letter| LetterReader::told(letter, "__connect.errors.offset"));
    let omitted = |letter: &OwnedMessage| {
        ["payload", "key", "headers"]
            .map(|what| LetterReader::told(letter, &format!("__embedsink.{what}.omitted")))
    };
    let some = |text: &str| Some(text.to_owned());
    let wanted = [
        (Some("first"), Some("small"), "own", [None, None, None]),
        (Some("second"), None, "own", [some("10000"), None, None]),
        (Some("third"), None, "own", [some("1500000"), None, None]),
        (None, None, "", [some("10000"), some("10000"), some("1")]),
        (None, None, "", [some("5"), some("5"), some("1")]),
        (None, None, "", [None, None, some("1")]),
        (Some("last"), Some("small"), "own", [None, None, None]),
    ];
    for (offset, (letter, (key, payload, own, left_out))) in came.iter().zip(wanted).enumerate() {
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert_eq!(LetterReader::told(letter, "__connect.errors.offset"), Some(offset.to_string()));
        assert_eq!(text(letter.key()).as_deref(), key, "key of {offset}");
        assert_eq!(text(letter.payload()).as_deref(), payload, "payload of {offset}");
        assert_eq!(LetterReader::told(letter, "own").is_some(), own == "own", "headers of {offset}");
        assert_eq!(omitted(letter), left_out, "what is left out of {offset}");
    }
    let whole = "select count(*) from embedsink.dead_letters where payload_bytes is not distinct from length(payload)";
    assert_eq!(one::<i64>(&client, whole).await, 7, "the table keeps each whole");
}

#[tokio::test]
async fn a_dead_letter_topic_that_is_gone_for_a_while_is_waited_for() {
    let (database, topic, letters) =
        (Database::create().await, Topic::create(1).await, Topic::create(1).await);
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.more = format!("errors: {{dead-letter-topic: {}}}", letters.name());
    let client = database.connect().await;
    let send = |payload: &[u8]| {
        let producer = TopicProducer::new(&topic);
        producer.send(0, 0, Some(b"key"), Some(payload));
        producer.finish();
    };
    send(b"before");
    let mut process = connector.start();
    process.settles(&client, 1).await;
    letters.remove().await;
    send(b"while it is gone");
    process.logs(1, "trying again").await;
    letters.make(&[]).await;
    process.settles(&client, 2).await;
    let text = process.stop().await;
    assert!(text.contains(letters.name()) && text.contains("Create it"), "{text}");
    let letter = LetterReader::new(&letters, connector.name()).next().await;
    assert_eq!(letter.payload(), Some(&b"while it is gone"[..]));
}

#[tokio::test]
async fn a_dead_letter_keeps_any_timestamp_that_postgres_can_hold() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    topic.remove().await;
    // Brokers refuse what lies more than an hour ahead, unless a topic allows it.
    topic.make(&[("message.timestamp.after.max.ms", "9223372036854775807")]).await;
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.more = "errors: {max-ratio: 1}".to_owned();
    let client = database.connect().await;
    // A client takes 0 for now, and a broker takes nothing below.
    const STAMPS: &[(i64, Option<&str>)] = &[
        (1, Some("1970-01-01 00:00:00.001+00")),
        (253_402_300_799_999, Some("9999-12-31 23:59:59.999+00")),
        (253_402_300_800_000, Some("10000-01-01 00:00:00+00")),
        (9_224_318_015_999_999, Some("294276-12-31 23:59:59.999+00")),
        (9_224_318_016_000_000, None),
        (i64::MAX, None),
    ];
    let producer = TopicProducer::new(&topic);
    for (stamp, _) in STAMPS {
        producer.send(0, *stamp, None, Some(b"no JSON"));
    }
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, STAMPS.len()).await;
    process.stop().await;
    for (offset, (stamp, wanted)) in STAMPS.iter().enumerate() {
        let wanted = wanted.map_or("null".to_owned(), |text| format!("'{text}'"));
        let kept = format!(
            "select record_timestamp is not distinct from {wanted}::timestamptz from embedsink.dead_letters \
             where \"offset\" = {offset}"
        );
        assert!(one::<bool>(&client, &kept).await, "{stamp}");
    }
    // Those that people cannot be shown do not end the list.
    connector.run(&["dlq", "list", "--config", &connector.path()]).outputs().await;
    connector.run(&["dlq", "show", "--config", &connector.path(), "4"]).outputs().await;
}

#[tokio::test]
async fn a_dead_letter_is_on_its_topic_with_its_headers_before_the_position_moves() {
    let (database, topic, letters) =
        (Database::create().await, Topic::create(1).await, Topic::create(1).await);
    let producer = TopicProducer::new(&topic);
    let headers = [("traceparent", Some(&b"00-af-01"[..])), ("binary", Some(b"\xff\0")), ("none", None)];
    producer.send_with_headers(0, 1_700_000_000_000, Some(b"key"), Some(b"no JSON"), &headers);
    producer.send(0, 0, Some(b"refused"), Some(br#"{"embedding": [1, 2, 3, 4, 5, 6, 7, 8]}"#));
    producer.finish();
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.more = "errors: {dead-letter-topic: embedsink-there-is-no-such-topic}".to_owned();
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, "alter table embeddings add constraint unwanted check (id <> 'refused')").await;
    let text = connector.start().ends_with(78).await;
    assert!(text.contains("embedsink-there-is-no-such-topic") && text.contains("Create it"), "{text}");
    assert_eq!(one::<i64>(&client, "select count(*) from embedsink.dead_letters").await, 0);
    assert_eq!(one::<i64>(&client, "select count(*) from embedsink.offsets").await, 0);

    connector.more = format!("errors: {{dead-letter-topic: {}}}", letters.name());
    let mut process = connector.start();
    process.settles(&client, 2).await;
    process.stop().await;

    let kept = "select headers::text from embedsink.dead_letters where \"offset\" = 0";
    assert_eq!(
        one::<String>(&client, kept).await,
        r#"[{"name": "traceparent", "value": "00-af-01"}, {"name": "binary", "base64": "/wA="}, {"name": "none", "value": null}]"#
    );
    let mut reader = LetterReader::new(&letters, connector.name());
    let (first, second) = (reader.next().await, reader.next().await);
    assert_eq!((first.key(), first.payload()), (Some(&b"key"[..]), Some(&b"no JSON"[..])));
    assert_eq!(LetterReader::told(&first, "traceparent").as_deref(), Some("00-af-01"));
    for (name, wanted) in [
        ("topic", topic.name()),
        ("partition", "0"),
        ("offset", "0"),
        ("connector.name", connector.name()),
        ("stage", "VALUE_CONVERTER"),
        ("exception.class.name", "bad_json"),
    ] {
        assert_eq!(
            LetterReader::told(&first, &format!("__connect.errors.{name}")).as_deref(),
            Some(wanted),
            "{name}"
        );
    }
    assert_eq!(second.key(), Some(&b"refused"[..]));
    assert_eq!(LetterReader::told(&second, "__connect.errors.stage").as_deref(), Some("TASK_PUT"));
    let message = LetterReader::told(&second, "__connect.errors.exception.message").unwrap();
    assert!(message.contains("23514") && message.contains("unwanted"), "{message}");
}

#[tokio::test]
async fn where_stale_writes_are_skipped_a_newer_row_stays_whatever_comes_later_in_the_log() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let mut connector = Connector::new(&topic, &database, &SINGLE);
    connector.tables =
        "embeddings: {dimensions: 8, stale-writes: skip}\narticles: {dimensions: 12}".to_owned();
    let client = database.connect().await;
    let send = |records: &[(&str, &str, Option<i64>)]| {
        let producer = TopicProducer::new(&topic);
        for (id, text, seconds) in records {
            let row = |seconds: i64| {
                format!(
                    r#"{{"text": "{text}", "timestamp": {}, "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}}"#,
                    seconds * 1_000
                )
            };
            // A tombstone is as old as its record.
            let (stamp, payload) = match (*text, seconds) {
                ("delete", seconds) => (seconds.unwrap() * 1_000, None),
                (_, seconds) => (0, seconds.map(row)),
            };
            producer.send(0, stamp, Some(id.as_bytes()), payload.as_deref().map(str::as_bytes));
        }
        producer.finish();
    };
    send(&[
        ("a", "newer", Some(20)),
        ("a", "older", Some(10)),
        ("b", "gone", Some(10)),
        ("b", "delete", Some(20)),
        ("c", "stays", Some(20)),
    ]);
    let mut process = connector.start();
    process.settles(&client, 5).await;
    // What is in the table counts as what is in the batch does. What was overtaken within a batch is not stale.
    send(&[
        ("a", "oldest", Some(5)),
        ("a", "delete", Some(15)),
        ("c", "delete", Some(19)),
        ("d", "new", Some(1)),
        ("c", "as old", Some(20)),
    ]);
    process.settles(&client, 10).await;
    let rows = "select string_agg(id || ' ' || text, ', ' order by id) from embeddings";
    assert_eq!(one::<String>(&client, rows).await, "a newer, c as old, d new");
    let text = process.stop().await;
    assert!(text.contains("stale=2"), "{text}");
}
