//! The configuration as its users meet it: files in, settings or sentences out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const REFERENCE: &str = include_str!("../../connector.yaml");
const GUIDE: &str = include_str!("../../docs/configuration.md");
const CANARY: &str = "canary-9c1f";

/// The smallest configuration; `{}` is where the tests add to it.
const MINIMAL: &str = "\
meta: {name: docs, topic: embeddings}
embedsink:
  source: {kafka: {bootstrap-servers: localhost:9092}}
  sink: {postgres: {url: postgres://postgres@localhost/db}}
  tables: {embeddings: {dimensions: 384}}
";

fn no_environment(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Settings, ConfigError> {
    Settings::from_yaml("c.yaml", text, &SecretStore::environment(), &no_environment)
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let environment = |name: &str| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Settings::from_yaml("c.yaml", text, &SecretStore::environment(), &environment)
}

/// The minimal configuration with each `from` replaced.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(MINIMAL.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the minimal configuration");
        text.replace(from, to)
    })
}

const KAFKA: &str = "bootstrap-servers: localhost:9092";
const POSTGRES: &str = "url: postgres://postgres@localhost/db";
const META: &str = "name: docs, topic: embeddings";

fn with_kafka(keys: &str) -> String {
    changed(&[(KAFKA, &format!("{KAFKA}, {keys}"))])
}

fn with_postgres(keys: &str) -> String {
    changed(&[(POSTGRES, &format!("{POSTGRES}, {keys}"))])
}

fn with_keys(lines: &str) -> String {
    format!("{MINIMAL}{lines}\n")
}

/// The problems, one a line, without the file's name.
fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .problems
            .iter()
            .map(|problem| problem.to_string()[1..].to_owned())
            .collect(),
    }
}

/// A folder for one test, gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("embedsink-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_reference_file_loads_and_leaves_everything_else_at_its_default() {
    let settings = read(REFERENCE).unwrap();
    let expected = Settings {
        connector: "docs".to_owned(),
        source: KafkaSettings {
            bootstrap_servers: vec!["localhost:9092".to_owned()],
            topics: vec!["embeddings".to_owned()],
            group_id: "docs".to_owned(),
            start: StartAt::Beginning,
            properties: BTreeMap::new(),
        },
        postgres: PostgresSettings {
            host: "localhost".to_owned(),
            port: 5432,
            database: "embeddings_db".to_owned(),
            user: "postgres".to_owned(),
            password: None,
            tls: TlsSettings {
                mode: TlsMode::Disable,
                ca_file: None,
            },
            migrate: MigrateMode::Auto,
        },
        tables: vec![TableSettings {
            name: "embeddings".to_owned(),
            dimensions: 384,
        }],
        batch: BatchSettings {
            max_rows: 2000,
            max_bytes: 8 * 1024 * 1024,
            max_wait: Duration::from_millis(200),
        },
        tolerance: Tolerance::Data,
        shutdown_timeout: Duration::from_secs(25),
    };
    assert_eq!(settings, expected);
}

#[test]
fn the_reference_file_shows_every_key_and_the_defaults_that_are_true() {
    for key in keys::KEYS {
        let name = key.rsplit('.').next().unwrap();
        assert!(
            REFERENCE.contains(&format!("{name}:")),
            "connector.yaml does not show {key}"
        );
    }
    let defaults = [
        "start: beginning",
        "migrate: auto",
        "max-rows: 2000",
        "max-bytes: 8MiB",
        "max-wait: 200ms",
    ];
    for line in defaults
        .into_iter()
        .chain(["tolerance: data", "shutdown-timeout: 25s"])
    {
        assert!(
            REFERENCE.contains(&format!("# {line}")) || REFERENCE.contains(&format!("#   {line}")),
            "{line}"
        );
    }
    let explicit = "  batch: {max-rows: 2000, max-bytes: 8MiB, max-wait: 200ms}\n  errors: {tolerance: data}\n  \
                    shutdown-timeout: 25s";
    assert_eq!(read(&with_keys(explicit)).unwrap(), read(MINIMAL).unwrap());
}

