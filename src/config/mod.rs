//! The configuration: one YAML file in, [`Settings`] out, or every problem of the file at once.
//!
//! The way of a file: `node` makes YAML a tree that knows its places, `template` puts the secrets in,
//! `section` and `field` give strict, typed access, `source` tells Kafka from Fluvio, and one file for each
//! block (`meta`, `topic`, `consumer`, `transforms`, `kafka`, `fluvio`, `postgres`, `tls`, `tables`, `errors`)
//! makes its settings. `reference` describes every key there is, once: for the reader, for `schema`, which
//! writes `Connector.toml` and the table of the guide, and for `show`, which tells what is in force and why.
//!
//! Invariant: either every value of [`Settings`] is valid, or there is one [`Problem`] for each that is
//! not. No message and no `Debug` shows a secret, and no connection is opened.

mod consumer;
mod errors;
mod field;
pub(crate) mod file;
mod fluvio;
mod index;
mod kafka;
mod keys;
mod meta;
mod node;
mod postgres;
pub(crate) mod problem;
mod quantity;
mod reference;
mod schema;
mod section;
mod settings;
mod show;
mod source;
mod tables;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod topic;
mod transforms;
mod url;

use std::path::Path;
use std::time::Duration;

use node::Node;
use problem::{Origin, Report, Resolved};
use quantity::Limits;
use section::Section;
use source::{Build, Chosen};
use template::Secrets;
use topic::{Form, Taker, Topic};

pub use crate::framework::config::{FluvioSettings, StartAt};
pub use crate::framework::secret::{Secret, SecretStore};
pub(crate) use keys::nearest;
pub use problem::{ConfigError, Position, Problem};
pub use schema::{connector_toml, key_table};
pub use settings::{
    BatchSettings, ClientSettings, ErrorSettings, IndexBuildTime, IndexSettings, KafkaSettings, MigrateMode,
    PostgresSettings, Settings, SourceSettings, StaleWrites, TableSettings, TlsMode, TlsSettings, Tolerance,
};
pub use show::{Setting, Shown, show};

impl Settings {
    /// Reads the configuration at `path`. Secrets come from the file `secrets`, or from the environment
    /// without one.
    ///
    /// # Errors
    /// Every problem of the first file that has one, the secrets file being read first.
    pub fn from_file(path: &Path, secrets: Option<&Path>) -> Result<Self, ConfigError> {
        let text = file::read_text(path, "check the path after `--config`")?;
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
        read_text(file_name, text, secrets, environment, Build::THIS)
    }
}

/// [`Settings::from_yaml`], as a build reads it that has what `build` says.
fn read_text(
    file_name: &str,
    text: &str,
    secrets: &SecretStore,
    environment: &dyn Fn(&str) -> Option<String>,
    build: Build,
) -> Result<Settings, ConfigError> {
    read_tree(file_name, text, secrets, environment, build).map(|(_, settings, _)| settings)
}

/// The same with the tree that the settings were made of, and with what it does not say.
fn read_tree(
    file_name: &str,
    text: &str,
    secrets: &SecretStore,
    environment: &dyn Fn(&str) -> Option<String>,
    build: Build,
) -> Result<(Node, Settings, Vec<Resolved>), ConfigError> {
    let mut root = node::parse(text)
        .map_err(|problem| ConfigError { file: file_name.to_owned(), problems: vec![problem] })?;
    let mut report = Report::default();
    let declared = meta::declared_secrets(&root, &mut report);
    Secrets { declared, store: secrets, environment }.put_into(&mut root, "", &mut report);
    let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let settings = Reader { folder, environment, build }.read(&root, &mut report);
    let resolved = report.take_resolved();
    let settings = report.finish(file_name, settings)?;
    Ok((root, settings, resolved))
}

/// What a configuration is read with.
struct Reader<'e> {
    folder: &'e Path,
    environment: &'e dyn Fn(&str) -> Option<String>,
    build: Build,
}

