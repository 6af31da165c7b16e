//! What a valid configuration says, as plain values.
//!
//! Everything here has passed validation. Nothing here knows YAML, and `Debug` shows no secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::framework::config::{FluvioSettings, StartAt};
use crate::framework::secret::Secret;

/// The whole configuration of one connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The connector's name. It names the connector's rows in the offsets table, so two connectors never
    /// share it.
    pub connector: String,
    /// Where records come from.
    pub source: SourceSettings,
    /// Where rows go.
    pub postgres: PostgresSettings,
    /// The target tables, never empty. The first takes records that name none.
    pub tables: Vec<TableSettings>,
    /// When a batch is full.
    pub batch: BatchSettings,
    /// What a bad record does.
    pub tolerance: Tolerance,
    /// How long a stop may take before it gives up.
    pub shutdown_timeout: Duration,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// `embedsink.source.kafka`.
    Kafka(KafkaSettings),
    /// `meta.topic` on a Fluvio cluster.
    Fluvio(FluvioSettings),
}

impl SourceSettings {
    /// Where a partition with no stored offset begins, when nothing of its topic was read before.
    pub fn start(&self) -> StartAt {
        match self {
            Self::Kafka(kafka) => kafka.start,
            Self::Fluvio(fluvio) => fluvio.consumer.start,
        }
    }
}

/// How to read from Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// The first brokers to ask, each `host:port`, never empty.
    pub bootstrap_servers: Vec<String>,
    /// The topics to read, never empty, no name twice.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// Where a partition with no stored offset begins, when nothing of its topic was read before.
    pub start: StartAt,
    /// Further librdkafka properties, none of which the connector sets itself. A value may be a secret.
    /// `ca-file`, `cert-file` and `key-file` are among them, as `ssl.*.location`.
    pub properties: BTreeMap<String, Secret>,
}

/// How to reach PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// A host name, an address, or the folder of a Unix socket (it then begins with `/`).
    pub host: String,
    /// The TCP port, or the number in the socket's file name.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role to log in as.
    pub user: String,
    /// The password, when there is one.
    pub password: Option<Secret>,
    /// How the connection is protected.
    pub tls: TlsSettings,
    /// Who applies the migrations.
    pub migrate: MigrateMode,
}

/// How a connection to PostgreSQL is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// What is asked of the server.
    pub mode: TlsMode,
    /// A PEM file of the authorities to trust in place of the system's. It could be read when the
    /// configuration was. Always `None` when `mode` does not verify.
    pub ca_file: Option<PathBuf>,
    /// What the connector proves itself with. Always `None` without TLS.
    pub client: Option<ClientSettings>,
}

/// A certificate of the connector itself, for a server that asks for one. Both files could be read when the
/// configuration was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// A PEM file: the certificate first, then those between it and the authority.
    pub cert_file: PathBuf,
    /// A PEM file of its private key, which is not encrypted.
    pub key_file: PathBuf,
}

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS, with any certificate.
    Require,
    /// TLS, with a certificate from a trusted authority.
    VerifyCa,
    /// TLS, with a certificate from a trusted authority that names the host.
    VerifyFull,
}

/// Who applies the migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigrateMode {
    /// The connector, when it starts.
    #[default]
    Auto,
    /// A person, with `embedsink migrate`. The connector only checks.
    Manual,
}

/// One target table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Its name as PostgreSQL spells it, not quoted, 1 to 63 bytes.
    pub name: String,
    /// The dimensions of its vectors, 1 to 16,000.
    pub dimensions: u16,
}

/// When a batch is full: at whichever limit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Records, 1 to 100,000.
    pub max_rows: usize,
    /// Bytes that rows and rejected records take in memory, after decoding; also the largest payload of a
    /// single record. 64 KiB to 256 MiB.
    pub max_bytes: usize,
    /// The longest that a record waits for others, 1 ms to 60 s.
    pub max_wait: Duration,
}

/// What a bad record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tolerance {
    /// It becomes a dead letter and the connector goes on.
    #[default]
    Data,
    /// It stops the connector.
    None,
}
