//! Promise 6: no secret, payload or vector appears in a log line, an error text or a metric.
//!
//! Everything that is secret, or of a record, holds the same rare word, or is a number with rare digits. Every
//! kind of failure is then forced with everything logged that can be logged.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use tokio_postgres::Client;

use crate::support::connector::{Connector, Process};
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{self, Database, one, settled};
use crate::support::record::Shape;
use crate::support::wait::until;

const PLAIN: Shape = Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 0, tombstones: 0, damaged: 0 };

/// What must not appear: the word as text, as bytes in decimal and in hexadecimal digits, and the number.
const CANARIES: [&str; 4] = ["c4nary", "99, 52, 110, 97, 114, 121", "63346e617279", "0.27182845"];

const SECRETS: &str = "POSTGRES_PASSWORD=c4nary-password\nKAFKA_PASSWORD=c4nary-sasl\nNUMBER=c4nary-7\n";

const DECLARED: &str = "secrets: [{name: POSTGRES_PASSWORD}, {name: KAFKA_PASSWORD}, {name: NUMBER}]";

/// Tells all that it knows of a row, in every way that a trigger has.
const TELLTALE: &str = "
create function tell() returns trigger language plpgsql as $$ begin
  raise notice 'saw %', new;
  raise warning 'saw %', new using detail = new.text, hint = new.id, constraint = new.text;
  if new.source like 'c4nary P0001%' then
    raise exception 'no %', new using errcode = 'P0001', detail = new.text, hint = new.id, constraint = new.text,
      table = new.id, column = new.source, datatype = new.text, schema = new.id;
  end if;
  if new.source like 'c4nary 53100%' then
    raise exception 'no %', new using errcode = '53100', detail = new.text, hint = new.id, constraint = new.text,
      table = new.id, column = new.source, datatype = new.text, schema = new.id;
  end if;
  return new;
end $$;
create trigger tell before insert or update on embeddings for each row execute function tell();
alter table embeddings add constraint not_this check (source <> 'c4nary check');
alter table embeddings add number int generated always as (case when source = 'c4nary 22P02' then text::int end) stored;
create unique index one_text on embeddings (text);
";

/// A payload for each reason for which a record is rejected before it is written.
const BAD: &[&[u8]] = &[
    b"c4nary no JSON",
    b"{\"id\": \"c4nary\", \"c4nary\": c4nary}",
    b"\0\0\0\0\x01c4nary",
    b"{\"id\": \"c4nary \xff\", \"embedding\": [1, 2, 3]}",
    b"{\"id\": \"\", \"text\": \"c4nary\", \"embedding\": [1, 2, 3]}",
    b"{\"id\": [\"c4nary\"], \"embedding\": [1, 2, 3]}",
    b"{\"id\": \"c4nary\", \"text\": \"c4nary\"}",
    b"{\"id\": \"c4nary\", \"embedding\": [0.2718284590, \"c4nary\"]}",
    b"{\"id\": \"c4nary\", \"embedding\": [0.2718284590]}",
    b"{\"id\": \"c4nary\", \"embedding\": [0.2718284590, 0.2718284590e99, 1]}",
    b"{\"id\": \"c4nary\", \"embedding\": [0.2718284590, NaN, 1]}",
    b"{\"id\": \"c4nary\", \"embedding\": [1, 2, 3], \"timestamp\": \"c4nary\"}",
    b"{\"id\": \"c4nary\", \"embedding\": [1, 2, 3], \"metadata\": [\"c4nary\"]}",
    b"{\"id\": \"c4nary\", \"embedding\": [1, 2, 3], \"metadata\": {\"c4nary\": \"\\ud800\"}}",
    b"{\"id\": \"c4nary\", \"embedding\": [1, 2, 3], \"text\": {\"c4nary\": 1}}",
    b"{\"id\": \"c4nary\\u0000\", \"embedding\": [1, 2, 3]}",
    b"{\"id\": \"c4nary\", \"embedding\": [1, 2, 3], \"table_name\": \"c4nary\"}",
];

/// A row that is good until Postgres sees it.
fn row(id: &str, source: &str) -> String {
    format!(
        r#"{{"id": "c4nary {id}", "text": "c4nary text {id}", "embedding": [0.27182845, -0.27182845, 1],
            "source": "c4nary {source}", "metadata": {{"c4nary key": "c4nary value"}}}}"#
    )
}

/// A connector whose secrets are all canaries, and the file they stand in.
fn connector(topic: &Topic, database: &Database) -> (Connector, String) {
    let mut connector = Connector::restless(topic, database, &PLAIN);
    connector.log = "trace";
    connector.meta = DECLARED.to_owned();
    connector.postgres.push_str("password: ${{ secrets.POSTGRES_PASSWORD }}\n");
    connector.kafka = connector.kafka.replace(
        "properties: {",
        "properties: {sasl.username: c4nary-user, sasl.password: \"${{ secrets.KAFKA_PASSWORD }}\", \
         ssl.key.password: c4nary-key, client.rack: c4nary-rack, ",
    );
    connector.more.push_str("\nerrors: {max-ratio: 1}");
    let secrets = PathBuf::from(connector.path()).with_file_name("secrets.txt");
    fs::write(&secrets, SECRETS).unwrap();
    (connector, secrets.to_str().unwrap().to_owned())
}