#[test]
fn the_guide_lists_the_keys_that_the_reader_knows_and_no_others() {
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> = rows
        .filter_map(|row| row.split('`').next())
        .map(|key| key.replace("<table>", "*").replace("[]", ".*"))
        .collect();
    let known: BTreeSet<String> = keys::KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_guide_shows_what_is_really_printed() {
    let block = |mark: &str| {
        let rest = GUIDE.split_once(mark).map(|(_, rest)| rest).unwrap_or_default();
        rest.split("```").next().unwrap_or_default().trim().to_owned()
    };
    let (file, printed) = (block("```yaml bad\n"), block("```text bad\n"));
    let secrets = SecretStore::environment();
    let error = Settings::from_yaml("connector.yaml", &file, &secrets, &no_environment).unwrap_err();
    assert_eq!(error.to_string(), printed);
}

#[test]
fn each_kind_of_mistake_has_its_sentence() {
    let cases: &[(String, &str)] = &[
        // The document.
        (
            String::new(),
            "1:1: the file says nothing; start from the `connector.yaml` of this project",
        ),
        (
            "# nothing\n".into(),
            "1:1: the file says nothing; start from the `connector.yaml` of this project",
        ),
        (
            "- a\n".into(),
            "1:1: expected a mapping, found a list; write its keys on indented lines below, as `key: value`",
        ),
        (
            "a: b: c".into(),
            "1:5: not valid YAML: a `:` stands where no key can be; put a value that holds `: ` in quotes, and check the indentation",
        ),
        (
            "a:\n\t- b".into(),
            "2:2: not valid YAML: a tab stands where only spaces may; indent with spaces",
        ),
        (
            "a: @b".into(),
            "1:4: not valid YAML: a value begins with a character that YAML reserves; put the value in quotes",
        ),
        (
            "a: *b".into(),
            "1:4: `*` begins a reference to an anchor that does not exist; put a value with special characters in quotes",
        ),
        (
            "a: [1".into(),
            "1:4: not valid YAML: unclosed bracket '['; check this line and the one above: indentation, quotes, brackets",
        ),
        (
            "a: \"b".into(),
            "1:4: not valid YAML: unclosed quote; check this line and the one above: indentation, quotes, brackets",
        ),
        (
            "a: 1\n---\nb: 2".into(),
            "3:1: the file holds more than one YAML document; keep one",
        ),
        (
            "? [a]\n: b".into(),
            "1:1: a key is no plain word; write `key: value`",
        ),
        (
            "[".repeat(40),
            "1:33: the file is too deep or too large for a configuration; check that it is the right file",
        ),
        // Keys.
        (
            with_keys("  bath: {}"),
            "6:3: embedsink.bath: unknown key; did you mean `batch`?",
        ),
        (
            with_keys("  batch: {max-row: 1}"),
            "6:11: embedsink.batch.max-row: unknown key; did you mean `max-rows`?",
        ),
        (
            with_keys("  max-rows: 1"),
            "6:3: embedsink.max-rows: unknown key; it belongs under `embedsink.batch`",
        ),
        (
            with_keys("  batch: {zzz: 1}"),
            "6:11: embedsink.batch.zzz: unknown key; known keys are: max-rows, max-bytes, max-wait",
        ),
        (
            with_keys("  errors: {tolerance:none: 1}"),
            "6:12: embedsink.errors.tolerance…: unknown key; put a space after the `:`",
        ),
        (
            with_keys("  errors: {}\n  errors: {}"),
            "7:3: embedsink.errors: the key is given twice, first at line 6; keep one",
        ),
        (
            with_keys("  batch: {max-rows: 1, max_rows: 2}"),
            "6:24: embedsink.batch.max-rows: the key is given twice, first at line 6; keep one",
        ),
        (
            with_keys("transforms: []"),
            "6:1: transforms: transforms need a Fluvio topic as the source; with Kafka nothing would run them; remove them",
        ),
        (
            with_keys("consumer: {}"),
            "6:1: consumer: a consumer block belongs under `meta` and to a Fluvio topic; this build reads from Kafka only; remove it; `embedsink.source.kafka.start` says where to begin",
        ),
        (
            changed(&[(META, "name: docs, topic: embeddings, consumer: {}")]),
            "1:39: meta.consumer: a consumer block belongs to a Fluvio topic; this build reads from Kafka only; remove it; `embedsink.source.kafka.start` says where to begin",
        ),
        // Types.
        (
            with_keys("  batch: 5"),
            "6:10: embedsink.batch: expected a mapping, found a number; write its keys on indented lines below, as `key: value`",
        ),
        (
            changed(&[("name: docs", "name: true")]),
            "1:14: meta.name: expected text, found true or false; put it in quotes",
        ),
        (
            changed(&[("name: docs", "name: ''")]),
            "1:14: meta.name: the value is empty; give one, or remove the key",
        ),
        (
            changed(&[("name: docs", "name: ~")]),
            "1:8: meta.name: the key has no value; give one, or remove the key",
        ),
        (
            changed(&[("name: docs", "name: [docs]")]),
            "1:14: meta.name: expected text, found a list; write one value after the key",
        ),
        // Meta.
        (
            with_keys("apiVersion: 0.2.0"),
            "6:13: apiVersion: this build knows no apiVersion `0.2.0`; write `apiVersion: 0.1.0`",
        ),
        (
            changed(&[("name: docs, ", "")]),
            "1:1: meta.name: missing; add a name; stored positions belong to it, so keep it",
        ),
        (
            changed(&[("name: docs", "name: my docs")]),
            "1:14: meta.name: `my docs` cannot name a connector; use 1 to 100 letters, digits, `.`, `_` and `-`",
        ),
        (
            changed(&[("name: docs", "name: docs, type: pgvector-sink")]),
            "1:26: meta.type: `pgvector-sink` is another connector; write `embedsink`",
        ),
        (
            changed(&[("name: docs", "name: docs, type: embedsink-source")]),
            "1:26: meta.type: `embedsink-source` is a source, and this connector is a sink; write `embedsink`",
        ),
        (
            changed(&[("topic: embeddings", "topic: {meta: {name: embeddings}}")]),
            "1:27: meta.topic: expected text, found a mapping; write the topic's name alone, as apiVersion 0.1.0 has it",
        ),
        (
            changed(&[("topic: embeddings", "topic: a/b")]),
            "1:27: meta.topic: `a/b` cannot name a topic; use 1 to 249 letters, digits, `.`, `_` and `-`, and not only dots",
        ),
        (
            changed(&[(", topic: embeddings", "")]),
            "3:12: embedsink.source.kafka.topics: no topic is named; add `topics: [NAME]` here, or `meta.topic`",
        ),
        (
            changed(&[(META, "name: docs, topic: embeddings, secrets: [{name: 1x}]")]),
            "1:55: meta.secrets[0].name: the name of the secret is badly formed; use letters, digits and `_`, beginning with no digit",
        ),
        (
            changed(&[(
                META,
                "name: docs, topic: embeddings, secrets: [{name: A}, {name: A}]",
            )]),
            "1:66: meta.secrets[1].name: the secret is declared twice; keep one",
        ),
        (
            changed(&[(META, "name: docs, topic: embeddings, secrets: A")]),
            "1:48: meta.secrets: expected a list, found text; write `[a, b]`, or one item a line after `- `",
        ),
        // Kafka.
        (
            changed(&[("kafka: {bootstrap-servers: localhost:9092}", "")]),
            "3:3: embedsink.source.kafka: missing; add the block; this build reads from Kafka only",
        ),
        (
            changed(&[("kafka: {bootstrap-servers: localhost:9092}", "fluvio: {}")]),
            "3:12: embedsink.source.fluvio: this build reads from Kafka only; name `embedsink.source.kafka`",
        ),
        (
            changed(&[(KAFKA, "")]),
            "3:12: embedsink.source.kafka.bootstrap-servers: missing; add the brokers to ask first, such as `[localhost:9092]`",
        ),
        (
            changed(&[(KAFKA, "bootstrap-servers: []")]),
            "3:39: embedsink.source.kafka.bootstrap-servers: the list is empty; name at least one",
        ),
        (
            changed(&[(KAFKA, "bootstrap-servers: localhost")]),
            "3:39: embedsink.source.kafka.bootstrap-servers: `localhost` is no `host:port`; add the port, such as `:9092`",
        ),
        (
            changed(&[(KAFKA, "bootstrap-servers: [a:1, 'b:0']")]),
            "3:45: embedsink.source.kafka.bootstrap-servers[1]: `b:0` is no `host:port`; give a port from 1 to 65535",
        ),
        (
            changed(&[(KAFKA, "bootstrap-servers: ['ssl://a:1']")]),
            "3:40: embedsink.source.kafka.bootstrap-servers[0]: `ssl://a:1` is no `host:port`; leave the scheme away; the property `security.protocol` says how to connect",
        ),
        (
            changed(&[(KAFKA, "bootstrap-servers: '::1:9092'")]),
            "3:39: embedsink.source.kafka.bootstrap-servers: `::1:9092` is no `host:port`; give a host name, an IPv4 address, or an IPv6 address in `[` `]`",
        ),
        (
            with_kafka("topics: [embeddings, embeddings]"),
            "3:75: embedsink.source.kafka.topics[1]: `embeddings` is named twice; keep one",
        ),
        (
            with_kafka("topics: [other]"),
            "3:62: embedsink.source.kafka.topics: contradicts `meta.topic`, which is not among these topics and would not be read; add it here, or name one of these in `meta.topic`",
        ),
        (
            with_kafka("start: begining"),
            "3:61: embedsink.source.kafka.start: `begining` is not known here; did you mean `beginning`?",
        ),
        (
            with_kafka("start: 5"),
            "3:61: embedsink.source.kafka.start: `5` is not known here; give `beginning` or `end`",
        ),
        (
            with_kafka("properties: {enable.auto.commit: true}"),
            "3:67: embedsink.source.kafka.properties.enable.auto.commit: the connector sets it: positions are stored in PostgreSQL, together with the rows; remove it",
        ),
        (
            with_kafka("properties: {auto.offset.reset: latest}"),
            "3:67: embedsink.source.kafka.properties.auto.offset.reset: the connector sets it: a lost position is an error, never a silent jump; use `start`",
        ),
        (
            with_kafka("properties: {group.id: x}"),
            "3:67: embedsink.source.kafka.properties.group.id: the connector sets it; use `group-id`",
        ),
        (
            with_kafka("properties: {isolation.level: read_uncommitted}"),
            "3:67: embedsink.source.kafka.properties.isolation.level: only `read_committed` is allowed: records of aborted transactions would be written; remove it, or write `read_committed`",
        ),
        (
            with_kafka("properties: {group.protocol: consumer}"),
            "3:67: embedsink.source.kafka.properties.group.protocol: only `classic` is allowed: the connector speaks only the classic group protocol yet; remove it, or write `classic`",
        ),
        (
            with_kafka("properties: {Fetch-Wait: 1}"),
            "3:67: embedsink.source.kafka.properties.Fetch-Wait: no property of librdkafka is spelt like this; use its dotted, lower-case name, such as `fetch.wait`",
        ),
        (
            with_kafka("properties: {rebalance_cb: 1}"),
            "3:67: embedsink.source.kafka.properties.rebalance_cb: a callback cannot be set from a file; remove it",
        ),
        (
            with_kafka("properties: {ssl.ca.location: [a]}"),
            "3:84: embedsink.source.kafka.properties.ssl.ca.location: expected one value, found a list; write one value after the key",
        ),
        // PostgreSQL.
        (
            changed(&[("postgres: {url: postgres://postgres@localhost/db}", "")]),
            "4:3: embedsink.sink.postgres: missing; add the block with at least `url`",
        ),
        (
            changed(&[("postgres: {url: postgres://postgres@localhost/db}", "lancedb: {}")]),
            "4:10: embedsink.sink.lancedb: this build has no LanceDB target; name `embedsink.sink.postgres`",
        ),
        (
            changed(&[("postgres@", "")]),
            "4:10: embedsink.sink.postgres.user: missing; add it, or name it in `url`, or set the environment variable `PGUSER`",
        ),
        (
            changed(&[("postgres://", "mysql://")]),
            "4:26: embedsink.sink.postgres.url: this is no PostgreSQL URL; write `postgres://user@host:5432/database`",
        ),
        (
            changed(&[("localhost/db", "localhost:0/db")]),
            "4:26: embedsink.sink.postgres.url: the port in the URL is no number from 1 to 65535, or the password holds a special character; percent-encode special characters in it, or use `host`, `user` and `password`",
        ),
        (
            changed(&[("postgres@", "postgres:a/b@")]),
            "4:26: embedsink.sink.postgres.url: the password in the URL holds a `/` or a `?`; percent-encode special characters in it, or use `host`, `user` and `password`",
        ),
        (
            changed(&[("localhost/db", "localhost/d%zz")]),
            "4:26: embedsink.sink.postgres.url: a `%` in the URL is not followed by two hexadecimal digits of UTF-8; write `%25` for `%`",
        ),
        (
            changed(&[(
                "url: postgres://postgres@localhost/db",
                "url: 'postgres://a@b:1,c:2/db'",
            )]),
            "4:26: embedsink.sink.postgres.url: the URL names several servers, and the connector writes to one; name the primary",
        ),
        (
            changed(&[("localhost/db", "localhost/db?connect_timeout=3")]),
            "4:26: embedsink.sink.postgres.url: the URL has a parameter that the connector does not know; keep only `sslmode`; everything else has a key of its own",
        ),
        (
            changed(&[("localhost/db", "localhost/db?sslmode=prefer")]),
            "4:26: embedsink.sink.postgres.url: TLS mode `prefer` falls back to no TLS without a word; give require, verify-ca or verify-full; or disable, for no TLS",
        ),
        (
            changed(&[("localhost/db", "localhost/db?sslmode=on")]),
            "4:26: embedsink.sink.postgres.url: `sslmode` in the URL is not known; give disable, require, verify-ca or verify-full",
        ),
        (
            with_postgres("user: root"),
            "4:71: embedsink.sink.postgres.user: contradicts `url`, which says something else; keep one of them",
        ),
        (
            changed(&[(POSTGRES, "host: h, database: d, user: u, port: 0")]),
            "4:58: embedsink.sink.postgres.port: `0` is out of range: TCP has no other ports; give 1 to 65535",
        ),
        (
            changed(&[(POSTGRES, "host: 'h:1', database: d, user: u")]),
            "4:27: embedsink.sink.postgres.host: the host holds a port; move the port to `port`",
        ),
        (
            changed(&[(POSTGRES, "host: 'postgres://h', database: d, user: u")]),
            "4:27: embedsink.sink.postgres.host: the host is a URL; move it to `url`",
        ),
        (
            with_postgres("tls: {mode: allow}"),
            "4:77: embedsink.sink.postgres.tls.mode: TLS mode `allow` uses TLS only where the server insists; give require, verify-ca or verify-full; or disable, for no TLS",
        ),
        (
            with_postgres("tls: {mode: verify_full}"),
            "4:77: embedsink.sink.postgres.tls.mode: `verify_full` is not known here; did you mean `verify-full`?",
        ),
        (
            with_postgres("tls: {ca-file: no.pem}"),
            "4:80: embedsink.sink.postgres.tls.ca-file: `no.pem` cannot be read: No such file or directory (os error 2); give a PEM file; a relative path starts at this configuration's folder",
        ),
        (
            with_postgres("tls: {ca-file: /}"),
            "4:80: embedsink.sink.postgres.tls.ca-file: `/` is no file; give a PEM file; a relative path starts at this configuration's folder",
        ),
        (
            changed(&[(POSTGRES, "host: /run, database: d, user: u, tls: {mode: require}")]),
            "4:67: embedsink.sink.postgres.tls.mode: PostgreSQL speaks no TLS over a Unix socket; remove it, or name a TCP host",
        ),
        (
            with_postgres("migrate: never"),
            "4:74: embedsink.sink.postgres.migrate: `never` is not known here; give `auto` or `manual`",
        ),
        // Tables.
        (
            changed(&[("  tables: {embeddings: {dimensions: 384}}\n", "")]),
            "2:1: embedsink.tables: missing; add a table, such as `embeddings: {dimensions: 384}`",
        ),
        (
            changed(&[("{embeddings: {dimensions: 384}}", "")]),
            "5:3: embedsink.tables: there is no table to write to; add a table, such as `embeddings: {dimensions: 384}`",
        ),
        (
            changed(&[("embeddings: {dimensions: 384}", "a.b: {dimensions: 384}")]),
            "5:12: embedsink.tables.a.b: `a.b` names a schema, and tables are found through the search path; name the table alone; the role's `search_path` says in which schema it is",
        ),
        (
            changed(&[("embeddings: {dimensions: 384}", "'a\\0b': {dimensions: 384}")]).replace('\'', "\""),
            "5:12: embedsink.tables.a…: the table's name holds a NUL, which PostgreSQL cannot store; remove it",
        ),
        (
            changed(&[(
                "embeddings: {dimensions: 384}",
                &format!("{}: {{dimensions: 384}}", "é".repeat(32)),
            )]),
            "5:12: embedsink.tables.éééééééééééééééééééééééééééééééé: PostgreSQL would cut the name `éééééééééééééééééééééééééééééééé` to 63 bytes; shorten it",
        ),
        (
            changed(&[("dimensions: 384", "")]),
            "5:12: embedsink.tables.embeddings.dimensions: missing; say how long its vectors are, such as `384`",
        ),
        (
            changed(&[("dimensions: 384", "dimension: 384")]),
            "5:25: embedsink.tables.embeddings.dimension: unknown key; did you mean `dimensions`?",
        ),
        (
            changed(&[("384", "0")]),
            "5:37: embedsink.tables.embeddings.dimensions: `0` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000",
        ),
        (
            changed(&[("384", "-1")]),
            "5:37: embedsink.tables.embeddings.dimensions: `-1` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000",
        ),
        (
            changed(&[("384", "16001")]),
            "5:37: embedsink.tables.embeddings.dimensions: `16001` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000",
        ),
        (
            changed(&[("384", "3.5")]),
            "5:37: embedsink.tables.embeddings.dimensions: `3.5` is no whole number; give 1 to 16000",
        ),
        (
            changed(&[("384", "1_000")]),
            "5:37: embedsink.tables.embeddings.dimensions: `1_000` is no whole number; give 1 to 16000",
        ),
        (
            changed(&[("384", "'384'")]),
            "5:37: embedsink.tables.embeddings.dimensions: expected a whole number, found text; remove the quotes",
        ),
        (
            changed(&[("384", "[384]")]),
            "5:37: embedsink.tables.embeddings.dimensions: expected a whole number, found a list; write one value after the key",
        ),
        // Quantities.
        (
            with_keys("  batch: {max-rows: 0}"),
            "6:21: embedsink.batch.max-rows: `0` is out of range: a batch holds at least one row, and is kept in memory whole; give 1 to 100000",
        ),
        (
            with_keys("  batch: {max-rows: many}"),
            "6:21: embedsink.batch.max-rows: `many` is no whole number; give 1 to 100000",
        ),
        (
            with_keys("  batch: {max-bytes: 1GiB}"),
            "6:22: embedsink.batch.max-bytes: `1GiB` is out of range: a batch needs room for a record, and is kept in memory whole; give 64KiB to 256MiB",
        ),
        (
            with_keys("  batch: {max-bytes: -8MiB}"),
            "6:22: embedsink.batch.max-bytes: `-8MiB` is out of range: a batch needs room for a record, and is kept in memory whole; give 64KiB to 256MiB",
        ),
        (
            with_keys("  batch: {max-bytes: 8 apples}"),
            "6:22: embedsink.batch.max-bytes: `8 apples` is no size; write a number and a unit, such as `8MiB` or `500kB`",
        ),
        (
            with_keys("  batch: {max-wait: 200}"),
            "6:21: embedsink.batch.max-wait: `200` has no unit; add a unit: `200ms` or `200s`",
        ),
        (
            with_keys("  batch: {max-wait: 61s}"),
            "6:21: embedsink.batch.max-wait: `61s` is out of range: a record waits this long before it is written; give 1ms to 1m",
        ),
        (
            with_keys("  batch: {max-wait: soon}"),
            "6:21: embedsink.batch.max-wait: `soon` is no duration; write a number and a unit, such as `200ms`, `5s` or `1m30s`",
        ),
        (
            with_keys("  errors: {tolerance: all}"),
            "6:23: embedsink.errors.tolerance: `all` is not known here; give `data` or `none`",
        ),
        (
            with_keys("  shutdown-timeout: -5s"),
            "6:21: embedsink.shutdown-timeout: `-5s` is out of range: a stop needs time for the write in flight, but must end; give 100ms to 10m",
        ),
        (
            with_keys("  shutdown-timeout: 0"),
            "6:21: embedsink.shutdown-timeout: `0` has no unit; add a unit: `0ms` or `0s`",
        ),
        (
            with_keys("  shutdown-timeout: 99999999999999999999y"),
            "6:21: embedsink.shutdown-timeout: `99999999999999999999y` is out of range: a stop needs time for the write in flight, but must end; give 100ms to 10m",
        ),
        // Secrets.
        (
            with_postgres("password: '${{ secrets.PW }}'"),
            "4:75: embedsink.sink.postgres.password: the secret `PW` is not declared; add `- name: PW` to `meta.secrets`",
        ),
        (
            with_postgres("password: '${{ secrets.P-W }}'"),
            "4:75: embedsink.sink.postgres.password: the name of the secret is badly formed; use letters, digits and `_`, beginning with no digit",
        ),
        (
            with_postgres("password: '${{ secrets.PW'"),
            "4:75: embedsink.sink.postgres.password: `${{` has no `}}`; write `${{ secrets.NAME }}`",
        ),
        (
            with_postgres("password: '${{ env.PW }}'"),
            "4:75: embedsink.sink.postgres.password: `${{ … }}` names no secret; write `${{ secrets.NAME }}`",
        ),
        (
            with_postgres("password: {secret: {name: PW}}"),
            "4:75: embedsink.sink.postgres.password: the secret `PW` is not declared; add `- name: PW` to `meta.secrets`",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(text, sentence)| problems(text) != [*sentence])
        .map(|(text, sentence)| {
            format!(
                "{text}\nexpected {sentence}\nfound    {}",
                problems(text).join("\n         ")
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn all_problems_are_reported_together_and_in_file_order() {
    let text = "\
embedsink:
  shutdown-timeout: 5
  tables: {a: {dimensions: 0}, a: {dimensions: 1}}
  source: {kafka: {topics: ['', a, a], start: now}}
  sink: {postgres: {password: '${{ secrets.X }}', port: x, tls: {mode: none, ca-file: no}}}
meta: {name: a b, topic: 'a b'}
";
    let error = read(text).unwrap_err();
    let found: Vec<(u32, &str)> = error
        .problems
        .iter()
        .map(|p| (p.position.unwrap().line, p.path.as_str()))
        .collect();
    let expected = [
        (2, "embedsink.shutdown-timeout"),
        (3, "embedsink.tables.a.dimensions"),
        (3, "embedsink.tables.a"),
        (4, "embedsink.source.kafka.bootstrap-servers"),
        (4, "embedsink.source.kafka.topics[0]"),
        (4, "embedsink.source.kafka.topics[2]"),
        (4, "embedsink.source.kafka.start"),
        (5, "embedsink.sink.postgres.host"),
        (5, "embedsink.sink.postgres.database"),
        (5, "embedsink.sink.postgres.user"),
        (5, "embedsink.sink.postgres.password"),
        (5, "embedsink.sink.postgres.port"),
        (5, "embedsink.sink.postgres.tls.mode"),
        (5, "embedsink.sink.postgres.tls.ca-file"),
        (6, "meta.name"),
        (6, "meta.topic"),
    ];
    assert_eq!(found, expected);
    assert!(
        error.to_string().ends_with("\n16 problems; nothing was started"),
        "{error}"
    );
}

#[test]
fn one_problem_is_counted_as_one() {
    let error = read(&with_keys("  bath: {}")).unwrap_err();
    let expected =
        "c.yaml:6:3: embedsink.bath: unknown key; did you mean `batch`?\n1 problem; nothing was started";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn underscores_stand_for_hyphens_in_keys_and_nowhere_else() {
    let text = with_keys("  batch: {max_rows: 7}\n  shutdown_timeout: 1s")
        .replace("bootstrap-servers", "bootstrap_servers")
        .replace("tables: {embeddings:", "tables: {my_table:");
    let settings = read(&text).unwrap();
    assert_eq!(settings.batch.max_rows, 7);
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(1));
    assert_eq!(settings.tables[0].name, "my_table");
}

#[test]
fn values_that_yaml_would_type_keep_their_spelling() {
    let text = changed(&[
        (META, "name: 1.10, topic: 007, version: 0.1.0"),
        (
            POSTGRES,
            "host: 10.0.0.1, database: on, user: 0x10, password: 0123",
        ),
        (
            KAFKA,
            "bootstrap-servers: a:1, properties: {a: true, b: 1e3, c: 1.50, d: no, e: '~', f: .inf}",
        ),
        ("embeddings: {", "2024: {"),
    ]);
    let settings = read(&text).unwrap();
    assert_eq!(settings.connector, "1.10");
    assert_eq!(settings.source.topics, ["007"]);
    assert_eq!(settings.postgres.database, "on");
    assert_eq!(settings.postgres.user, "0x10");
    assert_eq!(settings.postgres.password, Some(Secret::new("0123")));
    assert_eq!(settings.tables[0].name, "2024");
    let values: Vec<&str> = settings.source.properties.values().map(Secret::expose).collect();
    assert_eq!(values, ["true", "1e3", "1.50", "no", "~", ".inf"]);
}

#[test]
fn sizes_and_durations_are_read_with_their_units() {
    let read_batch = |size: &str, wait: &str| {
        read(&with_keys(&format!(
            "  batch: {{max-bytes: {size}, max-wait: {wait}}}"
        )))
        .unwrap()
        .batch
    };
    let sizes = [
        ("8MiB", 8 << 20),
        ("500kB", 500_000),
        ("65536", 65_536),
        ("0.5 MiB", 512 << 10),
        ("64kib", 64 << 10),
    ];
    for (size, bytes) in sizes {
        assert_eq!(read_batch(size, "1s").max_bytes, bytes, "{size}");
    }
    for (wait, milliseconds) in [
        ("1ms", 1),
        ("1s", 1000),
        ("1s 500ms", 1500),
        ("1m", 60_000),
        ("0.5s", 500),
    ] {
        assert_eq!(
            read_batch("8MiB", wait).max_wait,
            Duration::from_millis(milliseconds),
            "{wait}"
        );
    }
}

#[test]
fn tables_keep_their_order_and_any_name() {
    let text = changed(&[(
        "embeddings: {dimensions: 384}",
        "z: {dimensions: 1}, 'A b\"c': {dimensions: 16000}",
    )]);
    let tables = read(&text).unwrap().tables;
    let expected = [("z", 1), ("A b\"c", 16_000)].map(|(name, dimensions)| TableSettings {
        name: name.to_owned(),
        dimensions,
    });
    assert_eq!(tables, expected);
}

#[test]
fn kafka_keys_are_taken_as_written() {
    let text = changed(&[(
        KAFKA,
        "bootstrap-servers: 'a:1, [::1]:2', topics: [embeddings, b], group-id: g, start: end, properties: \
                 {isolation.level: read_committed, group.protocol: classic, ssl.endpoint.identification.algorithm: none}",
    )]);
    let source = read(&text).unwrap().source;
    assert_eq!(source.bootstrap_servers, ["a:1", "[::1]:2"]);
    assert_eq!(source.topics, ["embeddings", "b"]);
    assert_eq!((source.group_id.as_str(), source.start), ("g", StartAt::End));
    assert_eq!(source.properties.len(), 3);
}

#[test]
fn a_url_and_keys_and_the_environment_fill_each_other_in() {
    let variables = [
        ("PGHOST", "db.example"),
        ("PGPORT", "6000"),
        ("PGDATABASE", "e"),
        ("PGUSER", "eu"),
        ("PGPASSWORD", "ep"),
    ];
    let read = |keys: &str| {
        read_with(&changed(&[(POSTGRES, keys)]), &variables)
            .unwrap()
            .postgres
    };

    let from_environment = read("");
    assert_eq!(
        (from_environment.host.as_str(), from_environment.port),
        ("db.example", 6000)
    );
    assert_eq!(from_environment.password, Some(Secret::new("ep")));
    assert_eq!(from_environment.tls.mode, TlsMode::VerifyFull);

    let mixed = read("url: 'postgresql://u%40x:p%2F@[::1]:7000?sslmode=require', database: d");
    assert_eq!(
        (mixed.host.as_str(), mixed.port, mixed.user.as_str()),
        ("::1", 7000, "u@x")
    );
    assert_eq!(
        (mixed.database.as_str(), mixed.password),
        ("d", Some(Secret::new("p/")))
    );
    assert_eq!(mixed.tls.mode, TlsMode::Require);

    let agreeing = read("url: postgres://u:p@h:1/d, host: h, port: 1, database: d, user: u, password: p");
    assert_eq!(agreeing.host, "h");

    let socket = read("url: 'postgres://u@%2Frun%2Fpg/d'");
    assert_eq!(
        (socket.host.as_str(), socket.tls.mode),
        ("/run/pg", TlsMode::Disable)
    );
}

#[test]
fn a_bad_environment_is_a_problem_and_an_empty_variable_is_none() {
    let text = changed(&[(POSTGRES, "database: d, user: u")]);
    let variables = [("PGHOST", "a,b"), ("PGPORT", "x")];
    let error = read_with(&text, &variables).unwrap_err();
    assert_eq!(error.problems.len(), 2, "{error}");
    assert!(
        error
            .to_string()
            .contains("from the environment variable `PGHOST`: it names several servers"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("the environment variable `PGPORT` is no port"),
        "{error}"
    );
    let error = read_with(&text, &[("PGHOST", "")]).unwrap_err();
    assert_eq!(error.problems[0].what, "missing");
}

#[test]
fn tls_is_verified_unless_the_host_is_local_or_the_user_says_otherwise() {
    let mode = |host: &str| {
        let text = changed(&[(POSTGRES, &format!("host: '{host}', database: d, user: u"))]);
        read(&text).unwrap().postgres.tls.mode
    };
    for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1", "/run/postgresql"] {
        assert_eq!(mode(host), TlsMode::Disable, "{host}");
    }
    for host in ["localhost.example", "10.0.0.1", "128.0.0.1", "::2", "db"] {
        assert_eq!(mode(host), TlsMode::VerifyFull, "{host}");
    }
}

#[test]
fn a_ca_file_is_found_beside_the_configuration_and_has_to_fit_the_mode() {
    let folder = Folder::new("ca");
    folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    folder.write("key.txt", "nothing of the kind");
    let load = |tls: &str| {
        let path = folder.write("c.yaml", with_postgres(&format!("tls: {{{tls}}}")));
        Settings::from_file(&path, None)
    };
    let tls = load("ca-file: ca.pem").unwrap().postgres.tls;
    assert_eq!(
        tls,
        TlsSettings {
            mode: TlsMode::VerifyFull,
            ca_file: Some(folder.0.join("ca.pem"))
        }
    );
    assert_eq!(
        load("mode: verify-ca, ca-file: ca.pem")
            .unwrap()
            .postgres
            .tls
            .mode,
        TlsMode::VerifyCa
    );
    for mode in ["disable", "require"] {
        let error = load(&format!("mode: {mode}, ca-file: ca.pem")).unwrap_err();
        assert_eq!(
            error.problems[0].what,
            "contradicts the TLS mode, which verifies no certificate"
        );
    }
    assert_eq!(
        load("ca-file: key.txt").unwrap_err().problems[0].what,
        "`key.txt` holds no PEM certificate"
    );
}

#[test]
fn secrets_are_put_in_after_yaml_so_that_no_value_can_inject_any() {
    let declared = "name: docs, topic: embeddings, secrets: [{name: PW}, {name: HOST}]";
    let text = changed(&[
        (META, declared),
        (
            POSTGRES,
            "host: 'db.${{secrets.HOST}}', database: d, user: u, password: {secret: {name: PW}}",
        ),
        (
            KAFKA,
            "bootstrap-servers: a:1, properties: {sasl.password: '${{ secrets.PW }}!'}",
        ),
    ]);
    for value in [
        "x\"}, user: root, y: {z",
        "a: b # c",
        "*a",
        "line\nuser: root",
        "${{ secrets.HOST }}",
        "'",
        "~",
    ] {
        let settings = read_with(&text, &[("PW", value), ("HOST", "example")]).unwrap();
        assert_eq!(
            settings.postgres.password.as_ref().map(Secret::expose),
            Some(value)
        );
        assert_eq!(
            (settings.postgres.user.as_str(), settings.postgres.host.as_str()),
            ("u", "db.example")
        );
        assert_eq!(
            settings.source.properties["sasl.password"].expose(),
            format!("{value}!")
        );
    }
}

#[test]
fn a_secret_may_stand_where_a_number_is_wanted() {
    let text = changed(&[
        (META, "name: docs, topic: t, secrets: [{name: N}]"),
        ("384", "'${{ secrets.N }}'"),
    ]);
    assert_eq!(read_with(&text, &[("N", "12")]).unwrap().tables[0].dimensions, 12);
}

#[test]
fn a_secret_that_is_missing_or_empty_is_named_but_not_shown() {
    let text = changed(&[(META, "name: docs, topic: t, secrets: [{name: PW}]")])
        .replace("localhost/db", "localhost/db, password: '${{ secrets.PW }}'");
    let what = |store: &SecretStore, variables: &[(&str, &str)]| {
        let environment = |name: &str| {
            variables
                .iter()
                .find(|(variable, _)| *variable == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let error = Settings::from_yaml("c.yaml", &text, store, &environment).unwrap_err();
        let problem = &error.problems[0];
        format!(
            "{}: {}; {}",
            problem.position.unwrap().line,
            problem.what,
            problem.fix
        )
    };
    let environment = SecretStore::environment();
    let file = SecretStore::from_text("s.txt", "OTHER=1\n").unwrap();
    assert_eq!(
        what(&environment, &[]),
        "4: the secret `PW` is not in the environment; set the variable `PW`, or pass a file with `--secrets`"
    );
    assert_eq!(
        what(&environment, &[("PW", "")]),
        "4: the secret `PW` is empty in the environment; give it a value"
    );
    // With a file, the environment is not asked.
    assert_eq!(
        what(&file, &[("PW", "x")]),
        "4: the secret `PW` is not in the secrets file `s.txt`; add a line `PW=…` to it"
    );
}

#[test]
fn a_secrets_file_is_lines_of_names_and_values() {
    let text = "\u{feff}# comment\n\n PW = a=b #c \r\nX_1=\"q\"\n";
    let store = SecretStore::from_text("s.txt", text).unwrap();
    assert_eq!(store.get("PW", &no_environment).unwrap().expose(), " a=b #c ");
    assert_eq!(store.get("X_1", &no_environment).unwrap().expose(), "\"q\"");

    let text = format!("{CANARY}\n1{CANARY}=x\nA=1\nA={CANARY}\n");
    let error = SecretStore::from_text("s.txt", &text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "s.txt:1:1: this line is no `NAME=VALUE`; write one secret a line; a secret has no line break\n\
         s.txt:2:1: the name before `=` is badly formed; use letters, digits and `_`, beginning with no digit\n\
         s.txt:4:1: `A` is given twice, first at line 3; keep one\n\
         3 problems; nothing was started"
    );
}

#[test]
fn no_message_and_no_debug_shows_a_secret() {
    let declared = "meta: {name: docs, topic: t, secrets: [{name: S}]}\n";
    let keys = [
        "source: {kafka: {bootstrap-servers: SECRET}}",
        "source: {kafka: {topics: [SECRET, a b]}}",
        "source: {kafka: {start: SECRET}}",
        "source: {kafka: {properties: {sasl.password: [SECRET]}}}",
        "source: {kafka: {properties: {isolation.level: SECRET}}}",
        "source: {kafka: SECRET}",
        "sink: {postgres: {url: SECRET}}",
        "sink: {postgres: {password: SECRET, url: 'postgres://u:otherSECRETh/d'}}",
        "sink: {postgres: {port: SECRET}}",
        "sink: {postgres: {host: SECRET}}",
        "sink: {postgres: {tls: {mode: SECRET, ca-file: SECRET}}}",
        "sink: {postgres: {migrate: SECRET}}",
        "tables: {a: {dimensions: SECRET}}",
        "batch: {max-rows: SECRET, max-bytes: SECRET, max-wait: SECRET}",
        "errors: {tolerance: SECRET}",
        "shutdown-timeout: SECRET",
    ];
    for key in keys {
        let text = format!(
            "{declared}embedsink:\n  {}\n",
            key.replace('SECRET', "'x ${{ secrets.S }}'")
        );
        let error = read_with(&text, &[("S", CANARY)]).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(CANARY), "{key}: {error}");
    }
    // Written into the file itself, in the places that are secret by their name, or broken.
    let plain = [
        "sink: {postgres: {url: postgres://u:SECRET@h:x/d}}",
        "sink: {postgres: {url: postgres://u:SECRET?a=b@h/d}}",
        "sink: {postgres: {url: postgres://u:p@h/d?SECRET=SECRET}}",
        "sink: {postgres: {url: mysql://u:SECRET@h/d, host: 'postgres://u:SECRET@h/d'}}",
        "sink: {postgres: {password: {a: SECRET}}}",
        "sink: {postgres: {password: [SECRET]}}",
        "sink: {postgres: {password:SECRET, host: h}}",
        "sink: {postgres: {password:SECRET: 1}}",
        "sink: {postgres: {password: '${{ SECRET }}'}}",
        "sink: {postgres: {password: '${{ secrets.SECRET }}'}}",
        "sink: {postgres: {password: \"SECRET}}",
        "sink: {postgres: {password: %SECRET}}",
        "sink: {postgres: {password: *SECRET}}",
        "sink: {postgres: {password: !!int SECRET}}",
        "sink: {postgres: {password: SECRET: x}}",
        "sink: {postgres: SECRET}",
        "source: {kafka: {bootstrap-servers: 'u:SECRET@h:1'}}",
        "source: {kafka: {properties: {sasl.password:SECRET, a: b}}}",
        "source: {kafka: {properties: {sasl.jaas.config: [SECRET]}}}",
        "source: {kafka: {properties: SECRET}}",
    ];
    for key in plain {
        let text = format!("{declared}embedsink:\n  {}\n", key.replace('SECRET', CANARY));
        let error = read(&text).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(CANARY), "{key}: {error}");
    }
    let good = changed(&[
        (POSTGRES, &format!("url: postgres://u:{CANARY}@h/d")),
        (
            KAFKA,
            &format!("{KAFKA}, properties: {{sasl.password: {CANARY}, client.id: {CANARY}}}"),
        ),
    ]);
    assert!(!format!("{:?}", read(&good).unwrap()).contains(CANARY));
    let store = SecretStore::from_text("s.txt", &format!("S={CANARY}")).unwrap();
    assert!(!format!("{store:?}").contains(CANARY));
}

#[test]
fn anchors_and_merges_work_and_point_to_where_they_are_used() {
    let text = changed(&[("embeddings: {dimensions: 384}", "a: &d {dimensions: 0}, b: *d")]);
    let found = problems(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    let text = changed(&[(
        "embeddings: {dimensions: 384}",
        "a: &d {dimensions: 3}, b: {<<: *d}",
    )]);
    assert_eq!(read(&text).unwrap().tables[1].dimensions, 3);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = Folder::new("io");
    let missing = folder.0.join("none.yaml");
    let error = Settings::from_file(&missing, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot be read: No such file or directory (os error 2); check the path after `--config`\n\
             1 problem; nothing was started",
            missing.display()
        )
    );
    let latin = folder.write("latin.yaml", b"meta:\n  name: caf\xe9\n");
    let error = Settings::from_file(&latin, None).unwrap_err();
    assert_eq!(error.problems[0].what, "is not UTF-8: line 2 holds other bytes");
    let good = folder.write("good.yaml", MINIMAL);
    let error = Settings::from_file(&good, Some(Path::new("/no/secrets"))).unwrap_err();
    assert_eq!(
        (error.file.as_str(), error.problems[0].fix.as_str()),
        ("/no/secrets", "check the path after `--secrets`")
    );
    let secrets = folder.write("secrets", "A=1\n");
    assert_eq!(
        Settings::from_file(&good, Some(&secrets)).unwrap(),
        read(MINIMAL).unwrap()
    );
}

#[test]
fn damaged_files_never_panic() {
    // A small generator with a fixed seed, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    let everything = REFERENCE.replace("  # ", "  ");
    let characters: Vec<char> = ":-[]{}#&*!|>'\"%@`,?~ \n\t\r\0é\u{feff}0a$.<=".chars().collect();
    for round in 0..4000 {
        let mut text: Vec<char> = if round % 2 == 0 { REFERENCE } else { &everything }
            .chars()
            .collect();
        for _ in 0..random(6) {
            let at = random(text.len());
            match random(4) {
                0 => text.truncate(at),
                1 => text.insert(at, characters[random(characters.len())]),
                2 if at < text.len() => text[at] = characters[random(characters.len())],
                _ => drop(text.drain(at..text.len().min(at + random(40)))),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = read(&text) {
            assert!(
                !error.problems.is_empty() && !error.to_string().contains("bug"),
                "{text}\n{error}"
            );
        }
    }
}
