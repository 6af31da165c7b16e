//! What a valid configuration says, as plain values.
//!
//! Everything here has passed validation. Nothing here knows YAML, and `Debug` shows no secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sink_postgres_vector::IndexSpec;

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
    pub target: TargetSettings,
    /// The target tables, never empty. The first takes records that name none.
    pub tables: Vec<TableSettings>,
    /// When a batch is full.
    pub batch: BatchSettings,
    /// What bad records do.
    pub errors: ErrorSettings,
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

impl KafkaSettings {
    /// The properties, as the file spells them, that switch a check of the brokers' certificates off. Empty
    /// without TLS, for there is none to check then.
    pub fn unchecked(&self) -> Vec<&'static str> {
        const OFF: &[(&str, &[&str], &str)] = &[
            (
                "ssl.endpoint.identification.algorithm",
                &["none"],
                "ssl.endpoint.identification.algorithm: none",
            ),
            (
                "enable.ssl.certificate.verification",
                &["false", "f", "0"],
                "enable.ssl.certificate.verification: false",
            ),
        ];
        let value = |name: &str| self.properties.get(name).map(|value| value.expose().to_lowercase());
        if !value("security.protocol").is_some_and(|protocol| protocol.contains("ssl")) {
            return Vec::new();
        }
        let is_off = |name: &str, words: &[&str]| value(name).is_some_and(|value| words.contains(&&*value));
        OFF.iter().filter(|(name, words, _)| is_off(name, words)).map(|(.., shown)| *shown).collect()
    }
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSettings {
    /// `embedsink.sink.postgres`.
    Postgres(PostgresSettings),
    /// `embedsink.sink.lancedb`. Only in builds with the feature `lancedb`.
    Lance(LanceSettings),
}

impl TargetSettings {
    /// The server, if that is what rows go to.
    pub fn postgres(&self) -> Option<&PostgresSettings> {
        match self {
            Self::Postgres(postgres) => Some(postgres),
            Self::Lance(_) => None,
        }
    }
}

/// Which LanceDB dataset to write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanceSettings {
    /// A folder, or the URI of an object store. Holds no credential.
    pub uri: String,
    /// What the object store needs, by LanceDB's own names. Empty for a folder.
    pub storage_options: BTreeMap<String, Secret>,
    /// That nothing else writes there, on the word of whoever wrote the file. Always `true` for an object store.
    pub sole_writer: bool,
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
    /// Whether statements are prepared by name, which a pooler in transaction mode cannot serve.
    pub prepared: bool,
    /// How long one statement may take, 1 s to 1 h.
    pub statement_timeout: Duration,
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
    /// What a record does that is older than the row that is there.
    pub stale_writes: StaleWrites,
    /// The vector index in PostgreSQL that the connector sees to; without one it does nothing about indexes.
    pub index: Option<IndexSettings>,
    /// The same in LanceDB. Never both.
    pub lance_index: Option<LanceIndexSettings>,
}

/// A table's vector index in LanceDB. It is built by the writer once the table has enough rows, and kept up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanceIndexSettings {
    /// What it is like.
    pub method: LanceIndexMethod,
    /// The distance it is made for.
    pub metric: LanceMetric,
}

/// What LanceDB's vector indexes are like. All are in partitions (IVF).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanceIndexMethod {
    /// A graph in each partition, over numbers of 8 bits.
    HnswSq,
    /// Product quantization.
    Pq,
    /// Whole vectors.
    Flat,
}

/// The distances that LanceDB's indexes are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanceMetric {
    /// Cosine distance.
    Cosine,
    /// Euclidean distance.
    L2,
    /// Inner product.
    Dot,
}

/// A table's vector index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSettings {
    /// What it is like. pgvector takes it for the table's dimensions.
    pub spec: IndexSpec,
    /// When it is built.
    pub build: IndexBuildTime,
    /// The most bytes for `maintenance_work_mem`, at least 64 MiB.
    pub maintenance_memory: usize,
    /// The most parallel workers; otherwise as many as the server's setting lets a build have.
    pub workers: Option<u16>,
}

/// When an index that is not there is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexBuildTime {
    /// When the backlog is written.
    Deferred,
    /// Before the first record is read.
    Immediate,
}

/// What a record does whose `timestamp` is older than the stored row's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StaleWrites {
    /// It is written: the order of the log counts.
    #[default]
    Apply,
    /// It is not written, nor does it delete.
    Skip,
}

/// When a batch is full: at whichever limit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Records, 1 to 100,000.
    pub max_rows: usize,
    /// Bytes that the records and the rows made of them take in memory; also the largest payload of a
    /// single record. 64 KiB to 256 MiB.
    pub max_bytes: usize,
    /// The longest that a record waits for others, 1 ms to 60 s.
    pub max_wait: Duration,
    /// How long it waits for them though the writer is free, 0 to `max_wait`.
    pub linger: Duration,
}

/// What bad records do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorSettings {
    /// What a single one does.
    pub tolerance: Tolerance,
    /// When more than this many in a thousand of the last `window` records were rejected, the connector stops.
    /// 1 to 1000; at 1000 it never does. Thousandths, for they compare exactly.
    pub max_ratio_permille: u32,
    /// Over how many records the ratio is taken, 10 to 1,000,000.
    pub window: usize,
    /// The most bytes of a payload that a dead letter keeps, 1 KiB to 512 MiB.
    pub max_payload: usize,
    /// A Kafka topic that gets every dead letter too. Always `None` unless the source is Kafka, and never
    /// one of the topics that are read.
    pub dead_letter_topic: Option<String>,
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