fn start(connector: &Connector, secrets: &str) -> Process {
    connector.write();
    connector.run(&["--config", &connector.path(), "--secrets", secrets])
}

#[track_caller]
fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        let told: Vec<&str> = text.lines().filter(|line| line.contains(canary)).take(5).collect();
        assert!(told.is_empty(), "{what} tells {canary}: {told:#?}");
    }
}

fn send(topic: &Topic, payloads: &[&[u8]]) {
    let producer = TopicProducer::new(topic);
    for payload in payloads {
        let headers = [("c4nary-header", Some(&b"c4nary"[..]))];
        producer.send_with_headers(0, 0, Some(b"c4nary-key"), Some(payload), &headers);
    }
    producer.finish();
}

async fn terminate_backends(client: &Client) {
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'embedsink %' \
               and application_name <> 'embedsink tests' and datname = current_database()";
    until("a session of the connector's", async || (one::<i64>(client, sql).await > 0).then_some(())).await;
}

#[tokio::test]
async fn with_everything_logged_no_failure_tells_a_secret_or_a_value_of_a_record() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let (connector, secrets) = connector(&topic, &database);
    connector.write();
    connector.run(&["migrate", "--config", &connector.path(), "--secrets", &secrets]).ends_with(0).await;
    let client = database.connect().await;
    postgres::run(&client, TELLTALE).await;
    let mut process = start(&connector, &secrets);

    // What is good, what is bad by itself, a tombstone, and one without any key.
    send(&topic, &[row("good", "good").as_bytes()]);
    send(&topic, BAD);
    let producer = TopicProducer::new(&topic);
    producer.send(0, 0, Some(b"c4nary-gone"), None);
    producer.send(0, 0, None, Some(b"{\"text\": \"c4nary\", \"embedding\": [1, 2, 3]}"));
    producer.send(0, 0, Some(b"c4nary\xff"), Some(b"{\"text\": \"c4nary\", \"embedding\": [1, 2, 3]}"));
    let long = format!("{{\"id\": \"{}\", \"embedding\": [1, 2, 3]}}", "c4nary".repeat(50));
    producer.send(0, 0, None, Some(long.as_bytes()));
    let long = row("x", &"long".repeat(100));
    producer.send(0, 0, None, Some(long.as_bytes()));
    producer.finish();
    let bad = BAD.len() as i64 + 6;
    process.settles(&client, bad as usize).await;

    // What Postgres refuses: by a check, a second key, a type, a trigger.
    let refused = [row("1", "check"), row("2", "22P02"), row("3", "P0001"), row("4", "P0001")];
    let mut payloads: Vec<&[u8]> = refused.iter().map(String::as_bytes).collect();
    let twice = row("5", "good").replace("c4nary text 5", "c4nary text good");
    payloads.push(twice.as_bytes());
    send(&topic, &payloads);
    process.settles(&client, bad as usize + payloads.len()).await;
    let dead = "select count(*) from embedsink.dead_letters where sqlstate is not null";
    assert_eq!(one::<i64>(&client, dead).await, payloads.len() as i64, "each was refused");

    // What holds it up: a session that is terminated, a lock, a disk that is full as long as a trigger says so.
    terminate_backends(&client).await;
    postgres::run(&client, "begin; lock table embeddings in exclusive mode").await;
    send(&topic, &[row("locked", "locked").as_bytes()]);
    process.logs(1, "a lock was not free in time").await;
    postgres::run(&client, "commit").await;
    let before = settled(&client).await;
    send(&topic, &[row("full", "53100").as_bytes()]);
    process.logs(1, "53100").await;
    let socket = process.socket().to_str().unwrap().to_owned();
    for form in [None, Some("--json"), Some("--prometheus")] {
        let arguments: Vec<&str> = ["status", "--socket", &socket].into_iter().chain(form).collect();
        let asked = connector.run(&arguments);
        let output = asked.output().to_owned();
        asked.ends_with(1).await;
        let told = fs::read_to_string(output).unwrap();
        assert!(told.contains("53100") || form == Some("--prometheus"), "{told}");
        assert_silent(form.unwrap_or("the table"), &told);
    }
    postgres::run(&client, "drop trigger tell on embeddings").await;
    process.settles(&client, before as usize + 1).await;

    let output = process.output().to_owned();
    let text = process.stop().await;
    assert!(text.contains("TRACE"), "everything was logged");
    assert_silent("the log", &text);
    assert_silent("standard output", &fs::read_to_string(output).unwrap());
    let messages = "select string_agg(reason || ' ' || coalesce(sqlstate, '') || ' ' || message, e'\\n') \
                    from embedsink.dead_letters";
    assert_silent("a dead letter's message", &one::<String>(&client, messages).await);
    let kept = "select count(*) from embedsink.dead_letters where position('c4nary'::bytea in payload) > 0";
    assert!(one::<i64>(&client, kept).await > 20, "the dead letter itself keeps the record");
}

