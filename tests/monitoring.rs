//! The metrics socket and `embedsink status`, on a connector that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::support::connector::{Connector, Process};
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{self, Database};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::servers;
use crate::support::turn::alone;
use crate::support::wait::until;

const PLAIN: Shape =
    Shape { tables: &[("embeddings", 3)], partitions: 2, ids: 50, tombstones: 10, damaged: 10 };

/// Ends are told soon, so that a test need not wait.
const FREQUENT: &str =
    "properties: {session.timeout.ms: 6000, heartbeat.interval.ms: 300, statistics.interval.ms: 200}";

async fn plain() -> (Connector, Database, Topic) {
    let (database, topic) = (Database::create().await, Topic::create(PLAIN.partitions).await);
    let mut connector = Connector::new(&topic, &database, &PLAIN);
    connector.kafka.push_str(FREQUENT);
    (connector, database, topic)
}

/// What is served at `socket` now; `None` if nobody answers.
async fn document(socket: &Path) -> Option<Value> {
    let mut text = String::new();
    UnixStream::connect(socket).await.ok()?.read_to_string(&mut text).await.ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// Waits until `wanted` holds of the document, and returns that.
async fn until_told(process: &mut Process, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let socket = process.socket().to_owned();
    let told = process.until(what, async |_| {
        last = document(&socket).await;
        last.clone().filter(|document| wanted(document))
    });
    told.await
}

/// All that is behind, if it is known of every partition.
fn lag(document: &Value) -> Option<u64> {
    let lags = document["health"]["lag"].as_array().unwrap();
    assert_eq!(lags.len(), document["sink"]["partitions"].as_array().unwrap().len());
    if lags.len() < PLAIN.partitions as usize {
        return None;
    }
    lags.iter().map(|lag| lag["records"].as_u64()).sum()
}

/// Asks by the command. Returns what it says on standard output and on standard error.
async fn status(connector: &Connector, socket: &Path, options: &[&str], code: i32) -> (String, String) {
    let socket = socket.to_str().unwrap();
    let arguments: Vec<&str> = ["status", "--socket", socket].iter().chain(options).copied().collect();
    let process = connector.run(&arguments);
    let output = process.output().to_owned();
    let errors = process.ends_with(code).await;
    (fs::read_to_string(output).unwrap(), errors)
}

#[tokio::test]
async fn the_document_tells_all_that_was_done_and_nothing_of_what_was_written() {
    let (mut connector, database, topic) = plain().await;
    connector.postgres.push_str("password: canary-password\n");
    let log = Generator::new(Random::new("document"), PLAIN).records(500);
    topic.produce(&log);
    let producer = TopicProducer::new(&topic);
    producer.send(
        1,
        0,
        Some(b"canary-key"),
        Some(br#"{"embedding": [0.271828, 1, 2], "text": "canary-text"}"#),
    );
    producer.send(1, 0, Some(b"canary-key"), Some(b"canary-damage"));
    producer.finish();
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, log.len() + 2).await;
    let told = until_told(&mut process, "lag 0", |document| lag(document) == Some(0)).await;

    assert_eq!(told["health"]["phase"], "running");
    assert_eq!(told["health"]["reason"], "reading and writing");
    assert!(told["health"]["last_write"]["age_seconds"].as_f64().unwrap() < 60.0, "{told}");
    assert_eq!(told["health"]["last_error"], Value::Null);
    assert_eq!(told["consumer"]["records"], 502);
    assert_eq!(told["producer_connector"]["records"], 0);
    assert_eq!(told["producer_client"]["bytes"], 0);
    assert_eq!(told["smartmodules"], serde_json::json!({}));
    let sink = &told["sink"];
    assert_eq!((&sink["connector"], &sink["pid"]), (&connector.name().into(), &process.id().into()));
    assert_eq!((&sink["received"]["records"], &sink["settled"]["records"]), (&502.into(), &502.into()));
    assert_eq!(told["consumer"], sink["received"]);
    let by_reason = sink["dead_letters"]["by_reason"].as_object().unwrap();
    let dead: i64 = postgres::one(&client, "select count(*) from embedsink.dead_letters").await;
    assert_eq!(sink["dead_letters"]["total"], dead);
    assert_eq!(by_reason.values().map(|count| count.as_i64().unwrap()).sum::<i64>(), dead);
    let rows: i64 = postgres::one(&client, "select count(*) from embeddings").await;
    assert!(sink["rows"]["upserted"].as_i64().unwrap() >= rows, "{sink}");
    assert!(sink["batches"].as_u64().unwrap() >= 1, "{sink}");
    assert_eq!(sink["write_seconds"]["count"], sink["batches"]);
    assert_eq!(sink["batch_records"]["sum"], 502.0);
    assert_eq!(sink["record_age_seconds"]["count"], 502);
    assert_eq!(sink["partitions"].as_array().unwrap().len(), 2);
    assert!(sink["partitions"][0]["epoch"].as_i64().unwrap() >= 1, "{sink}");
    let offsets: i64 =
        sink["partitions"].as_array().unwrap().iter().map(|p| p["next_offset"].as_i64().unwrap()).sum();
    assert_eq!(offsets, 502);

    let socket = process.socket().to_owned();
    let found = fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket() && found.permissions().mode() & 0o7777 == 0o600);
    let table = status(&connector, &socket, &[], 0).await.0;
    for word in [connector.name(), "running for", "502 records", "upserted", "next offset", topic.name()] {
        assert!(table.contains(word), "{word} in {table}");
    }
    assert!(!table.contains('\x1b'), "no colours in a file: {table}");
    let json = status(&connector, &socket, &["--json"], 0).await.0;
    let served: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(served["sink"]["settled"], sink["settled"]);
    let metrics = status(&connector, &socket, &["--prometheus"], 0).await.0;
    let samples = parse_prometheus(&metrics);
    let plain = format!("{{connector=\"{}\"}}", connector.name());
    assert_eq!(samples[&format!("embedsink_settled_records_total{plain}")], 502.0);
    assert_eq!(samples[&format!("embedsink_batch_records_sum{plain}")], 502.0);
    assert_eq!(samples[&format!("embedsink_up{plain}")], 1.0);
    assert_eq!(samples.keys().filter(|name| name.starts_with("embedsink_partition_lag_records{")).count(), 2);
    for text in [&table, &json, &metrics, &told.to_string()] {
        assert!(!text.contains("canary") && !text.contains("271828"), "{text}");
    }

    process.stop().await;
    assert!(!socket.exists(), "it is removed at the end");
}

