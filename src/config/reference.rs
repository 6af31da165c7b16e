//! Every key of the configuration, described once.
//!
//! The reader takes its known keys from here, so a key that is not described does not exist. `Connector.toml`
//! and the table of the guide are written from the same lines.

use Absent::{Default, Elsewhere, Empty, Means, Refused};
use Kind::{Blocks, Boolean, Choice, Duration, Group, Integer, List, Map, Ratio, Size, Text};

/// A key.
pub(super) struct Described {
    /// From the top. `*` stands for a name that the user chooses, or for an item of a list.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) absent: Absent,
    /// What it says, in sentences of Markdown.
    pub(super) about: &'static str,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mapping whose keys are described too.
    Group,
    /// A mapping from names to groups.
    Blocks,
    Text,
    Integer,
    /// A number from 0 to 1, with up to three decimals.
    Ratio,
    Size,
    Duration,
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
    /// A mapping from names to texts.
    Map,
}

/// What it means when a key is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The group that it belongs to cannot be used.
    Refused,
    /// The same has to be given by another key.
    Elsewhere,
    /// The same as this value.
    Default(&'static str),
    /// What these words say.
    Means(&'static str),
    /// The same as a group without keys.
    Empty,
}

const fn key(path: &'static str, kind: Kind, absent: Absent, about: &'static str) -> Described {
    Described { path, kind, absent, about }
}

const NONE: Absent = Means("none");

/// Every key, in the order of the guide.
#[rustfmt::skip]
pub(super) const KEYS: &[Described] = &[
    key("apiVersion", Text, Default("0.0.0"),
        "The version of the framework's format: `0.0.0`, `0.1.0` or `0.2.0`. It says which form `meta.topic` has."),
    key("meta", Group, Refused, "What every connector of the framework has."),
    key("meta.name", Text, Refused,
        "The connector's name: 1 to 100 letters, digits, `.`, `_` and `-`. Stored positions belong to it, so a new name starts anew."),
    key("meta.version", Text, NONE, "The connector's version, for the framework."),
    key("meta.type", Text, Default("embedsink"), "`embedsink` or `embedsink-sink`."),
    key("meta.topic", Text, Elsewhere,
        "The topic to read, by its name; with 0.2.0 the mapping of the next lines. Kafka does not need it where `topics` is given; where both are, it has to be one of them."),
    key("meta.topic.version", Text, NONE, "The version of the topic's description, for the framework."),
    key("meta.topic.meta", Group, Refused, "What the topic is called."),
    key("meta.topic.meta.name", Text, Refused, "The topic to read. On Fluvio: 1 to 63 lower-case letters, digits and `-`."),
    key("meta.topic.partition", Group, Empty, "How a topic that is created is spread."),
    key("meta.topic.partition.count", Integer, Default("1"), "Partitions of a topic that is created."),
    key("meta.topic.partition.replication", Integer, Default("1"), "Replicas of each."),
    key("meta.topic.partition.ignore-rack-assignment", Boolean, Default("false"), "Whether replicas may share a rack."),
    key("meta.topic.partition.max-size", Size, Means("the cluster's"), "The size at which a partition loses its oldest segment."),
    key("meta.topic.retention", Group, Empty, "How long a topic that is created keeps records."),
    key("meta.topic.retention.time", Duration, Means("the cluster's"), "How long records are kept, in whole seconds."),
    key("meta.topic.retention.segment-size", Size, Means("the cluster's"), "The size at which a segment ends."),
    key("meta.topic.compression", Group, Empty, "How a topic that is created is compressed."),
    key("meta.topic.compression.type", Choice(&["any", "none", "gzip", "snappy", "lz4", "zstd"]), Default("any"),
        "How producers compress: `any`, `none`, `gzip`, `snappy`, `lz4` or `zstd`, in capitals or not."),
    key("meta.consumer", Group, Empty, "How a Fluvio topic is read."),
    key("meta.consumer.id", Text, Means("`meta.name`"), "The name under which Fluvio keeps the consumer's offset."),
    key("meta.consumer.partition", Text, Default("all"),
        "The partitions to read: `all`, a number, or a list of numbers. `all` includes those that are added later."),
    key("meta.consumer.max-bytes", Size, Means("the client's"), "The largest answer of the cluster, 64KiB to 1GiB."),
    key("meta.consumer.offset", Group, Empty, "Where reading begins, and what Fluvio is told."),
    key("meta.consumer.offset.strategy", Choice(&["manual", "none"]), Default("manual"),
        "`manual`: Fluvio is told what has been written. `none`: it is told nothing. `auto` is refused."),
    key("meta.consumer.offset.start", Text, Default("beginning"),
        "Where a topic that this connector has not read before begins: `beginning`, `end`, or a mapping with one of the next three."),
    key("meta.consumer.offset.start.absolute", Integer, NONE, "At this offset, which must still be kept."),
    key("meta.consumer.offset.start.from-beginning", Integer, NONE, "This many records after the oldest one."),
    key("meta.consumer.offset.start.from-end", Integer, NONE, "This many records before the end."),
    key("meta.consumer.offset.flush-period", Duration, Default("10s"),
        "How often Fluvio is told, 100ms to 1h: a duration, or the mapping of the next two."),
    key("meta.consumer.offset.flush-period.secs", Integer, NONE, "Its whole seconds."),
    key("meta.consumer.offset.flush-period.nanos", Integer, Default("0"), "The nanoseconds beyond."),
    key("meta.secrets", Blocks, NONE, "The secrets that the file uses."),
    key("meta.secrets.*.name", Text, NONE, "The name of a secret that the file uses."),
    key("transforms", Blocks, NONE, "What a Fluvio cluster does with records before the connector sees them."),
    key("transforms.*.uses", Text, Refused, "A SmartModule, as it is named on the cluster."),
    key("transforms.*.with", Map, NONE, "Its parameters. A value that is no text is given to it as JSON."),
    key("embedsink", Group, Refused, "What is this connector's own."),
    key("embedsink.source", Group, Empty, "Where records come from. Without this block, the topic `meta.topic` is read from Fluvio."),
    key("embedsink.source.fluvio", Group, Empty, "Reads the topic `meta.topic` from Fluvio."),
    key("embedsink.source.fluvio.profile", Text, Means("the current one"), "The cluster, by its profile of the Fluvio client."),
    key("embedsink.source.fluvio.create-topic", Boolean, Default("false"),
        "Whether a topic that does not exist is created, as `meta.topic` describes it. Otherwise that stops the connector."),
    key("embedsink.source.kafka", Group, NONE, "Reads from Kafka."),
    key("embedsink.source.kafka.bootstrap-servers", List, Refused, "The brokers to ask first, each `host:port`: a list, or one text with commas."),
    key("embedsink.source.kafka.topics", List, Means("`[meta.topic]`"), "The topics to read: a list, or one text with commas."),
    key("embedsink.source.kafka.group-id", Text, Means("`meta.name`"), "The consumer group."),
    key("embedsink.source.kafka.start", Choice(&["beginning", "end"]), Default("beginning"),
        "Where a topic that this connector has not read before begins: `beginning` or `end`."),
    key("embedsink.source.kafka.ca-file", Text, Means("the system's"), "A PEM file of the authorities that a broker's certificate may come from."),
    key("embedsink.source.kafka.cert-file", Text, NONE, "A PEM file of the certificate that the connector shows to brokers."),
    key("embedsink.source.kafka.key-file", Text, NONE, "A PEM file of its private key. The property `ssl.key.password` decrypts it."),
    key("embedsink.source.kafka.properties", Map, NONE, "Any property of librdkafka, except those below."),
    key("embedsink.sink", Group, Refused, "Where rows go: one of `postgres` and `lancedb`."),
    key("embedsink.sink.postgres", Group, NONE, "The PostgreSQL server to write to."),
    key("embedsink.sink.postgres.url", Text, NONE,
        "`postgres://user:password@host:port/database?sslmode=…`. Each part may be left out. Special characters are percent-encoded. No parameter but `sslmode` is understood."),
    key("embedsink.sink.postgres.host", Text, Means("`PGHOST`"), "A name, an address, or the folder of a Unix socket. It has to be given somewhere."),
    key("embedsink.sink.postgres.port", Integer, Means("`PGPORT`, else 5432"), "The port."),
    key("embedsink.sink.postgres.database", Text, Means("`PGDATABASE`"), "The database. It has to be given somewhere."),
    key("embedsink.sink.postgres.user", Text, Means("`PGUSER`"), "The role to log in as. It has to be given somewhere."),
    key("embedsink.sink.postgres.password", Text, Means("`PGPASSWORD`"), "The password."),
    key("embedsink.sink.postgres.password-file", Text, NONE, "A file that holds the password. One line break at its end does not count, nor a byte order mark at its start."),
    key("embedsink.sink.postgres.tls", Group, Empty, "How the connection is protected."),
    key("embedsink.sink.postgres.tls.mode", Choice(&["disable", "require", "verify-ca", "verify-full"]), Means("`PGSSLMODE`, else verify-full"),
        "`disable`, `require` (any certificate), `verify-ca` (a trusted one) or `verify-full` (a trusted one that names the host). Where nobody gives one, the host is local and no file is named here, it is `disable`."),
    key("embedsink.sink.postgres.tls.ca-file", Text, Means("the system's"), "A PEM file of the authorities to trust."),
    key("embedsink.sink.postgres.tls.cert-file", Text, NONE, "A PEM file of the certificate that the connector shows to the server."),
    key("embedsink.sink.postgres.tls.key-file", Text, NONE, "A PEM file of its private key, not encrypted."),
    key("embedsink.sink.postgres.migrate", Choice(&["auto", "manual"]), Default("auto"),
        "`auto`: the connector applies its migrations when it starts. `manual`: it only checks that `embedsink migrate` has."),
    key("embedsink.sink.postgres.prepared", Boolean, Default("true"),
        "Whether statements are prepared by name. `false` for pgbouncer in transaction mode, and whatever else hands each transaction to another server."),
    key("embedsink.sink.postgres.statement-timeout", Duration, Default("2m"),
        "How long one statement may take before it is given up and tried again, 1s to 1h."),
    key("embedsink.sink.lancedb", Group, NONE,
        "The LanceDB dataset to write to, in place of a server. Only in a build with the feature `lancedb`."),
    key("embedsink.sink.lancedb.uri", Text, Refused,
        "A folder, which is made if it is missing; a relative path starts at the folder of this file. Or `s3://…`, `gs://…`, `az://…` or `abfss://…`, in builds with the features `aws`, `gcs` and `azure`."),
    key("embedsink.sink.lancedb.storage-options", Map, NONE,
        "What the object store needs, by LanceDB's own names, such as `aws_region`. Values are never shown."),
    key("embedsink.sink.lancedb.sole-writer", Boolean, Default("false"),
        "That nothing else writes to this dataset. An object store has no lock and needs this word; a folder is locked."),
    key("embedsink.tables", Blocks, Refused, "The tables to write to, by name. The first takes records that name none."),
    key("embedsink.tables.*", Group, NONE, "A table to write to."),
    key("embedsink.tables.*.dimensions", Integer, Refused,
        "A table to write to, and the dimensions of its vectors, 1 to 16000. The first table takes records that name none."),
    key("embedsink.tables.*.stale-writes", Choice(&["apply", "skip"]), Default("apply"),
        "What a record does whose `timestamp` is older than the stored row's. `apply`: it is written, for the order of the log counts. `skip`: it is not, and no more is an older delete."),
    key("embedsink.tables.*.index", Group, NONE,
        "The vector index that the connector builds. Without this block it does nothing about indexes."),
    key("embedsink.tables.*.index.kind", Choice(&["hnsw", "ivfflat", "ivfpq", "none"]), Default("hnsw"),
        "`hnsw`, `ivfflat`, or `none`, which is the same as no `index`; in LanceDB also `ivfpq`. pgvector indexes at most 2000 dimensions. An index made by hand that does the same is left alone, and none is built beside it. In LanceDB, where an index needs no key but this and `metric`, it is built once the table has 10000 rows, and anew when one of them is changed."),
    key("embedsink.tables.*.index.metric", Choice(&["cosine", "l2", "inner-product", "l1"]), Default("cosine"),
        "The distance that searches use: `cosine` (`<=>`), `l2` (`<->`), `inner-product` (`<#>`) or `l1` (`<+>`, `hnsw` only). A search by another one does not find the index."),
    key("embedsink.tables.*.index.m", Integer, Default("16"), "For `hnsw`: links of an element, 2 to 100."),
    key("embedsink.tables.*.index.ef-construction", Integer, Default("64"),
        "For `hnsw`: candidates that are looked at for each element, 4 to 1000, and at least twice `m`."),
    key("embedsink.tables.*.index.lists", Integer, Means("by the rows there are"),
        "For `ivfflat`: how many lists, 1 to 32768. Otherwise one for each 1000 rows, above a million the square root of the rows."),
    key("embedsink.tables.*.index.build", Choice(&["deferred", "immediate"]), Default("deferred"),
        "`deferred`: the index is built when the backlog is written, since to load first is many times faster. `immediate`: before the first record is read. `ivfflat` cannot be built immediately, and `deferred` not with `prepared: false`."),
    key("embedsink.tables.*.index.maintenance-memory", Size, Default("1GiB"),
        "The most that `maintenance_work_mem` is set to for the build, 64MiB to 1TiB. It is sized to the rows within that."),
    key("embedsink.tables.*.index.workers", Integer, Means("the server's"),
        "The most parallel workers of a build, 0 to 1024: `max_parallel_maintenance_workers`."),
    key("embedsink.batch", Group, Empty, "When a batch is written."),
    key("embedsink.batch.max-rows", Integer, Default("2000"), "A batch is written when it holds this many records, 1 to 100000. With LanceDB the default is 10000."),
    key("embedsink.batch.max-bytes", Size, Default("8MiB"), "A batch is written when its records and the rows made of them take this many bytes in memory, 64KiB to 256MiB. With LanceDB the default is 32MiB."),
    key("embedsink.batch.max-wait", Duration, Default("200ms"), "A batch is written when its first record has waited this long, 1ms to 1m. With LanceDB the default is 1s."),
    key("embedsink.batch.linger", Duration, Default("5ms"),
        "A batch is written sooner, when nothing else is being written, no record is at hand, and its first record has waited this long, or as long as the last write took: 0s to `max-wait`. More makes fewer and larger transactions. With LanceDB the default is 500ms, since each commit makes files."),
    key("embedsink.errors", Group, Empty, "What bad records do."),
    key("embedsink.errors.tolerance", Choice(&["data", "none"]), Default("data"),
        "`data`: a bad record becomes a dead letter. `none`: the connector stops at the first."),
    key("embedsink.errors.max-ratio", Ratio, Default("0.9"),
        "The connector stops when more than this part of the last `window` records was rejected: above 0, up to 1, with up to three decimals. `1` turns it off."),
    key("embedsink.errors.window", Integer, Default("1000"), "Over how many records `max-ratio` is taken, 10 to 1000000."),
    key("embedsink.errors.max-payload", Size, Default("64MiB"),
        "The most of a payload that a dead letter keeps, 1KiB to 512MiB. A longer one is cut, and cannot be replayed."),
    key("embedsink.errors.dead-letter-topic", Text, NONE,
        "A Kafka topic that gets every dead letter too. Only with `source.kafka`."),
    key("embedsink.shutdown-timeout", Duration, Default("25s"), "How long a stop may take to finish the write in flight, 100ms to 10m."),
];

impl Described {
    /// Its last word.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Whether it stands right under `group`.
    pub(super) fn is_under(&self, group: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(parent, _)| parent == group)
    }

    /// Whether it is a heading for other keys rather than a value.
    pub(super) fn is_heading(&self) -> bool {
        matches!(self.kind, Group | Blocks)
    }
}