#[tokio::test]
async fn a_connector_that_stops_at_a_bad_record_tells_where_it_stands_and_nothing_of_it() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let (mut connector, secrets) = connector(&topic, &database);
    connector.more = connector.more.replace("max-ratio: 1", "tolerance: none");
    send(&topic, &[BAD[1]]);
    let text = start(&connector, &secrets).ends_with(1).await;
    assert!(text.contains("offset 0 cannot be used"), "{text}");
    assert_silent("the log", &text);
}

#[tokio::test]
async fn no_mistake_in_a_configuration_makes_it_tell_a_secret() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let (connector, secrets) = connector(&topic, &database);
    let good = connector.yaml();
    let password = "password: ${{ secrets.POSTGRES_PASSWORD }}";
    let cases = [
        (password, "pasword: ${{ secrets.POSTGRES_PASSWORD }}"),
        (password, "pasword: c4nary"),
        (password, "password: c4nary: c4nary"),
        (password, "password: \"c4nary"),
        (password, "password: {c4nary: c4nary}"),
        (password, "password: [c4nary]"),
        (password, "password: c4nary\n      password: c4nary"),
        (password, "password: c4nary\n      password-file: no-such-file"),
        (password, "password:\n  c4nary"),
        (password, "port: ${{ secrets.NUMBER }}"),
        (password, "tls: {mode: '${{ secrets.NUMBER }}'}"),
        (password, "tls: ${{ secrets.NUMBER }}"),
        ("url: postgres://postgres@", "url: postgres://postgres:c4na/ry@c4nary@"),
        ("url: postgres://", "url: c4nary://"),
        ("tables:\n", "tables:\n    \"${{ secrets.NUMBER }}\": {dimensions: '${{ secrets.NUMBER }}'}\n"),
        ("max-rows: 500", "max-rows: ${{ secrets.NUMBER }}"),
        ("max-wait: 20ms", "max-wait: ${{ secrets.NUMBER }}"),
        ("max-ratio: 1", "max-ratio: ${{ secrets.NUMBER }}"),
        ("client.rack: c4nary-rack", "security.protocol: \"${{ secrets.NUMBER }}\""),
        (
            "client.rack: c4nary-rack",
            "sasl.mechanism: \"${{ secrets.NUMBER }}\", security.protocol: sasl_plaintext",
        ),
        ("client.rack: c4nary-rack", "sasl.pasword: c4nary"),
        ("client.rack: c4nary-rack", "fetch.wait.max.ms: \"${{ secrets.NUMBER }}\""),
        ("client.rack: c4nary-rack", "ssl.key.pem: c4nary, security.protocol: ssl"),
        ("client.rack: c4nary-rack", "sasl.jaas.config: c4nary"),
    ];
    for (from, to) in cases {
        assert!(good.contains(from), "{from} stands there");
        fs::write(connector.path(), good.replace(from, to)).unwrap();
        let process = connector.run(&["check", "--config", &connector.path(), "--secrets", &secrets]);
        let output = process.output().to_owned();
        let text = process.ends_with(78).await;
        assert_silent(to, &text);
        assert_silent(to, &fs::read_to_string(output).unwrap());
    }
    connector.write();
    for lines in ["c4nary", "c4nary c4nary=1", "NUMBER=c4nary\nNUMBER=c4nary", "NUMBER", "=c4nary"] {
        fs::write(&secrets, lines).unwrap();
        let process = connector.run(&["check", "--config", &connector.path(), "--secrets", &secrets]);
        assert_silent(lines, &process.ends_with(78).await);
    }
}

/// A server that wants a password in clear text and does not like it.
fn refuse_password() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        assert!(stream.read(&mut asked).unwrap() > 0);
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
        assert!(stream.read(&mut asked).unwrap() > 0);
        let fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"postgres\"\0\0";
        let mut answer = vec![b'E'];
        answer.extend((fields.len() as u32 + 4).to_be_bytes());
        answer.extend(fields);
        stream.write_all(&answer).unwrap();
    });
    port
}

#[tokio::test]
async fn a_password_that_the_server_refuses_is_not_told() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let (mut connector, secrets) = connector(&topic, &database);
    connector.postgres =
        connector.postgres.replace(&database.port().to_string(), &refuse_password().to_string());
    let text = start(&connector, &secrets).ends_with(78).await;
    assert!(text.contains("28P01"), "{text}");
    assert_silent("the log", &text);
}
