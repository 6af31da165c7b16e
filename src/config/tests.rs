//! The configuration as its users meet it: files in, settings or sentences out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reference::KEYS;
use super::*;

mod files;
mod fluvio;
mod index;
mod lancedb;
mod mistakes;
mod schema;
mod show;

const REFERENCE: &str = include_str!("../../connector.yaml");
const GUIDE: &str = include_str!("../../docs/configuration.md");
const FLUVIO_MARK: &str = "# Without `source.kafka`,";
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

/// The source, which has to be Kafka.
fn kafka(settings: &Settings) -> &KafkaSettings {
    match &settings.source {
        SourceSettings::Kafka(kafka) => kafka,
        SourceSettings::Fluvio(_) => panic!("it reads from Fluvio"),
    }
}

/// The source, which has to be Fluvio.
fn fluvio(settings: &Settings) -> &FluvioSettings {
    match &settings.source {
        SourceSettings::Fluvio(fluvio) => fluvio,
        SourceSettings::Kafka(_) => panic!("it reads from Kafka"),
    }
}

/// Reads the text as a build with everything in it does.
fn read(text: &str) -> Result<Settings, ConfigError> {
    read_text(
        "c.yaml",
        text,
        &SecretStore::environment(),
        &no_environment,
        Build { fluvio: true, lancedb: true },
    )
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let environment = |name: &str| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    read_text(
        "c.yaml",
        text,
        &SecretStore::environment(),
        &environment,
        Build { fluvio: true, lancedb: true },
    )
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
        Err(error) => error.problems.iter().map(|problem| problem.to_string()[1..].to_owned()).collect(),
    }
}

