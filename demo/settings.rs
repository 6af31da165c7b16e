//! What the demo takes from `connector.yaml`, so that it talks to the servers the connector uses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio_postgres::Config;

/// The folder for what the demo writes, below the root of the repository. Git ignores it.
pub(crate) const WORK: &str = ".local/demo";

/// The servers, the topic and the names of one run.
pub(crate) struct Settings {
    /// The connector's name, as its rows in `embedsink.offsets` carry it.
    pub(crate) name: String,
    /// The topic that the records go to.
    pub(crate) topic: String,
    /// Kafka's addresses, separated by commas.
    pub(crate) bootstrap: String,
    /// How to reach Postgres, if that is what the connector writes to.
    postgres: Option<Config>,
    /// The configuration file for the connector, relative to the root of the repository.
    pub(crate) file: PathBuf,
}

/// The part of `connector.yaml` that the demo reads.
#[derive(Deserialize)]
struct File {
    meta: Meta,
    embedsink: Section,
}

/// The section `meta`.
#[derive(Deserialize)]
struct Meta {
    name: String,
    topic: String,
}

/// The section `embedsink`.
#[derive(Deserialize)]
struct Section {
    source: Source,
    sink: Sink,
}

/// The section `source`.
#[derive(Deserialize)]
struct Source {
    kafka: Kafka,
}

/// The section `source.kafka`.
#[derive(Deserialize)]
struct Kafka {
    #[serde(rename = "bootstrap-servers", alias = "bootstrap_servers")]
    bootstrap_servers: Vec<String>,
}

/// The section `sink`.
#[derive(Deserialize)]
struct Sink {
    postgres: Option<Postgres>,
}

/// The section `sink.postgres`.
#[derive(Deserialize)]
struct Postgres {
    url: String,
}

impl Settings {
    /// Reads the configuration. If the servers have other ports, or the connector is to keep its files with the
    /// demo's, writes a copy to where those are.
    pub(crate) fn read(source: &str, keeps_files: bool) -> Result<Self> {
        fs::create_dir_all(root().join(WORK))
            .with_context(|| format!("The folder {WORK} cannot be created"))?;
        let mut file = PathBuf::from(source);
        let original =
            fs::read_to_string(root().join(&file)).with_context(|| format!("{source} cannot be read"))?;
        let mut text = with_port(&original, 9092, "KAFKA_PORT")?;
        if text.contains("postgres:") {
            text = with_port(&text, 5432, "POSTGRES_PORT")?;
        }
        if keeps_files || text != original {
            file = Path::new(WORK).join(file.file_name().context("The configuration has no name")?);
            fs::write(root().join(&file), &text)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        let parsed: File =
            serde_saphyr::from_str(&text).with_context(|| format!("{source} lacks what the demo needs"))?;
        Ok(Self {
            name: parsed.meta.name,
            topic: parsed.meta.topic,
            bootstrap: parsed.embedsink.source.kafka.bootstrap_servers.join(","),
            postgres: match parsed.embedsink.sink.postgres {
                Some(postgres) => Some(postgres.url.parse().context("The Postgres url cannot be read")?),
                None => None,
            },
            file,
        })
    }

    /// How to reach Postgres.
    pub(crate) fn postgres(&self) -> Result<&Config> {
        self.postgres.as_ref().with_context(|| format!("{} names no Postgres", self.file.display()))
    }

    /// A command that opens the demo's database.
    pub(crate) fn psql(&self) -> Result<String> {
        let postgres = self.postgres()?;
        let user = postgres.get_user().unwrap_or("postgres");
        let database = postgres.get_dbname().unwrap_or(user);
        let port = postgres.get_ports().first().copied().unwrap_or(5432);
        Ok(format!("psql -h localhost -p {port} -U {user} {database}"))
    }
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Puts the port that an environment variable names in place of the default one.
fn with_port(text: &str, default: u16, variable: &str) -> Result<String> {
    let Ok(value) = env::var(variable) else {
        return Ok(text.to_owned());
    };
    let port: u16 = value.parse().with_context(|| format!("{variable}={value} is not a port"))?;
    if port == default {
        return Ok(text.to_owned());
    }
    let address = format!("localhost:{default}");
    if !text.contains(&address) {
        bail!("{variable} is {port}, but the configuration has no {address} to put it in place of.");
    }
    Ok(text.replace(&address, &format!("localhost:{port}")))
}
