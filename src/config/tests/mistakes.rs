//! Every kind of mistake, and the sentence that it gets.

use super::{KAFKA, META, POSTGRES, changed, problems, with_kafka, with_keys, with_postgres};

#[test]
fn each_kind_of_mistake_has_its_sentence() {
    let wrong: Vec<String> = cases()
        .into_iter()
        .map(|(text, sentence)| (problems(&text).join("\n         "), text, sentence))
        .filter(|(found, _, sentence)| found != sentence)
        .map(|(found, text, sentence)| format!("{text}\nexpected {sentence}\nfound    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A file, and its one problem. One case a line, so that they can be read side by side.
#[rustfmt::skip]
fn cases() -> Vec<(String, &'static str)> { vec![
    // The document.
    (String::new(), "1:1: the file says nothing; start from the `connector.yaml` of this project"),
    ("# nothing\n".into(), "1:1: the file says nothing; start from the `connector.yaml` of this project"),
    ("- a\n".into(), "1:1: expected a mapping, found a list; write its keys on indented lines below, as `key: value`"),
    ("a: b: c".into(), "1:5: not valid YAML: a `:` stands where no key can be; put a value that holds `: ` in quotes, and check the indentation"),
    ("a:\n\t- b".into(), "2:2: not valid YAML: a tab stands where only spaces may; indent with spaces"),
    ("a: @b".into(), "1:4: not valid YAML: a value begins with a character that YAML reserves; put the value in quotes"),
    ("a: *b".into(), "1:4: `*` begins a reference to an anchor that does not exist; put a value with special characters in quotes"),
    ("a: [1".into(), "1:4: not valid YAML: unclosed bracket '['; check this line and the one above: indentation, quotes, brackets"),
    ("a: \"b".into(), "1:4: not valid YAML: unclosed quote; check this line and the one above: indentation, quotes, brackets"),
    ("a: 1\n---\nb: 2".into(), "3:1: the file holds more than one YAML document; keep one"),
    ("? [a]\n: b".into(), "1:1: a key is no plain word; write `key: value`"),
    ("[".repeat(40) + &"]".repeat(40), "1:33: the file is too deep or too large for a configuration; check that it is the right file"),
    // Keys.
    (with_keys("  bath: {}"), "6:3: embedsink.bath: unknown key; did you mean `batch`?"),
    (with_keys("  batch: {max-row: 1}"), "6:11: embedsink.batch.max-row: unknown key; did you mean `max-rows`?"),
    (with_keys("  max-rows: 1"), "6:3: embedsink.max-rows: unknown key; it belongs under `embedsink.batch`"),
    (with_keys("  batch: {zzz: 1}"), "6:11: embedsink.batch.zzz: unknown key; known keys are: max-rows, max-bytes, max-wait"),
    (with_keys("  errors: {tolerance:none: 1}"), "6:12: embedsink.errors.tolerance…: unknown key; put a space after the `:`"),
    (with_keys("  errors: {}\n  errors: {}"), "7:3: embedsink.errors: the key is given twice, first at line 6; keep one"),
    (with_keys("  batch: {max-rows: 1, max_rows: 2}"), "6:24: embedsink.batch.max-rows: the key is given twice, first at line 6; keep one"),
    // Types.
    (with_keys("  batch: 5"), "6:10: embedsink.batch: expected a mapping, found a number; write its keys on indented lines below, as `key: value`"),
    (changed(&[("name: docs", "name: true")]), "1:14: meta.name: expected text, found true or false; put it in quotes"),
    (changed(&[("name: docs", "name: ''")]), "1:14: meta.name: the value is empty; give one, or remove the key"),
    (changed(&[("name: docs", "name: ~")]), "1:8: meta.name: the key has no value; give one, or remove the key"),
    (changed(&[("name: docs", "name: [docs]")]), "1:14: meta.name: expected text, found a list; write one value after the key"),
    // Meta.
    (changed(&[("name: docs, ", "")]), "1:1: meta.name: missing; add a name; stored positions belong to it, so keep it"),
    (changed(&[("name: docs", "name: my docs")]), "1:14: meta.name: `my docs` cannot name a connector; use 1 to 100 letters, digits, `.`, `_` and `-`"),
    (changed(&[("name: docs", "name: docs, type: pgvector-sink")]), "1:26: meta.type: `pgvector-sink` is another connector; write `embedsink`"),
    (changed(&[("name: docs", "name: docs, type: embedsink-source")]), "1:26: meta.type: `embedsink-source` is a source, and this connector is a sink; write `embedsink`"),
    (changed(&[("topic: embeddings", "topic: a/b")]), "1:27: meta.topic: `a/b` cannot name a topic; use 1 to 249 letters, digits, `.`, `_` and `-`, and not only dots"),
    (changed(&[(", topic: embeddings", "")]), "3:12: embedsink.source.kafka.topics: no topic is named; add `topics: [NAME]` here, or `meta.topic`"),
    (changed(&[(META, "name: docs, topic: embeddings, secrets: [{name: 1x}]")]), "1:56: meta.secrets[0].name: the name of the secret is badly formed; use letters, digits and `_`, beginning with no digit"),
    (changed(&[(META, "name: docs, topic: embeddings, secrets: [{name: A}, {name: A}]")]), "1:67: meta.secrets[1].name: the secret is declared twice; keep one"),
    (changed(&[(META, "name: docs, topic: embeddings, secrets: A")]), "1:48: meta.secrets: expected a list, found text; write `[a, b]`, or one item a line after `- `"),
    // Kafka.
    (changed(&[("kafka: {bootstrap-servers: localhost:9092}", "")]), "3:3: embedsink.source: names no source; add `kafka` or `fluvio`, or remove the block to read `meta.topic` from Fluvio"),
    (changed(&[(KAFKA, "")]), "3:12: embedsink.source.kafka.bootstrap-servers: missing; add the brokers to ask first, such as `[localhost:9092]`"),
    (changed(&[(KAFKA, "bootstrap-servers: []")]), "3:39: embedsink.source.kafka.bootstrap-servers: the list is empty; name at least one"),
    (changed(&[(KAFKA, "bootstrap-servers: localhost")]), "3:39: embedsink.source.kafka.bootstrap-servers: `localhost` is no `host:port`; add the port, such as `:9092`"),
    (changed(&[(KAFKA, "bootstrap-servers: [a:1, 'b:0']")]), "3:45: embedsink.source.kafka.bootstrap-servers[1]: `b:0` is no `host:port`; give a port from 1 to 65535"),
    (changed(&[(KAFKA, "bootstrap-servers: ['ssl://a:1']")]), "3:40: embedsink.source.kafka.bootstrap-servers[0]: `ssl://a:1` is no `host:port`; leave the scheme away; the property `security.protocol` says how to connect"),
    (changed(&[(KAFKA, "bootstrap-servers: '::1:9092'")]), "3:39: embedsink.source.kafka.bootstrap-servers: `::1:9092` is no `host:port`; give a host name, an IPv4 address, or an IPv6 address in `[` `]`"),
    (with_kafka("topics: [embeddings, embeddings]"), "3:76: embedsink.source.kafka.topics[1]: `embeddings` is named twice; keep one"),
    (with_kafka("topics: [other]"), "3:63: embedsink.source.kafka.topics: contradicts `meta.topic`, which is not among these topics and would not be read; add it here, or name one of these in `meta.topic`"),
    (with_kafka("start: begining"), "3:62: embedsink.source.kafka.start: `begining` is not known here; did you mean `beginning`?"),
    (with_kafka("start: 5"), "3:62: embedsink.source.kafka.start: `5` is not known here; give `beginning` or `end`"),
    (with_kafka("properties: {enable.auto.commit: true}"), "3:68: embedsink.source.kafka.properties.enable.auto.commit: the connector sets it: positions are stored in PostgreSQL, together with the rows; remove it"),
    (with_kafka("properties: {auto.offset.reset: latest}"), "3:68: embedsink.source.kafka.properties.auto.offset.reset: the connector sets it: a lost position is an error, never a silent jump; use `start`"),
    (with_kafka("properties: {group.id: x}"), "3:68: embedsink.source.kafka.properties.group.id: the connector sets it; use `group-id`"),
    (with_kafka("properties: {isolation.level: read_uncommitted}"), "3:68: embedsink.source.kafka.properties.isolation.level: only `read_committed` is allowed: records of aborted transactions would be written; remove it, or write `read_committed`"),
    (with_kafka("properties: {group.protocol: consumer}"), "3:68: embedsink.source.kafka.properties.group.protocol: only `classic` is allowed: the connector speaks only the classic group protocol yet; remove it, or write `classic`"),
    (with_kafka("properties: {Fetch-Wait: 1}"), "3:68: embedsink.source.kafka.properties.Fetch-Wait: no property of librdkafka is spelt like this; use its dotted, lower-case name, such as `fetch.wait`"),
    (with_kafka("properties: {rebalance_cb: 1}"), "3:68: embedsink.source.kafka.properties.rebalance_cb: a callback cannot be set from a file; remove it"),
    (with_kafka("properties: {topic.auto.offset.reset: latest}"), "3:68: embedsink.source.kafka.properties.topic.auto.offset.reset: the connector sets it: a lost position is an error, never a silent jump; use `start`"),
    (with_kafka("properties: {sesion.timeout.ms: 6000}"), "3:68: embedsink.source.kafka.properties.sesion.timeout.ms: librdkafka has no such property; did you mean `session.timeout.ms`?"),
    (with_kafka("properties: {sesion.timeout.ms: [6000]}"), "3:68: embedsink.source.kafka.properties.sesion.timeout.ms: librdkafka has no such property; did you mean `session.timeout.ms`?"),
    (with_kafka("properties: {key.deserializer: x}"), "3:68: embedsink.source.kafka.properties.key.deserializer: librdkafka has no such property; librdkafka's CONFIGURATION.md lists those that it has"),
    (with_kafka("properties: {session.timeout.ms: soon}"), "3:88: embedsink.source.kafka.properties.session.timeout.ms: librdkafka does not take this value; librdkafka's CONFIGURATION.md says which it takes"),
    (with_kafka("properties: {session.timeout.ms: 0}"), "3:88: embedsink.source.kafka.properties.session.timeout.ms: librdkafka does not take this value; librdkafka's CONFIGURATION.md says which it takes"),
    (with_kafka("properties: {session.timeout.ms: ''}"), "3:88: embedsink.source.kafka.properties.session.timeout.ms: librdkafka does not take this value; librdkafka's CONFIGURATION.md says which it takes"),
    (with_kafka("properties: {ssl.ca.location: [a]}"), "3:85: embedsink.source.kafka.properties.ssl.ca.location: expected one value, found a list; write one value after the key"),
    // PostgreSQL.
    (changed(&[("postgres: {url: postgres://postgres@localhost/db}", "")]), "4:3: embedsink.sink.postgres: missing; add the block with at least `url`"),
    (changed(&[("postgres: {url: postgres://postgres@localhost/db}", "lancedb: {}")]), "4:10: embedsink.sink.lancedb: this build has no LanceDB target; name `embedsink.sink.postgres`"),
    (changed(&[("postgres@", "")]), "4:10: embedsink.sink.postgres.user: missing; add it, or name it in `url`, or set the environment variable `PGUSER`"),
    (changed(&[("postgres://", "mysql://")]), "4:26: embedsink.sink.postgres.url: this is no PostgreSQL URL; write `postgres://user@host:5432/database`"),
    (changed(&[("localhost/db", "localhost:0/db")]), "4:26: embedsink.sink.postgres.url: the port in the URL is no number from 1 to 65535, or the password holds a special character; percent-encode special characters in it, or use `host`, `user` and `password`"),
    (changed(&[("postgres@", "postgres:a/b@")]), "4:26: embedsink.sink.postgres.url: the password in the URL holds a `/` or a `?`; percent-encode special characters in it, or use `host`, `user` and `password`"),
    (changed(&[("localhost/db", "localhost/d%zz")]), "4:26: embedsink.sink.postgres.url: a `%` in the URL is not followed by two hexadecimal digits of UTF-8; write `%25` for `%`"),
    (changed(&[("url: postgres://postgres@localhost/db", "url: 'postgres://a@b:1,c:2/db'")]), "4:26: embedsink.sink.postgres.url: the URL names several servers, and the connector writes to one; name the primary"),
    (changed(&[("localhost/db", "localhost/db?connect_timeout=3")]), "4:26: embedsink.sink.postgres.url: the URL has a parameter that the connector does not know; remove it; `sslmode` is the only one that is understood"),
    (changed(&[("localhost/db", "localhost/db?sslmode=prefer")]), "4:26: embedsink.sink.postgres.url: TLS mode `prefer` falls back to no TLS without a word; give require, verify-ca or verify-full; or disable, for no TLS"),
    (changed(&[("localhost/db", "localhost/db?sslmode=on")]), "4:26: embedsink.sink.postgres.url: `sslmode` in the URL is not known; give disable, require, verify-ca or verify-full"),
    (with_postgres("user: root"), "4:66: embedsink.sink.postgres.user: contradicts `url`, which says something else; keep one of them"),
    (changed(&[(POSTGRES, "host: h, database: d, user: u, port: 0")]), "4:58: embedsink.sink.postgres.port: `0` is out of range: TCP has no other ports; give 1 to 65535"),
    (changed(&[(POSTGRES, "host: 'h:1', database: d, user: u")]), "4:27: embedsink.sink.postgres.host: the host holds a port; move the port to `port`"),
    (changed(&[(POSTGRES, "host: 'postgres://h', database: d, user: u")]), "4:27: embedsink.sink.postgres.host: the host is a URL; move it to `url`"),
    (with_postgres("tls: {mode: allow}"), "4:72: embedsink.sink.postgres.tls.mode: TLS mode `allow` uses TLS only where the server insists; give require, verify-ca or verify-full; or disable, for no TLS"),
    (with_postgres("tls: {mode: verify_full}"), "4:72: embedsink.sink.postgres.tls.mode: `verify_full` is not known here; did you mean `verify-full`?"),
    (with_postgres("tls: {ca-file: no.pem}"), "4:75: embedsink.sink.postgres.tls.ca-file: `no.pem` cannot be read: No such file or directory (os error 2); give a PEM file; a relative path starts at this configuration's folder"),
    (with_postgres("tls: {ca-file: /}"), "4:75: embedsink.sink.postgres.tls.ca-file: `/` is no file; give a PEM file; a relative path starts at this configuration's folder"),
    (changed(&[(POSTGRES, "host: /run, database: d, user: u, tls: {mode: require}")]), "4:67: embedsink.sink.postgres.tls.mode: PostgreSQL speaks no TLS over a Unix socket; remove it, or name a TCP host"),
    (with_postgres("migrate: never"), "4:69: embedsink.sink.postgres.migrate: `never` is not known here; give `auto` or `manual`"),
    // Tables.
    (changed(&[("  tables: {embeddings: {dimensions: 384}}\n", "")]), "2:1: embedsink.tables: missing; add a table, such as `embeddings: {dimensions: 384}`"),
    (changed(&[("{embeddings: {dimensions: 384}}", "")]), "5:3: embedsink.tables: there is no table to write to; add a table, such as `embeddings: {dimensions: 384}`"),
    (changed(&[("embeddings: {dimensions: 384}", "a.b: {dimensions: 384}")]), "5:12: embedsink.tables.a.b: `a.b` names a schema, and tables are found through the search path; name the table alone; the role's `search_path` says in which schema it is"),
    (changed(&[("embeddings: {dimensions: 384}", "'a\\0b': {dimensions: 384}")]).replace('\'', "\""), "5:12: embedsink.tables.a…: the table's name holds a NUL, which PostgreSQL cannot store; remove it"),
    (changed(&[("embeddings: {dimensions: 384}", &format!("{}: {{dimensions: 384}}", "é".repeat(32)))]), "5:12: embedsink.tables.éééééééééééééééééééééééééééééééé: PostgreSQL would cut the name `éééééééééééééééééééééééééééééééé` to 63 bytes; shorten it"),
    (changed(&[("dimensions: 384", "")]), "5:12: embedsink.tables.embeddings.dimensions: missing; say how long its vectors are, such as `384`"),
    (changed(&[("dimensions: 384", "dimension: 384")]), "5:25: embedsink.tables.embeddings.dimension: unknown key; did you mean `dimensions`?"),
    (changed(&[("384", "0")]), "5:37: embedsink.tables.embeddings.dimensions: `0` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000"),
    (changed(&[("384", "-1")]), "5:37: embedsink.tables.embeddings.dimensions: `-1` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000"),
    (changed(&[("384", "16001")]), "5:37: embedsink.tables.embeddings.dimensions: `16001` is out of range: a pgvector column holds between 1 and 16000 dimensions; give 1 to 16000"),
    (changed(&[("384", "3.5")]), "5:37: embedsink.tables.embeddings.dimensions: `3.5` is no whole number; give 1 to 16000"),
    (changed(&[("384", "1_000")]), "5:37: embedsink.tables.embeddings.dimensions: `1_000` is no whole number; give 1 to 16000"),
    (changed(&[("384", "'384'")]), "5:37: embedsink.tables.embeddings.dimensions: expected a whole number, found text; remove the quotes"),
    (changed(&[("384", "[384]")]), "5:37: embedsink.tables.embeddings.dimensions: expected a whole number, found a list; write one value after the key"),
    // Quantities.
    (with_keys("  batch: {max-rows: 0}"), "6:21: embedsink.batch.max-rows: `0` is out of range: a batch holds at least one row, and is kept in memory whole; give 1 to 100000"),
    (with_keys("  batch: {max-rows: many}"), "6:21: embedsink.batch.max-rows: `many` is no whole number; give 1 to 100000"),
    (with_keys("  batch: {max-bytes: 1GiB}"), "6:22: embedsink.batch.max-bytes: `1GiB` is out of range: a batch needs room for a record, and is kept in memory whole; give 64KiB to 256MiB"),
    (with_keys("  batch: {max-bytes: -8MiB}"), "6:22: embedsink.batch.max-bytes: `-8MiB` is out of range: a batch needs room for a record, and is kept in memory whole; give 64KiB to 256MiB"),
    (with_keys("  batch: {max-bytes: 8 apples}"), "6:22: embedsink.batch.max-bytes: `8 apples` is no size; write a number and a unit, such as `8MiB` or `500kB`"),
    (with_keys("  batch: {max-wait: 200}"), "6:21: embedsink.batch.max-wait: `200` has no unit; add a unit: `200ms` or `200s`"),
    (with_keys("  batch: {max-wait: 61s}"), "6:21: embedsink.batch.max-wait: `61s` is out of range: a record waits this long before it is written; give 1ms to 1m"),
    (with_keys("  batch: {max-wait: soon}"), "6:21: embedsink.batch.max-wait: `soon` is no duration; write a number and a unit, such as `200ms`, `5s` or `1m30s`"),
    (with_keys("  errors: {tolerance: all}"), "6:23: embedsink.errors.tolerance: `all` is not known here; give `data` or `none`"),
    (with_keys("  shutdown-timeout: -5s"), "6:21: embedsink.shutdown-timeout: `-5s` is out of range: a stop needs time for the write in flight, but must end; give 100ms to 10m"),
    (with_keys("  shutdown-timeout: 0"), "6:21: embedsink.shutdown-timeout: `0` has no unit; add a unit: `0ms` or `0s`"),
    (with_keys("  shutdown-timeout: 99999999999999999999y"), "6:21: embedsink.shutdown-timeout: `99999999999999999999y` is out of range: a stop needs time for the write in flight, but must end; give 100ms to 10m"),
    // Secrets.
    (with_postgres("password: '${{ secrets.PW }}'"), "4:70: embedsink.sink.postgres.password: the secret `PW` is not declared; add `- name: PW` to `meta.secrets`"),
    (with_postgres("password: '${{ secrets.P-W }}'"), "4:70: embedsink.sink.postgres.password: the name of the secret is badly formed; use letters, digits and `_`, beginning with no digit"),
    (with_postgres("password: '${{ secrets.PW'"), "4:70: embedsink.sink.postgres.password: `${{` has no `}}`; write `${{ secrets.NAME }}`"),
    (with_postgres("password: '${{ env.PW }}'"), "4:70: embedsink.sink.postgres.password: `${{ … }}` names no secret; write `${{ secrets.NAME }}`"),
    (with_postgres("password: {secret: {name: PW}}"), "4:70: embedsink.sink.postgres.password: the secret `PW` is not declared; add `- name: PW` to `meta.secrets`"),
] }