/// Each file has just its one problem.
fn assert_sentences(cases: Vec<(String, &str)>) {
    let wrong: Vec<String> = cases
        .into_iter()
        .map(|(text, sentence)| (problems(&text).join("\n         "), text, sentence))
        .filter(|(found, _, sentence)| found != sentence)
        .map(|(found, text, sentence)| format!("{text}\nexpected {sentence}\nfound    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
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
        source: SourceSettings::Kafka(KafkaSettings {
            bootstrap_servers: vec!["localhost:9092".to_owned()],
            topics: vec!["embeddings".to_owned()],
            group_id: "docs".to_owned(),
            start: StartAt::Beginning,
            properties: BTreeMap::new(),
        }),
        target: TargetSettings::Postgres(PostgresSettings {
            host: "localhost".to_owned(),
            port: 5432,
            database: "embeddings_db".to_owned(),
            user: "postgres".to_owned(),
            password: None,
            tls: TlsSettings { mode: TlsMode::Disable, ca_file: None, client: None },
            migrate: MigrateMode::Auto,
            prepared: true,
            statement_timeout: Duration::from_secs(120),
        }),
        tables: vec![TableSettings {
            name: "embeddings".to_owned(),
            dimensions: 384,
            stale_writes: StaleWrites::Apply,
            index: None,
            lance_index: None,
        }],
        batch: BatchSettings {
            max_rows: 2000,
            max_bytes: 8 * 1024 * 1024,
            max_wait: Duration::from_millis(200),
            linger: Duration::from_millis(5),
        },
        errors: ErrorSettings {
            tolerance: Tolerance::Data,
            max_ratio_permille: 900,
            window: 1000,
            max_payload: 64 << 20,
            dead_letter_topic: None,
        },
        shutdown_timeout: Duration::from_secs(25),
    };
    assert_eq!(settings, expected);
}

#[test]
fn the_reference_file_shows_every_key_and_the_defaults_that_are_true() {
    for key in KEYS.iter().filter(|key| !key.path.ends_with('*')) {
        let shown = REFERENCE.contains(&format!("{}:", key.name()));
        assert!(shown, "connector.yaml does not show {}", key.path);
    }
    let defaults = [
        "start: beginning",
        "migrate: auto",
        "max-rows: 2000",
        "max-bytes: 8MiB",
        "max-wait: 200ms",
        "linger: 5ms",
    ];
    for line in defaults.into_iter().chain([
        "prepared: true",
        "statement-timeout: 2m",
        "stale-writes: apply",
        "tolerance: data",
        "max-ratio: 0.9",
        "window: 1000",
        "max-payload: 64MiB",
        "shutdown-timeout: 25s",
    ]) {
        assert!(
            REFERENCE.contains(&format!("# {line}")) || REFERENCE.contains(&format!("#   {line}")),
            "{line}"
        );
    }
    let explicit = "  batch: {max-rows: 2000, max-bytes: 8MiB, max-wait: 200ms, linger: 5ms}\n  errors: {tolerance: data, max-ratio: 0.9, \
                    window: 1000, max-payload: 64MiB}\n  \
                    shutdown-timeout: 25s";
    assert_eq!(read(&with_keys(explicit)).unwrap(), read(MINIMAL).unwrap());
}

/// The reference file with every commented key in force.
fn uncommented() -> String {
    // What belongs to Fluvio stands at the end, as a file of its own.
    let (direct, _) = REFERENCE.split_once(FLUVIO_MARK).expect("the reference says what belongs to Fluvio");
    let uncomment = |line: &str| {
        let is_key = line.starts_with(' ') && line.trim_start().starts_with("# ");
        if is_key { line.replacen("# ", "", 1) } else { line.to_owned() }
    };
    direct.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_commented_keys_of_the_reference_file_are_right_too() {
    let text = uncommented()
        .replace("- name: POSTGRES_PASSWORD", "- name: POSTGRES_PASSWORD\n    - name: KAFKA_PASSWORD");
    let secrets = SecretStore::from_text("s", "POSTGRES_PASSWORD=a\nKAFKA_PASSWORD=b").unwrap();
    let error = Settings::from_yaml("c.yaml", &text, &secrets, &no_environment).unwrap_err();
    let found: Vec<&str> = error.problems.iter().map(|problem| problem.path.as_str()).collect();
    // Nothing but the example files is missing, and the password is given twice.
    let expected = [
        "embedsink.source.kafka.ca-file",
        "embedsink.source.kafka.cert-file",
        "embedsink.source.kafka.key-file",
        "embedsink.sink.postgres.password-file",
        "embedsink.sink.postgres.tls.ca-file",
        "embedsink.sink.postgres.tls.cert-file",
        "embedsink.sink.postgres.tls.key-file",
    ];
    assert_eq!(found, expected, "{error}");
}

#[test]
fn the_part_of_the_reference_file_that_belongs_to_lancedb_is_right_too() {
    let (_, part) =
        REFERENCE.split_once("the feature `lancedb` writes").expect("the reference says what is LanceDB's");
    let (part, _) = part.split_once(FLUVIO_MARK).expect("that of Fluvio follows");
    let lines = part.lines().skip(1).map(|line| line.strip_prefix("# ").unwrap_or_default());
    // A folder has none of these.
    let lines = lines.filter(|line| !line.contains("storage-options") && !line.contains("aws_region"));
    let block = lines.collect::<Vec<_>>().join("\n");
    let source = "embedsink:\n  source: {kafka: {bootstrap-servers: localhost:9092}}\n";
    let settings = read(&format!(
        "meta: {{name: docs, topic: t}}\n{}",
        block.trim_start().replace("embedsink:\n", source)
    ));
    let settings = settings.unwrap();
    let index = LanceIndexSettings { method: LanceIndexMethod::HnswSq, metric: LanceMetric::Cosine };
    assert_eq!(settings.tables[0].lance_index, Some(index));
    assert_eq!(settings.batch.max_rows, 10_000);
    let TargetSettings::Lance(lance) = settings.target else { panic!("it is LanceDB") };
    assert_eq!((lance.uri.as_str(), lance.sole_writer), ("data", false));
}

/// The part of the reference file that belongs to Fluvio.
fn uncommented_fluvio() -> String {
    let (_, part) = REFERENCE.split_once(FLUVIO_MARK).expect("the reference says what belongs to Fluvio");
    let lines = part.lines().skip(1).map(|line| line.strip_prefix("# ").unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_part_of_the_reference_file_that_belongs_to_fluvio_is_right_too() {
    let text = uncommented_fluvio();
    let text = format!(
        "{text}\n  sink: {{postgres: {{url: postgres://u@h/d}}}}\n  tables: {{t: {{dimensions: 1}}}}\n"
    );
    let settings = read(&text).unwrap();
    let expected = fluvio(&read(&text.replace("    id: docs ", "    # ")).unwrap()).clone();
    assert_eq!(fluvio(&settings), &expected);
    assert_eq!(expected.consumer.report_every, Some(Duration::from_secs(10)));
    assert_eq!(read(&text.replace("{secs: 10, nanos: 0}", "10s")).unwrap(), settings);
}

#[test]
fn every_example_of_the_documents_is_read_without_a_problem() {
    let folder = Folder::new("examples");
    for name in ["ca.pem", "kafka-ca.pem", "client.pem"] {
        folder.write(name, files::CERTIFICATE);
    }
    folder.write("client.key", files::KEY);
    folder.write("password.txt", "p\n");
    let name = folder.0.join("c.yaml").display().to_string();
    let environment = |name: &str| (name == "POSTGRES_PASSWORD").then(|| "p".to_owned());
    let mut seen = 0;
    for (kind, text) in examples() {
        // A fragment may leave out what the rest of the file says.
        let text = match kind.as_str() {
            "yaml bad" => continue,
            "yaml fragment" => completed(&text),
            _ => text,
        };
        let result = super::read_text(
            &name,
            &text,
            &SecretStore::environment(),
            &environment,
            Build { fluvio: true, lancedb: true },
        );
        assert!(result.is_ok(), "{text}\n{}", result.unwrap_err());
        seen += 1;
    }
    assert!(seen >= 6, "only {seen}");
}

/// The blocks of YAML in the guide, each with what follows its opening mark.
fn examples() -> Vec<(String, String)> {
    let blocks = GUIDE.split("\n```").skip(1).step_by(2);
    let parts = blocks.filter_map(|block| block.split_once('\n'));
    parts
        .filter(|(kind, _)| kind.starts_with("yaml"))
        .map(|(kind, text)| (kind.to_owned(), text.to_owned()))
        .collect()
}

/// The fragment with what it lacks.
fn completed(fragment: &str) -> String {
    let mut text = fragment.to_owned();
    if text.contains("\nmeta:") || text.starts_with("meta:") {
        text = text.replace("meta:\n", "meta:\n  name: docs\n  topic: embeddings\n");
    } else {
        text.push_str("\nmeta: {name: docs, topic: embeddings}\n");
    }
    let mut inside = String::new();
    if text.contains("  sink:") {
        text = text.replace(
            "    postgres:\n      password",
            "    postgres:\n      url: postgres://u@h/d\n      password",
        );
    } else {
        inside.push_str("  sink: {postgres: {url: postgres://u@h/d}}\n");
    }
    inside.push_str("  tables: {embeddings: {dimensions: 384}}\n");
    text.replace("embedsink:\n", &format!("embedsink:\n{inside}"))
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
fn all_problems_are_reported_together_and_in_file_order() {
    let text = "\
embedsink:
  shutdown-timeout: 5
  tables: {a: {dimensions: 0}, a: {dimensions: 1}}
  source: {kafka: {topics: ['', a, a], start: now, properties: {sesion.timeout.ms: 1, check.crcs: x}}}
  sink: {postgres: {password: '${{ secrets.X }}', port: x, tls: {mode: none, ca-file: no}}}
meta: {name: a b, topic: 'a b'}
";
    let error = read(text).unwrap_err();
    let found: Vec<(u32, &str)> =
        error.problems.iter().map(|p| (p.position.unwrap().line, p.path.as_str())).collect();
    let expected = [
        (2, "embedsink.shutdown-timeout"),
        (3, "embedsink.tables.a.dimensions"),
        (3, "embedsink.tables.a"),
        (4, "embedsink.source.kafka.bootstrap-servers"),
        (4, "embedsink.source.kafka.topics[0]"),
        (4, "embedsink.source.kafka.topics[2]"),
        (4, "embedsink.source.kafka.start"),
        (4, "embedsink.source.kafka.properties.sesion.timeout.ms"),
        (4, "embedsink.source.kafka.properties.check.crcs"),
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
    assert!(error.to_string().ends_with("\n18 problems; nothing was started"), "{error}");
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
        (POSTGRES, "host: 10.0.0.1, database: on, user: 0x10, password: 0123"),
        (
            KAFKA,
            "bootstrap-servers: a:1, properties: {check.crcs: true, client.id: 1e3, client.rack: 1.50, \
             group.instance.id: no, sasl.password: '~', sasl.username: .inf}",
        ),
        ("embeddings: {", "2024: {"),
    ]);
    let settings = read(&text).unwrap();
    assert_eq!(settings.connector, "1.10");
    assert_eq!(kafka(&settings).topics, ["007"]);
    assert_eq!(settings.target.postgres().unwrap().database, "on");
    assert_eq!(settings.target.postgres().unwrap().user, "0x10");
    assert_eq!(settings.target.postgres().unwrap().password, Some(Secret::new("0123")));
    assert_eq!(settings.tables[0].name, "2024");
    let values: Vec<&str> = kafka(&settings).properties.values().map(Secret::expose).collect();
    assert_eq!(values, ["true", "1e3", "1.50", "no", "~", ".inf"]);
}

#[test]
fn sizes_and_durations_are_read_with_their_units() {
    let read_batch = |size: &str, wait: &str| {
        read(&with_keys(&format!("  batch: {{max-bytes: {size}, max-wait: {wait}}}"))).unwrap().batch
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
    for (wait, milliseconds) in [("1ms", 1), ("1s", 1000), ("1s 500ms", 1500), ("1m", 60_000), ("0.5s", 500)]
    {
        assert_eq!(read_batch("8MiB", wait).max_wait, Duration::from_millis(milliseconds), "{wait}");
    }
    assert_eq!(read_batch("8MiB", "2ms").linger, Duration::from_millis(2), "no longer than the longest wait");
    let none = read(&with_keys("  batch: {linger: 0s}")).unwrap().batch;
    assert_eq!((none.linger, none.max_wait), (Duration::ZERO, Duration::from_millis(200)));
}

#[test]
fn tables_keep_their_order_and_any_name() {
    let text =
        changed(&[("embeddings: {dimensions: 384}", "z: {dimensions: 1}, 'A b\"c': {dimensions: 16000}")]);
    let tables = read(&text).unwrap().tables;
    let expected = [("z", 1), ("A b\"c", 16_000)].map(|(name, dimensions)| TableSettings {
        name: name.to_owned(),
        dimensions,
        stale_writes: StaleWrites::Apply,
        index: None,
        lance_index: None,
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
    let settings = read(&text).unwrap();
    let source = kafka(&settings);
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
        read_with(&changed(&[(POSTGRES, keys)]), &variables).unwrap().target.postgres().unwrap().clone()
    };

    let from_environment = read("");
    assert_eq!((from_environment.host.as_str(), from_environment.port), ("db.example", 6000));
    assert_eq!(from_environment.password, Some(Secret::new("ep")));
    assert_eq!(from_environment.tls.mode, TlsMode::VerifyFull);

    let mixed = read("url: 'postgresql://u%40x:p%2F@[::1]:7000?sslmode=require', database: d");
    assert_eq!((mixed.host.as_str(), mixed.port, mixed.user.as_str()), ("::1", 7000, "u@x"));
    assert_eq!((mixed.database.as_str(), mixed.password), ("d", Some(Secret::new("p/"))));
    assert_eq!(mixed.tls.mode, TlsMode::Require);

    let agreeing = read("url: postgres://u:p@h:1/d, host: h, port: 1, database: d, user: u, password: p");
    assert_eq!(agreeing.host, "h");

    let socket = read("url: 'postgres://u@%2Frun%2Fpg/d'");
    assert_eq!((socket.host.as_str(), socket.tls.mode), ("/run/pg", TlsMode::Disable));
}

#[test]
fn a_bad_environment_is_a_problem_and_an_empty_variable_is_none() {
    let text = changed(&[(POSTGRES, "database: d, user: u")]);
    let variables = [("PGHOST", "a,b"), ("PGPORT", "x")];
    let error = read_with(&text, &variables).unwrap_err();
    assert_eq!(error.problems.len(), 2, "{error}");
    assert!(
        error.to_string().contains("from the environment variable `PGHOST`: it names several servers"),
        "{error}"
    );
    assert!(error.to_string().contains("the environment variable `PGPORT` is no port"), "{error}");
    let error = read_with(&text, &[("PGHOST", "")]).unwrap_err();
    assert_eq!(error.problems[0].what, "missing");
}

#[test]
fn tls_is_verified_unless_the_host_is_local_or_the_user_says_otherwise() {
    let mode = |host: &str| {
        let text = changed(&[(POSTGRES, &format!("host: '{host}', database: d, user: u"))]);
        read(&text).unwrap().target.postgres().unwrap().tls.mode
    };
    for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1", "/run/postgresql"] {
        assert_eq!(mode(host), TlsMode::Disable, "{host}");
    }
    for host in ["localhost.example", "10.0.0.1", "128.0.0.1", "::2", "db"] {
        assert_eq!(mode(host), TlsMode::VerifyFull, "{host}");
    }
}

#[test]
fn the_tls_mode_of_the_environment_counts_where_neither_key_nor_url_gives_one() {
    let mode = |keys: &str, word: &str| {
        let text = changed(&[(POSTGRES, keys)]);
        read_with(&text, &[("PGSSLMODE", word)]).map(|settings| settings.target.postgres().unwrap().tls.mode)
    };
    let server = "host: h, database: d, user: u";
    for (word, expected) in [
        ("disable", TlsMode::Disable),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
        ("", TlsMode::VerifyFull),
    ] {
        assert_eq!(mode(server, word).unwrap(), expected, "{word}");
    }
    assert_eq!(mode(POSTGRES, "require").unwrap(), TlsMode::Require);
    // Whatever it says, the file comes first.
    for word in ["require", "prefer", "nonsense"] {
        assert_eq!(mode("url: 'postgres://u@h/d?sslmode=verify-ca'", word).unwrap(), TlsMode::VerifyCa);
        assert_eq!(mode(&format!("{server}, tls: {{mode: disable}}"), word).unwrap(), TlsMode::Disable);
    }
    for (keys, word, complaint) in [
        (
            server,
            "prefer",
            ":4:10: embedsink.sink.postgres.tls.mode: from the environment variable `PGSSLMODE`: TLS mode `prefer` \
             falls back to no TLS without a word; give require, verify-ca or verify-full; or disable, for no TLS",
        ),
        (
            server,
            "allow",
            ":4:10: embedsink.sink.postgres.tls.mode: from the environment variable `PGSSLMODE`: TLS mode `allow` \
             uses TLS only where the server insists; give require, verify-ca or verify-full; or disable, for no TLS",
        ),
        (
            server,
            "on",
            ":4:10: embedsink.sink.postgres.tls.mode: the environment variable `PGSSLMODE` is no TLS mode; give \
             disable, require, verify-ca or verify-full",
        ),
        (
            "host: /run, database: d, user: u",
            "require",
            ":4:10: embedsink.sink.postgres.tls.mode: from the environment variable `PGSSLMODE`: PostgreSQL speaks \
             no TLS over a Unix socket; unset it, or name a TCP host",
        ),
    ] {
        let error = mode(keys, word).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert_eq!(error.problems[0].to_string(), complaint);
    }
}

#[test]
fn the_guide_and_the_reference_name_the_variables_that_are_read_and_no_others() {
    let asked = std::cell::RefCell::new(BTreeSet::new());
    let environment = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    let text = changed(&[(POSTGRES, "")]);
    Settings::from_yaml("c.yaml", &text, &SecretStore::environment(), &environment).unwrap_err();
    for document in [GUIDE, REFERENCE] {
        let words = document.split(|c: char| !c.is_ascii_uppercase());
        let named: BTreeSet<String> =
            words.filter(|word| word.starts_with("PG")).map(str::to_owned).collect();
        assert_eq!(named, *asked.borrow());
    }
}

#[test]
fn the_guide_says_what_start_and_max_bytes_really_mean() {
    let guide = GUIDE.split_whitespace().collect::<Vec<_>>().join(" ");
    let too_large = crate::reject::RejectReason::TooLarge;
    for sentence in [
        "`start: end` counts only for a topic that this connector has not read before.",
        "A partition that is added to the topic later begins at its beginning",
        "its records and the rows made of them take this many bytes in memory",
        &format!("a single record whose payload is larger is refused as `{too_large}`"),
    ] {
        assert!(guide.contains(sentence), "{sentence}");
    }
}

#[test]
fn a_ca_file_is_found_beside_the_configuration_and_has_to_fit_the_mode() {
    let folder = Folder::new("ca");
    folder.write("ca.pem", files::CERTIFICATE);
    folder.write("key.txt", "nothing of the kind");
    let load = |tls: &str| {
        let path = folder.write("c.yaml", with_postgres(&format!("tls: {{{tls}}}")));
        Settings::from_file(&path, None)
    };
    let tls = load("ca-file: ca.pem").unwrap().target.postgres().unwrap().tls.clone();
    let ca_file = Some(folder.0.join("ca.pem"));
    assert_eq!(tls, TlsSettings { mode: TlsMode::VerifyFull, ca_file, client: None });
    assert_eq!(
        load("mode: verify-ca, ca-file: ca.pem").unwrap().target.postgres().unwrap().tls.mode,
        TlsMode::VerifyCa
    );
    for mode in ["disable", "require"] {
        let error = load(&format!("mode: {mode}, ca-file: ca.pem")).unwrap_err();
        assert_eq!(error.problems[0].what, "contradicts the TLS mode, which verifies no certificate");
    }
    let path = folder.write("c.yaml", with_postgres("tls: {ca-file: ca.pem}"));
    let text = fs::read_to_string(&path).unwrap();
    let environment = |name: &str| (name == "PGSSLMODE").then(|| "require".to_owned());
    let name = path.display().to_string();
    let error = Settings::from_yaml(&name, &text, &SecretStore::environment(), &environment).unwrap_err();
    assert_eq!(
        error.problems[0].what,
        "contradicts the environment variable `PGSSLMODE`, which verifies no certificate"
    );
    assert_eq!(load("ca-file: key.txt").unwrap_err().problems[0].what, "`key.txt` holds no PEM certificate");
}

#[test]
fn secrets_are_put_in_after_yaml_so_that_no_value_can_inject_any() {
    let declared = "name: docs, topic: embeddings, secrets: [{name: PW}, {name: HOST}]";
    let text = changed(&[
        (META, declared),
        (POSTGRES, "host: 'db.${{secrets.HOST}}', database: d, user: u, password: {secret: {name: PW}}"),
        (KAFKA, "bootstrap-servers: a:1, properties: {sasl.password: '${{ secrets.PW }}!'}"),
    ]);
    for value in
        ["x\"}, user: root, y: {z", "a: b # c", "*a", "line\nuser: root", "${{ secrets.HOST }}", "'", "~"]
    {
        let settings = read_with(&text, &[("PW", value), ("HOST", "example")]).unwrap();
        assert_eq!(settings.target.postgres().unwrap().password.as_ref().map(Secret::expose), Some(value));
        assert_eq!(
            (
                settings.target.postgres().unwrap().user.as_str(),
                settings.target.postgres().unwrap().host.as_str()
            ),
            ("u", "db.example")
        );
        assert_eq!(kafka(&settings).properties["sasl.password"].expose(), format!("{value}!"));
    }
}

#[test]
fn a_secret_may_stand_where_a_number_is_wanted() {
    let text =
        changed(&[(META, "name: docs, topic: t, secrets: [{name: N}]"), ("384", "'${{ secrets.N }}'")]);
    assert_eq!(read_with(&text, &[("N", "12")]).unwrap().tables[0].dimensions, 12);
}

#[test]
fn a_secret_that_is_missing_or_empty_is_named_but_not_shown() {
    let text = changed(&[(META, "name: docs, topic: t, secrets: [{name: PW}]")])
        .replace("localhost/db", "localhost/db, password: '${{ secrets.PW }}'");
    let what = |store: &SecretStore, variables: &[(&str, &str)]| {
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        let error = Settings::from_yaml("c.yaml", &text, store, &environment).unwrap_err();
        let problem = &error.problems[0];
        format!("{}: {}; {}", problem.position.unwrap().line, problem.what, problem.fix)
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
        "source: {kafka: {properties: {session.timeout.ms: SECRET}}}",
        "source: {kafka: {properties: {security.protocol: SECRET}}}",
        "source: {kafka: {properties: {sesion.timeout.ms: SECRET}}}",
        "source: {kafka: SECRET}",
        "sink: {postgres: {url: SECRET}}",
        "sink: {postgres: {password: SECRET, url: 'postgres://u:other@h/d'}}",
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
        let text = format!("{declared}embedsink:\n  {}\n", key.replace("SECRET", "'x ${{ secrets.S }}'"));
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
        "source: {kafka: {properties: {security.protocol: SECRET, client.dns.lookup: SECRET}}}",
        "source: {kafka: {properties: SECRET}}",
    ];
    for key in plain {
        let text = format!("{declared}embedsink:\n  {}\n", key.replace("SECRET", CANARY));
        let error = read(&text).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(CANARY), "{key}: {error}");
    }
    let good = changed(&[
        (POSTGRES, &format!("url: postgres://u:{CANARY}@h/d")),
        (KAFKA, &format!("{KAFKA}, properties: {{sasl.password: {CANARY}, client.id: {CANARY}}}")),
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
    let text = changed(&[("embeddings: {dimensions: 384}", "a: &d {dimensions: 3}, b: {<<: *d}")]);
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
    assert_eq!(Settings::from_file(&good, Some(&secrets)).unwrap(), read(MINIMAL).unwrap());
}

#[test]
fn damaged_files_neither_panic_nor_show_a_password() {
    // A small generator with a fixed seed, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    let everything = uncommented()
        .replace("${{ secrets.POSTGRES_PASSWORD }}", CANARY)
        .replace("${{ secrets.KAFKA_PASSWORD }}", CANARY)
        .replace("postgres@", &format!("postgres:{CANARY}@"));
    let through_fluvio = uncommented_fluvio();
    let characters: Vec<char> = ":-[]{}#&*!|>'\"%@`,?~ \n\t\r\0é\u{feff}0a$.<=".chars().collect();
    for round in 0..3000 {
        let whole = [REFERENCE, &everything, &through_fluvio][round % 3];
        let mut text: Vec<char> = whole.chars().collect();
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
            let shown = format!("{error}{error:?}");
            let fine = !error.problems.is_empty() && !shown.contains("bug") && !shown.contains(CANARY);
            assert!(
                fine,
                "{text}
{error}"
            );
        }
    }
}

#[test]
fn checks_of_the_brokers_certificates_that_are_off_are_known() {
    let unchecked = |properties: &str| {
        let settings = read(&with_kafka(&format!("properties: {{{properties}}}"))).unwrap();
        kafka(&settings).unchecked()
    };
    assert!(unchecked("security.protocol: ssl").is_empty());
    let off = "ssl.endpoint.identification.algorithm: none, enable.ssl.certificate.verification: False";
    assert!(unchecked(off).is_empty(), "there is no TLS");
    assert_eq!(unchecked(&format!("security.protocol: SASL_SSL, {off}")).len(), 2);
    let back_on = "ssl.endpoint.identification.algorithm: https, enable.ssl.certificate.verification: true";
    assert!(unchecked(&format!("security.protocol: ssl, {back_on}")).is_empty());
}

#[test]
fn what_bad_records_do_can_be_set() {
    let settings = read(&with_keys(
        "  errors: {tolerance: data, max-ratio: 0.25, window: 10, max-payload: 1KiB, dead-letter-topic: dlq}",
    ))
    .unwrap();
    let expected = ErrorSettings {
        tolerance: Tolerance::Data,
        max_ratio_permille: 250,
        window: 10,
        max_payload: 1024,
        dead_letter_topic: Some("dlq".to_owned()),
    };
    assert_eq!(settings.errors, expected);
    let settings = read(&with_keys("  errors: {tolerance: none}")).unwrap();
    assert_eq!(settings.errors.tolerance, Tolerance::None);
    for (ratio, permille) in [("1", 1000), ("1.0", 1000), ("0.001", 1), ("9e-1", 900), (".5", 500)] {
        let settings = read(&with_keys(&format!("  errors: {{max-ratio: {ratio}}}"))).unwrap();
        assert_eq!(settings.errors.max_ratio_permille, permille, "{ratio}");
    }
}
