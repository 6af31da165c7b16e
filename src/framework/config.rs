//! What the framework's configuration says about a topic and its consumer. Part of the framework's room.
//!
//! Mirrors `ConsumerParameters`, `TopicConfig` and `TransformationStep` of the framework's package
//! format. Goes further: every value has been checked, and the start holds only for partitions for
//! which nothing is stored in Postgres.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How to read a Fluvio topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluvioSettings {
    /// The topic to read, and how to make it.
    pub topic: TopicSettings,
    /// Whether a topic that does not exist is created. Otherwise that is an error.
    pub create_topic: bool,
    /// The cluster profile of the Fluvio client; `None` is the current one.
    pub profile: Option<String>,
    /// `meta.consumer`.
    pub consumer: ConsumerSettings,
    /// `transforms`: SmartModules of the cluster that records go through, in order.
    pub transforms: Vec<Transform>,
}

/// The topic of `meta`, in any version of the format. The numbers count only when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Its name.
    pub name: String,
    /// Partitions to create, at least 1.
    pub partitions: u32,
    /// Replicas of each, at least 1.
    pub replication: u32,
    /// Whether replicas may share a rack.
    pub ignore_rack_assignment: bool,
    /// How long records are kept; `None` is the cluster's default.
    pub retention: Option<Duration>,
    /// The size in bytes at which a segment ends; `None` is the cluster's default.
    pub segment_size: Option<u32>,
    /// The size in bytes at which a partition loses its oldest segments; `None` is the cluster's default.
    pub max_partition_size: Option<u64>,
    /// How producers compress; `None` leaves it to them.
    pub compression: Option<Compression>,
}

impl TopicSettings {
    /// A topic of which nothing but its name is said.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
            replication: 1,
            ignore_rack_assignment: false,
            retention: None,
            segment_size: None,
            max_partition_size: None,
            compression: None,
        }
    }
}

/// A topic's `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Each producer chooses.
    Any,
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// `meta.consumer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The name under which Fluvio keeps the consumer's offset; default `meta.name`.
    pub id: String,
    /// Which partitions are read.
    pub partitions: Partitions,
    /// The most bytes of one answer of the cluster, 64 KiB to 1 GiB; `None` is the client's default.
    pub max_bytes: Option<u32>,
    /// Where a partition with no stored offset begins, when nothing of its topic was read before.
    pub start: StartAt,
    /// How often Fluvio is told how far the consumer is; `None` with `strategy: none`.
    pub report_every: Option<Duration>,
}

/// `meta.consumer.partition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitions {
    /// All that there are, and those that are added later.
    All,
    /// These, never empty, none twice, ascending.
    Listed(Vec<u32>),
}

/// Where a partition with no stored offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At the oldest record that is still kept.
    #[default]
    Beginning,
    /// After the newest record.
    End,
    /// At this offset, which must be kept. Fluvio only.
    Absolute(i64),
    /// This many records after the oldest one. Fluvio only.
    FromBeginning(u32),
    /// This many records before the end. Fluvio only.
    FromEnd(u32),
}

/// One step of `transforms`. `Debug` names its parameters and hides their values, which may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Transform {
    /// The SmartModule, as it is named on the cluster.
    pub uses: String,
    /// Its parameters. A value that is no text is given as JSON. A value may be a secret.
    pub with: BTreeMap<String, String>,
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with: BTreeMap<&str, &str> = self.with.keys().map(|name| (name.as_str(), "****")).collect();
        f.debug_struct("Transform").field("uses", &self.uses).field("with", &with).finish()
    }
}
