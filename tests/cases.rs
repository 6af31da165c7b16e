//! Cases that have no better place: large batches, large records, servers that fail in a way of their own.

use std::time::Duration;

use serde_json::json;

use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{Database, one, run, settled};
use crate::support::record::Shape;
use crate::support::servers::{self, OwnServer};
use crate::support::stage::Stage;
use crate::support::turn::alone;
use crate::support::wait::until;

const PLAIN: Shape = Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 0, tombstones: 0, damaged: 0 };

/// The largest number of records whose rows one transaction wrote.
const LARGEST: &str = "select max(after - before) from audit.moves";

const MOVES: &str = "
create schema audit;
create table audit.moves (before bigint, after bigint);
create function audit.move() returns trigger language plpgsql as $$ begin
  insert into audit.moves values (old.next_offset, new.next_offset);
  return null;
end $$;
create trigger audit after update on embedsink.offsets for each row execute function audit.move();
";

async fn plain() -> (Connector, Database, Topic) {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    (Connector::new(&topic, &database, &PLAIN), database, topic)
}

#[tokio::test]
async fn a_batch_of_100_000_rows_is_written_in_one_transaction() {
    const ROWS: usize = 100_000;
    let _alone = alone().await;
    let (mut connector, database, topic) = plain().await;
    connector.more = format!("batch: {{max-rows: {ROWS}, max-bytes: 256MiB, max-wait: 60s, linger: 60s}}");
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, MOVES).await;
    let producer = TopicProducer::new(&topic);
    for number in 0..ROWS {
        let payload = json!({"id": format!("doc-{number}"), "text": "t", "embedding": [number, 1, 2], "source": "s",
                             "timestamp": number, "metadata": {"number": number}});
        producer.send(0, 0, None, Some(payload.to_string().as_bytes()));
    }
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, ROWS).await;
    process.stop().await;
    assert_eq!(one::<i64>(&client, LARGEST).await, ROWS as i64);
    let right = "select count(*) from embeddings where id = 'doc-' || (metadata->>'number') \
                 and (embedding::float4[])[1]::int = (metadata->>'number')::int";
    assert_eq!(one::<i64>(&client, right).await, ROWS as i64);
}

#[tokio::test]
async fn records_of_1_mb_are_written_in_batches_that_fit_into_memory() {
    const RECORDS: usize = 300;
    let _alone = alone().await;
    let (connector, database, topic) = plain().await;
    connector.migrate().await;
    let client = database.connect().await;
    run(&client, MOVES).await;
    let producer = TopicProducer::new(&topic);
    for number in 0..RECORDS {
        let text = format!("{number:08}").repeat(125_000);
        let payload = json!({"id": format!("doc-{number}"), "text": text, "embedding": [1, 2, 3]});
        producer.send(0, 0, None, Some(payload.to_string().as_bytes()));
    }
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, RECORDS).await;
    let peak = process.memory("VmHWM");
    process.stop().await;
    assert!(peak < 300_000, "at most {peak} KiB were resident");
    let whole = "select count(*) from embeddings where text = repeat(lpad(substr(id, 5), 8, '0'), 125000)";
    assert_eq!(one::<i64>(&client, whole).await, RECORDS as i64);
    let largest: i64 = one(&client, LARGEST).await;
    assert!(largest <= 8, "{largest} records of 1 MB in a batch of 8 MiB");
}

