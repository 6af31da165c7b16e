//! The configuration: one YAML file in, [`Settings`] out, or every problem of the file at once.
//!
//! The way of a file: `node` makes YAML a tree that knows its places, `template` puts the secrets in,
//! `section` and `field` give strict, typed access, and one file for each block (`meta`, `kafka`,
//! `postgres`, `tls`, `tables`) makes its settings. `keys` lists every key there is.
//!
//! Invariant: either every value of [`Settings`] is valid, or there is one [`Problem`] for each that is
//! not. No message and no `Debug` shows a secret, and no connection is opened.

mod field;
mod kafka;
mod keys;
mod meta;
mod node;
mod postgres;
mod problem;
mod quantity;
mod secret;
mod section;
mod settings;
mod tables;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use std::path::Path;
use std::time::Duration;

use node::Node;
use problem::Report;
use quantity::Limits;
use section::Section;
use template::Secrets;

pub use crate::framework::config::{FluvioSettings, StartAt};
pub(crate) use keys::nearest;
pub use problem::{ConfigError, Position, Problem};
pub use secret::{Secret, SecretStore};
pub use settings::{
    BatchSettings, KafkaSettings, MigrateMode, PostgresSettings, Settings, SourceSettings, TableSettings,
    TlsMode, TlsSettings, Tolerance,
};

impl Settings {
    /// Reads the configuration at `path`. Secrets come from the file `secrets`, or from the environment
    /// without one.
    ///
    /// # Errors
    /// Every problem of the first file that has one, the secrets file being read first.
    pub fn from_file(path: &Path, secrets: Option<&Path>) -> Result<Self, ConfigError> {
        let text = secret::read_text(path, "check the path after `--config`")?;
        let store = secrets.map_or_else(|| Ok(SecretStore::environment()), SecretStore::from_file)?;
        Self::from_yaml(&path.display().to_string(), &text, &store, &|name| std::env::var(name).ok())
    }

    /// Reads the configuration in `text`. `file_name` names it in problems, and its folder is where relative
    /// paths start. `environment` answers for environment variables.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn from_yaml(
        file_name: &str,
        text: &str,
        secrets: &SecretStore,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut root = node::parse(text)
            .map_err(|problem| ConfigError { file: file_name.to_owned(), problems: vec![problem] })?;
        let mut report = Report::default();
        let declared = meta::declared_secrets(&root, &mut report);
        Secrets { declared, store: secrets, environment }.put_into(&mut root, "", &mut report);
        let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let settings = read_root(&root, folder, environment, &mut report);
        report.finish(file_name, settings)
    }
}

fn read_root(
    root: &Node,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<Settings> {
    if matches!(root.value, node::Value::Null) {
        report.add(root.at, "", "the file says nothing", "start from the `connector.yaml` of this project");
        return None;
    }
    let root = Section::open(root, "", root.at, "", report)?;
    read_version(&root, report);
    let meta = match root.require("meta", "add the block with at least `name`", report) {
        Some(field) => Section::open(field.node, &field.path, field.key_at, "meta", report),
        None => None,
    };
    let meta = meta.map(|section| meta::read(&section, report));
    let field = root.require("embedsink", "add the block with `source`, `sink` and `tables`", report)?;
    let embedsink = Section::open(field.node, &field.path, field.key_at, "embedsink", report)?;

    let meta = meta.unwrap_or(meta::Meta { name: None, topic: meta::Topic::Bad });
    let source = embedsink
        .section("source", "embedsink.source", report)
        .and_then(|source| {
            let fix = "add the block; this build reads from Kafka only";
            let field = source.require("kafka", fix, report)?;
            Section::open(field.node, &field.path, field.key_at, "embedsink.source.kafka", report)
        })
        .and_then(|kafka| kafka::read(&kafka, &meta, report));
    let postgres = embedsink
        .section("sink", "embedsink.sink", report)
        .and_then(|sink| {
            let field = sink.require("postgres", "add the block with at least `url`", report)?;
            Section::open(field.node, &field.path, field.key_at, "embedsink.sink.postgres", report)
        })
        .and_then(|postgres| postgres::read(&postgres, folder, environment, report));
    let tables = tables::read(&embedsink, report);
    let batch = read_batch(&embedsink, report);
    let tolerance = read_tolerance(&embedsink, report);
    let shutdown_timeout = match embedsink.get("shutdown-timeout") {
        Some(field) => field.duration(&SHUTDOWN_TIMEOUT, report),
        None => Some(Duration::from_secs(25)),
    };
    Some(Settings {
        connector: meta.name?,
        source: SourceSettings::Kafka(source?),
        postgres: postgres?,
        tables: tables?,
        batch: batch?,
        tolerance: tolerance?,
        shutdown_timeout: shutdown_timeout?,
    })
}

fn read_version(root: &Section<'_>, report: &mut Report) {
    const FIX: &str = "write `apiVersion: 0.1.0`";
    if let Some(field) = root.get("apiVersion")
        && field.text(report).is_some_and(|version| version != "0.1.0")
    {
        field.complain(report, format!("this build knows no apiVersion {}", field.quoted()), FIX);
    }
}

const MAX_ROWS: Limits<u32> =
    Limits { least: 1, most: 100_000, why: "a batch holds at least one row, and is kept in memory whole" };
const MAX_BYTES: Limits<usize> = Limits {
    least: 64 << 10,
    most: 256 << 20,
    why: "a batch needs room for a record, and is kept in memory whole",
};
const MAX_WAIT: Limits<Duration> = Limits {
    least: Duration::from_millis(1),
    most: Duration::from_secs(60),
    why: "a record waits this long before it is written",
};
const SHUTDOWN_TIMEOUT: Limits<Duration> = Limits {
    least: Duration::from_millis(100),
    most: Duration::from_secs(600),
    why: "a stop needs time for the write in flight, but must end",
};

fn read_batch(embedsink: &Section<'_>, report: &mut Report) -> Option<BatchSettings> {
    let batch = embedsink.section("batch", "embedsink.batch", report)?;
    let max_rows = match batch.get("max-rows") {
        Some(field) => field.count(&MAX_ROWS, report).and_then(|rows| usize::try_from(rows).ok()),
        None => Some(2000),
    };
    let max_bytes = match batch.get("max-bytes") {
        Some(field) => field.size(&MAX_BYTES, report),
        None => Some(8 << 20),
    };
    let max_wait = match batch.get("max-wait") {
        Some(field) => field.duration(&MAX_WAIT, report),
        None => Some(Duration::from_millis(200)),
    };
    Some(BatchSettings { max_rows: max_rows?, max_bytes: max_bytes?, max_wait: max_wait? })
}

fn read_tolerance(embedsink: &Section<'_>, report: &mut Report) -> Option<Tolerance> {
    let errors = embedsink.section("errors", "embedsink.errors", report)?;
    match errors.get("tolerance") {
        Some(field) => field.choice(&[("data", Tolerance::Data), ("none", Tolerance::None)], report),
        None => Some(Tolerance::default()),
    }
}