impl Reader<'_> {
    fn read(&self, root: &Node, report: &mut Report) -> Option<Settings> {
        if matches!(root.value, node::Value::Null) {
            report.add(
                root.at,
                "",
                "the file says nothing",
                "start from the `connector.yaml` of this project",
            );
            return None;
        }
        let root = Section::open(root, "", root.at, "", report)?;
        let form = read_version(&root, report);
        let meta = match root.require("meta", "add the block with at least `name`", report) {
            Some(field) => Section::open(field.node, &field.path, field.key_at, "meta", report),
            None => None,
        };
        let fix = "add the block with `sink` and `tables`";
        let embedsink = match root.require("embedsink", fix, report) {
            Some(field) => Section::open(field.node, &field.path, field.key_at, "embedsink", report),
            None => None,
        };
        let chosen = match &embedsink {
            Some(embedsink) => source::choose(embedsink, self.build, report),
            None => Chosen::Unclear,
        };
        let (connector, source) = self.read_source(&root, meta.as_ref(), form, &chosen, report);
        let embedsink = embedsink?;
        let postgres = embedsink
            .section("sink", "embedsink.sink", report)
            .and_then(|sink| {
                let field = sink.require("postgres", "add the block with at least `url`", report)?;
                Section::open(field.node, &field.path, field.key_at, "embedsink.sink.postgres", report)
            })
            .and_then(|postgres| postgres::read(&postgres, self.folder, self.environment, report));
        let prepared = postgres.as_ref().is_none_or(|postgres| postgres.prepared);
        let tables = tables::read(&embedsink, prepared, report);
        let batch = read_batch(&embedsink, report);
        let errors = errors::read(&embedsink, &chosen, source.as_ref(), report);
        let shutdown_timeout = match embedsink.get("shutdown-timeout") {
            Some(field) => field.duration(&SHUTDOWN_TIMEOUT, report),
            None => Some(Duration::from_secs(25)),
        };
        Some(Settings {
            connector: connector?,
            source: source?,
            postgres: postgres?,
            tables: tables?,
            batch: batch?,
            errors: errors?,
            shutdown_timeout: shutdown_timeout?,
        })
    }

    /// The connector's name, and the source.
    fn read_source(
        &self,
        root: &Section<'_>,
        meta: Option<&Section<'_>>,
        form: Form,
        chosen: &Chosen<'_>,
        report: &mut Report,
    ) -> (Option<String>, Option<SourceSettings>) {
        let taker = match chosen {
            Chosen::Kafka(_) => Taker::Kafka,
            Chosen::Fluvio(_) => Taker::Fluvio,
            Chosen::Unclear => Taker::Unclear,
        };
        let read = match meta {
            Some(meta) => meta::read(meta, form, taker, report),
            None => meta::Meta { name: None, topic: Topic::Bad },
        };
        let source = match chosen {
            Chosen::Kafka(kafka) => {
                source::refuse_fluvio_keys(root, meta, report);
                kafka::read(kafka, &read, self.folder, report).map(SourceSettings::Kafka)
            }
            Chosen::Fluvio(block) => {
                fluvio::read(block, root, meta, &read, report).map(SourceSettings::Fluvio)
            }
            Chosen::Unclear => {
                // Whatever the source turns out to be, what is wrong here is worth knowing now.
                if let Some(meta) = meta {
                    consumer::read(meta, read.name.as_deref(), report);
                }
                transforms::read(root, report);
                None
            }
        };
        (read.name, source)
    }
}

/// How this version of the format gives the topic.
fn read_version(root: &Section<'_>, report: &mut Report) -> Form {
    let Some(field) = root.get("apiVersion") else {
        return Form::Text { version: "without `apiVersion`" };
    };
    match field.text(report) {
        Some("0.0.0") => Form::Text { version: "with apiVersion 0.0.0" },
        Some("0.1.0") => Form::Text { version: "with apiVersion 0.1.0" },
        Some("0.2.0") => Form::Mapping,
        Some(_) => {
            let what = format!("this build knows no apiVersion {}", field.quoted());
            field.complain(report, what, "write `apiVersion: 0.1.0`, or 0.2.0 if `meta.topic` is a mapping");
            Form::Any
        }
        None => Form::Any,
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
const LINGER: Limits<Duration> = Limits {
    least: Duration::ZERO,
    most: Duration::from_secs(60),
    why: "a record waits this long before it is written, though it could be at once",
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
    let linger = match batch.get("linger") {
        Some(field) => field.duration(&LINGER, report).and_then(|linger| {
            let fits = max_wait.is_none_or(|max_wait| linger <= max_wait);
            if !fits {
                let what = format!("{} is longer than `batch.max-wait`", field.quoted());
                field.complain(report, what, "give less, or raise max-wait");
            }
            fits.then_some(linger)
        }),
        None => {
            let linger = max_wait.map(|max_wait| max_wait.min(Duration::from_millis(5)));
            let text = linger.map(quantity::exact_duration);
            report.resolve(format!("{}.linger", batch.path), text, Origin::Default);
            linger
        }
    };
    Some(BatchSettings { max_rows: max_rows?, max_bytes: max_bytes?, max_wait: max_wait?, linger: linger? })
}