#[tokio::test]
async fn a_server_that_turns_read_only_under_load_and_back_loses_nothing() {
    let _alone = alone().await;
    let server = OwnServer::start("postgres", "read-only");
    let mut stage = Stage::on(server.port(), servers::kafka_port(), "read only", 40_000).await;
    let mut process = stage.connector.start();
    for left in (1..=2).rev() {
        let moment = stage.next_moment(left).await;
        process.settles(&stage.client, moment).await;
        run(&stage.client, "alter system set default_transaction_read_only = on").await;
        run(&stage.client, "select pg_reload_conf()").await;
        let read_only = "select current_setting('default_transaction_read_only')";
        until("the server to be read-only", async || {
            (one::<String>(&stage.client, read_only).await == "on").then_some(())
        })
        .await;
        let since = process.logged();
        // So that there is something to refuse, however much was settled meanwhile.
        stage.produce(2_000);
        process.logs_behind(since, 1, "read-only").await;
        run(&stage.client, "alter system reset default_transaction_read_only").await;
        run(&stage.client, "select pg_reload_conf()").await;
    }
    stage.finish(process).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_moves_nothing_and_loses_nothing() {
    let _alone = alone().await;
    let mut stage = Stage::new("disk full", 30_000).await;
    run(
        &stage.client,
        "create table disk_has_room ();
         create function fill() returns trigger language plpgsql as $$ begin
           if to_regclass('disk_is_full') is not null then
             raise exception 'could not extend file' using errcode = '53100';
           end if;
           return null;
         end $$;
         create trigger fill before insert on articles execute function fill();",
    )
    .await;
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;
    run(&stage.client, "alter table disk_has_room rename to disk_is_full").await;
    // So that there is something to refuse, however much was settled meanwhile.
    stage.produce(4_000);
    process.logs(8, "53100").await;
    let moves = "select count(*) from audit.moves";
    let before: i64 = one(&stage.client, moves).await;
    process.logs(12, "53100").await;
    assert_eq!(one::<i64>(&stage.client, moves).await, before, "nothing moves while nothing is written");
    stage.assert_consistent().await;
    run(&stage.client, "drop table disk_is_full").await;
    let text = stage.finish(process).await;
    assert!(text.contains("Free space on the server's disk"), "{text}");
    assert!(text.contains("the database can be written again"), "{text}");
    stage.assert_complete().await;
}

#[tokio::test]
async fn whichever_statement_fails_first_the_next_attempt_sends_the_whole_batch_again() {
    let _alone = alone().await;
    let stage = Stage::new("each statement fails", 10_000).await;
    // A sequence counts attempts that are rolled back, too.
    let mut faults = String::from(
        "create function fail() returns trigger language plpgsql as $$ begin
           if nextval(tg_argv[0]::regclass) in (1, 2, 5, 20) then
             raise exception 'another transaction came first' using errcode = tg_argv[1];
           end if;
           return null;
         end $$;",
    );
    for (number, (table, event, code)) in [
        ("embedsink.offsets", "update", "40001"),
        ("embeddings", "insert", "40P01"),
        ("articles", "insert", "55P03"),
        ("articles", "delete", "40001"),
        ("embedsink.dead_letters", "insert", "53200"),
    ]
    .iter()
    .enumerate()
    {
        faults.push_str(&format!(
            "create sequence attempts_{number};
             create trigger fail_{number} before {event} on {table} execute function fail('attempts_{number}', '{code}');"
        ));
    }
    // And the commit itself.
    faults.push_str(
        "create sequence commits;
         create constraint trigger fail after update on embedsink.offsets deferrable initially deferred
         for each row when (new.next_offset > old.next_offset) execute function fail('commits', '40001');",
    );
    run(&stage.client, &faults).await;
    let text = stage.finish(stage.connector.start()).await;
    for code in ["40001", "40P01", "55P03", "53200"] {
        assert!(text.contains(code), "{code} was met: {text}");
    }
    let commits: i64 = one(&stage.client, "select last_value from commits").await;
    assert!(commits > 5, "the commit failed as well");
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_column_that_gets_another_dimension_while_it_runs_stops_the_connector_before_it_rejects_the_topic()
{
    let (mut connector, database, topic) = plain().await;
    connector.more = "batch: {max-rows: 100, max-wait: 20ms}".to_owned();
    let client = database.connect().await;
    let send = |from: usize, to: usize| {
        let producer = TopicProducer::new(&topic);
        for number in from..to {
            let payload = json!({"id": format!("doc-{number}"), "embedding": [1, 2, 3]});
            producer.send(0, 0, None, Some(payload.to_string().as_bytes()));
        }
        producer.finish();
    };
    send(0, 10);
    let mut process = connector.start();
    process.settles(&client, 10).await;
    run(&client, "alter table embeddings alter column embedding type vector(2) using '[1, 2]'::vector(2)")
        .await;
    send(10, 5_000);
    let text = process.ends_with(1).await;
    assert!(text.contains("Has the embedding model changed"), "{text}");
    let kept: i64 = one(&client, "select count(*) from embedsink.dead_letters").await;
    assert!(kept < 2_000, "{kept} dead letters");
    assert_eq!(settled(&client).await, kept + 10, "what did not become a dead letter was not passed over");
    let text = connector.start().ends_with(78).await;
    assert!(text.contains("holds 2 dimensions, but 3 are configured"), "{text}");
}

#[tokio::test]
async fn a_stop_while_the_broker_is_away_ends_within_5_seconds() {
    let _alone = alone().await;
    let server = OwnServer::start("kafka", "away");
    let stage = Stage::on(servers::postgres_port(), server.port(), "broker away", 5_000).await;
    let mut process = stage.connector.start();
    process.settles(&stage.client, stage.log.len()).await;
    let killed = process.logged();
    server.stop("kill");
    process.logs_behind(killed, 1, "librdkafka").await;
    process.signal("TERM");
    process.ends_within(Duration::from_secs(5), 0).await;
    stage.assert_consistent().await;
}

#[tokio::test]
async fn timestamps_at_the_edges_are_kept_to_the_microsecond_and_those_beyond_become_dead_letters() {
    const KEPT: &[(&str, &str)] = &[
        ("\"0001-01-01T00:00:00Z\"", "0001-01-01 00:00:00"),
        ("-62135596800000", "0001-01-01 00:00:00"),
        ("\"9999-12-31T23:59:59.999999Z\"", "9999-12-31 23:59:59.999999"),
        ("253402300799999", "9999-12-31 23:59:59.999"),
        ("\"2024-03-31T02:30:00.000001+02:00\"", "2024-03-31 00:30:00.000001"),
        ("\"2024-06-30T23:59:60Z\"", "2024-06-30 23:59:59"),
        ("-1", "1969-12-31 23:59:59.999"),
    ];
    const REFUSED: &[&str] = &[
        "\"0000-12-31T23:59:59Z\"",
        "\"294277-01-01T00:00:00Z\"",
        "\"+294277-01-01T00:00:00Z\"",
        "\"-infinity\"",
        "\"infinity\"",
        "\"now\"",
        "\"2024-03-31T02:30:00\"",
        "253402300800000",
        "-62135596800001",
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
    ];
    let (mut connector, database, topic) = plain().await;
    connector.more = "errors: {max-ratio: 1}".to_owned();
    let client = database.connect().await;
    // Neither the session's time zone nor a clock that changes for the summer moves anything.
    run(&client, &format!("alter database {} set timezone = 'America/New_York'", database.name())).await;
    let producer = TopicProducer::new(&topic);
    let all = KEPT.iter().map(|(written, _)| *written).chain(REFUSED.iter().copied());
    for (number, timestamp) in all.enumerate() {
        let payload = format!(r#"{{"id": "{number}", "embedding": [1, 2, 3], "timestamp": {timestamp}}}"#);
        producer.send(0, 0, None, Some(payload.as_bytes()));
    }
    producer.finish();
    let mut process = connector.start();
    process.settles(&client, KEPT.len() + REFUSED.len()).await;
    process.stop().await;
    for (number, (written, kept)) in KEPT.iter().enumerate() {
        let sql =
            format!("select \"timestamp\" = '{kept}+00'::timestamptz from embeddings where id = '{number}'");
        assert!(one::<bool>(&client, &sql).await, "{written} is {kept}");
    }
    let refused = "select count(*) from embedsink.dead_letters where reason = 'bad_timestamp'";
    assert_eq!(one::<i64>(&client, refused).await, REFUSED.len() as i64);
}