/// The samples of a text in the format of Prometheus, by name and labels.
///
/// # Panics
/// When a line is not as the format wants it: each family has its help, then its type, then its samples, in one
/// piece; no sample is there twice.
fn parse_prometheus(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line ends too");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.is_empty() && families.insert(name.to_owned()), "{line}");
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert!(name == family && kind.is_empty(), "{line}");
            assert!(["counter", "gauge", "summary"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            kind = of.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let name = sample.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
            assert!(
                suffix.is_empty() || (kind == "summary" && ["_sum", "_count"].contains(&suffix)),
                "{line}"
            );
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            check_labels(sample.strip_prefix(name).unwrap());
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} is there twice");
        }
    }
    samples
}

fn check_labels(labels: &str) {
    let mut rest = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()), "{labels}");
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (_, '\\') => assert!(matches!(letters.next().unwrap().1, '\\' | '"' | 'n'), "{labels}"),
                (at, '"') => break at,
                _ => {}
            }
        };
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back_is_told_by_phase_cause_and_exit_code() {
    let (mut connector, database, topic) = plain().await;
    let proxy = Proxy::before(servers::postgres_port()).await;
    proxy.set_away(true);
    connector.postgres =
        connector.postgres.replace(&format!(":{}/", database.port()), &format!(":{}/", proxy.port()));
    topic.produce(&Generator::new(Random::new("phases"), PLAIN).records(100));
    let mut process = connector.start();
    let socket = process.socket().to_owned();
    let told = until_told(&mut process, "retrying", |told| told["health"]["phase"] == "retrying").await;
    assert!(told["sink"]["retries"]["by_sqlstate"]["connection"].as_u64().unwrap() >= 1, "{told}");
    assert_eq!(told["health"]["reason"], told["health"]["last_error"]["text"]);
    assert_eq!((&told["health"]["last_write"], lag(&told)), (&Value::Null, None));
    let table = status(&connector, &socket, &[], 1).await.0;
    assert!(table.contains("retrying for") && table.contains("last error"), "{table}");
    let metrics = status(&connector, &socket, &["--prometheus"], 1).await.0;
    assert_eq!(
        parse_prometheus(&metrics)[&format!("embedsink_healthy{{connector=\"{}\"}}", connector.name())],
        0.0
    );

    proxy.set_away(false);
    until_told(&mut process, "running", |told| told["health"]["phase"] == "running" && lag(told) == Some(0))
        .await;
    status(&connector, &socket, &["--config", &connector.path()], 0).await;
    let client = database.connect().await;
    let backends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
                    and application_name like 'embedsink test-%'";
    assert!(postgres::one::<i64>(&client, backends).await > 0);
    let more = TopicProducer::new(&topic);
    for number in 0..4 {
        more.send(number % 2, 0, Some(b"a"), Some(br#"{"embedding": [1, 2, 3]}"#));
    }
    more.finish();
    let told = until_told(&mut process, "the rest", |told| told["sink"]["settled"]["records"] == 104).await;
    assert!(told["health"]["last_error"]["text"].is_string(), "what is over is still told: {told}");

    let refuse = "create function refuse() returns trigger language plpgsql as \
                  $$ begin raise exception 'not now' using errcode = '40001'; end $$; \
                  create trigger refuse before insert on embeddings for each row execute function refuse()";
    postgres::run(&client, refuse).await;
    let more = TopicProducer::new(&topic);
    more.send(0, 0, Some(b"a"), Some(br#"{"embedding": [1, 2, 4]}"#));
    more.finish();
    until_told(&mut process, "SQLSTATE 40001", |told| {
        told["health"]["phase"] == "retrying" && told["sink"]["retries"]["by_sqlstate"]["40001"].is_u64()
    })
    .await;
    postgres::run(&client, "drop trigger refuse on embeddings").await;
    until_told(&mut process, "running", |told| told["health"]["phase"] == "running" && lag(told) == Some(0))
        .await;
    process.stop().await;
}

#[tokio::test]
async fn a_database_slower_than_the_topic_is_told_as_paused_with_a_lag_that_grows_and_goes() {
    let _alone = alone().await;
    let (mut connector, database, topic) = plain().await;
    connector.more.push_str("batch: {max-bytes: 64KiB}");
    connector.migrate().await;
    let client = database.connect().await;
    postgres::run(&client, "begin; lock table embeddings in exclusive mode").await;
    let mut generator = Generator::new(Random::new("paused"), Shape { damaged: 0, ..PLAIN });
    topic.produce(&generator.records(20_000));
    let mut process = connector.start();
    let socket = process.socket().to_owned();
    until_told(&mut process, "paused", |told| told["health"]["phase"] == "paused").await;
    status(&connector, &socket, &[], 0).await;
    // Nothing is fetched any more, and yet it is told what comes.
    topic.produce(&generator.records(1_000));
    let told = until_told(&mut process, "the whole lag", |told| lag(told) == Some(21_000)).await;
    let buffer = &told["sink"]["buffer"];
    assert!(buffer["used_bytes"].as_u64().unwrap() > 0, "{buffer}");
    let limit = buffer["limit_bytes"].as_u64().unwrap();
    assert!(limit >= 5 * (64 << 10) && limit % (64 << 10) == 0, "room for five batches at least: {buffer}");
    postgres::run(&client, "commit").await;
    let told = until_told(&mut process, "lag 0", |told| lag(told) == Some(0)).await;
    assert_eq!(told["health"]["phase"], "running");

    postgres::run(&client, "begin; lock table embeddings in exclusive mode").await;
    topic.produce(&generator.records(1_000));
    until_told(&mut process, "a lag", |told| lag(told).is_some_and(|lag| lag > 0)).await;
    process.signal("TERM");
    let told = until_told(&mut process, "draining", |told| told["health"]["phase"] == "draining").await;
    assert_eq!(told["health"]["reason"], "asked to stop");
    postgres::run(&client, "commit").await;
    process.ends_with(0).await;
    assert!(!socket.exists(), "it is removed at the end");
}

#[tokio::test]
async fn of_two_connectors_with_one_socket_the_first_keeps_it_until_it_ends_and_both_write() {
    let (mut first, _first_database, _first_topic) = plain().await;
    let (mut second, database, topic) = plain().await;
    let socket = std::env::temp_dir().join(format!("es-both-{}.sock", std::process::id()));
    (first.socket, second.socket) = (Some(socket.clone()), Some(socket.clone()));
    let mut keeper = first.start();
    keeper.logs(1, "monitoring is served").await;
    let mut other = second.start();
    other.logs(1, "monitoring is not served: another process answers there").await;
    assert!(
        other.log().contains("FLUVIO_METRIC_CONNECTOR") && other.log().contains(socket.to_str().unwrap())
    );
    let log = Generator::new(Random::new("two"), PLAIN).records(50);
    topic.produce(&log);
    other.settles(&database.connect().await, log.len()).await;
    let (_, errors) = status(&second, &socket, &["--config", &second.path()], 3).await;
    assert!(
        errors.contains(&format!("the connector {} answers, not {}", first.name(), second.name())),
        "{errors}"
    );
    assert_eq!(document(&socket).await.unwrap()["sink"]["connector"], first.name());
    keeper.stop().await;
    other.logs(1, "monitoring is served").await;
    assert_eq!(document(&socket).await.unwrap()["sink"]["connector"], second.name());
    assert_eq!(other.lines_with("monitoring is not served:").len(), 1, "once, however often it is tried");

    fs::remove_file(&socket).unwrap();
    other.logs(2, "monitoring is served").await;
    assert_eq!(document(&socket).await.unwrap()["sink"]["connector"], second.name());
    assert_eq!(other.lines_with("the monitoring socket is gone from its path").len(), 1);
    // A hangup drains too, unless whoever runs the tests has them ignore it, as nohup does.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let hangup_is_ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    other.signal(if hangup_is_ignored { "TERM" } else { "HUP" });
    other.ends_with(0).await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_of_a_killed_connector_is_taken_and_a_file_in_its_place_is_left_alone() {
    let (mut connector, _database, _topic) = plain().await;
    let socket = std::env::temp_dir().join(format!("es-stale-{}.sock", std::process::id()));
    connector.socket = Some(socket.clone());
    let mut process = connector.start();
    process.logs(1, "monitoring is served").await;
    process.kill();
    let (_, errors) = status(&connector, &socket, &[], 3).await;
    assert!(errors.contains("no connector is running"), "{errors}");
    let mut process = connector.start();
    process.logs(1, "monitoring is served").await;
    process.stop().await;

    fs::write(&socket, "dear").unwrap();
    let mut process = connector.start();
    process.logs(1, "monitoring is not served: there is something there").await;
    process.logs(1, "partition begins").await;
    process.stop().await;
    assert_eq!(fs::read_to_string(&socket).unwrap(), "dear");
    fs::remove_file(&socket).unwrap();
}

#[tokio::test]
async fn status_says_who_does_not_answer_and_survives_a_reader_that_goes_away() {
    let (connector, _database, _topic) = plain().await;
    let socket = std::env::temp_dir().join(format!("es-nobody-{}.sock", std::process::id()));
    let (output, errors) = status(&connector, &socket, &[], 3).await;
    assert!(output.is_empty() && errors.contains("no connector is running"), "{output} {errors}");
    assert!(status(&connector, &socket, &["--json"], 3).await.0.is_empty());
    let (metrics, _) = status(&connector, &socket, &["--prometheus"], 3).await;
    assert!(metrics.ends_with("embedsink_up 0\n"), "{metrics}");
    let folder = std::env::temp_dir();
    assert!(status(&connector, &folder, &[], 3).await.1.contains("no socket"));
    status(&connector, &socket, &["--json", "--prometheus"], 2).await;
    status(&connector, &socket, &["--config", "no/such/file.yaml"], 78).await;

    let somebody = UnixListener::bind(&socket).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut client, _) = somebody.accept().unwrap();
        std::io::Write::write_all(&mut client, b"{\"consumer\": {}}").unwrap();
    });
    let (_, errors) = status(&connector, &socket, &[], 3).await;
    assert!(errors.contains("not embedsink"), "{errors}");
    answers.join().unwrap();
    fs::remove_file(&socket).unwrap();

    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    let arguments =
        ["status", "--watch", "1", "--prometheus", "--socket", process.socket().to_str().unwrap()];
    let watch = connector.run_to_closed_pipe(&arguments);
    assert!(!watch.ends_with(0).await.contains("panicked"));
    let watch = connector.run(&["status", "--watch", "1", "--socket", process.socket().to_str().unwrap()]);
    let output = watch.output().to_owned();
    until("two looks", async || {
        (fs::read_to_string(&output).unwrap().matches("running for").count() >= 2).then_some(())
    })
    .await;
    watch.signal("INT");
    watch.ends_with(0).await;
    process.stop().await;
}
