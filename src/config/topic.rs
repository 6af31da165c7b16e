//! `meta.topic` in the three versions of the framework's format: text, text, and a mapping.

use std::time::Duration;

use super::field::Field;
use super::node::Value;
use super::problem::Report;
use super::quantity::Limits;
use super::section::Section;
use crate::framework::config::{Compression, TopicSettings};

/// The topic of `meta`.
pub(super) enum Topic {
    /// It is there, but could not be used. That has been reported.
    Bad,
    Absent,
    Named(TopicSettings),
}

/// How a version of the format gives the topic.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// By its name: 0.1.0, and 0.0.0, which is also what no version at all means.
    Text {
        /// What to call the version in a sentence.
        version: &'static str,
    },
    /// By a mapping: 0.2.0.
    Mapping,
    /// The version is not known. That has been reported, and either form will do.
    Any,
}

/// Who has to take the topic's name.
#[derive(Clone, Copy)]
pub(super) enum Taker {
    Kafka,
    Fluvio,
    /// Nobody knows, so nothing is said about the name.
    Unclear,
}

/// Reads `meta.topic`.
pub(super) fn read(meta: &Section<'_>, form: Form, taker: Taker, report: &mut Report) -> Topic {
    let Some(field) = meta.get("topic") else {
        return Topic::Absent;
    };
    let is_mapping = matches!(field.node.value, Value::Mapping(_));
    match (is_mapping, form) {
        (true, Form::Text { version }) => {
            let what = format!("{version} the topic is text; a mapping is the form of apiVersion 0.2.0");
            field.complain(report, what, "write `topic: NAME`, or `apiVersion: 0.2.0`");
            return Topic::Bad;
        }
        (false, Form::Mapping) if matches!(field.node.value, Value::Scalar(_)) => {
            let what = "with apiVersion 0.2.0 the topic is a mapping; text is the form of 0.0.0 and 0.1.0";
            field.complain(report, what, "write `topic: {meta: {name: NAME}}`, or `apiVersion: 0.1.0`");
            return Topic::Bad;
        }
        _ => {}
    }
    let topic = if is_mapping {
        Section::open(field.node, &field.path, field.key_at, "meta.topic", report)
            .and_then(|topic| read_mapping(&topic, taker, report))
    } else {
        read_name(field, taker, report).map(TopicSettings::named)
    };
    topic.map_or(Topic::Bad, Topic::Named)
}

fn read_name(field: &Field<'_>, taker: Taker, report: &mut Report) -> Option<String> {
    let name = field.text(report)?;
    let (whose, complaint) = match taker {
        Taker::Kafka => ("a topic", topic_complaint(name)),
        Taker::Fluvio => ("a Fluvio topic", fluvio_complaint(name)),
        Taker::Unclear => ("", None),
    };
    if let Some(fix) = complaint {
        field.complain(report, format!("{} cannot name {whose}", field.quoted()), fix);
        return None;
    }
    Some(name.to_owned())
}

/// How to mend a name that Kafka would not take for a topic.
pub(super) fn topic_complaint(topic: &str) -> Option<&'static str> {
    let legal = topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let whole = (1..=249).contains(&topic.len()) && !matches!(topic, "." | "..");
    (!(legal && whole)).then_some("use 1 to 249 letters, digits, `.`, `_` and `-`, and not only dots")
}

/// How to mend a name that Fluvio would not take for a topic.
fn fluvio_complaint(topic: &str) -> Option<&'static str> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let whole = (1..=63).contains(&topic.len()) && !topic.starts_with('-') && !topic.ends_with('-');
    (!(topic.bytes().all(legal) && whole))
        .then_some("use 1 to 63 lower-case letters, digits and `-`, and no `-` at either end")
}

const PARTITIONS: Limits<u32> = Limits { least: 1, most: 10_000, why: "a topic has at least one partition" };
const REPLICATION: Limits<u32> =
    Limits { least: 1, most: 1000, why: "each partition is kept at least once, each time by another server" };
const SEGMENT_SIZE: Limits<usize> =
    Limits { least: 1, most: u32::MAX as usize, why: "Fluvio counts a segment in 32 bits" };
const MAX_SIZE: Limits<usize> =
    Limits { least: 1, most: 1 << 60, why: "a partition needs room for a record" };
const RETENTION: Limits<Duration> = Limits {
    least: Duration::from_secs(1),
    most: Duration::from_secs(100 * 365 * 86_400),
    why: "Fluvio counts it in seconds, in 32 bits",
};

/// The words of Fluvio, which it writes with a capital in YAML and without on the command line.
const COMPRESSIONS: &[(&str, Compression)] = &[
    ("any", Compression::Any),
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

fn read_mapping(topic: &Section<'_>, taker: Taker, report: &mut Report) -> Option<TopicSettings> {
    if let Some(version) = topic.get("version") {
        version.text(report);
    }
    let name = match topic.require("meta", "add `meta: {name: NAME}`", report) {
        Some(field) => Section::open(field.node, &field.path, field.key_at, "meta.topic.meta", report)
            .and_then(|meta| read_name(meta.require("name", "name the topic", report)?, taker, report)),
        None => None,
    };
    let partition = topic.section("partition", "meta.topic.partition", report);
    let (count, replication, ignore_rack_assignment, max_partition_size) = match &partition {
        Some(partition) => (
            optional(partition.get("count"), Some(1), |field| field.count(&PARTITIONS, report)),
            optional(partition.get("replication"), Some(1), |field| field.count(&REPLICATION, report)),
            optional(partition.get("ignore-rack-assignment"), Some(false), |field| field.boolean(report)),
            optional(partition.get("max-size"), Some(None), |field| field.size(&MAX_SIZE, report).map(Some)),
        ),
        None => (None, None, None, None),
    };
    let retention = topic.section("retention", "meta.topic.retention", report);
    let (time, segment_size) = match &retention {
        Some(retention) => (
            optional(retention.get("time"), Some(None), |field| read_time(field, report).map(Some)),
            optional(retention.get("segment-size"), Some(None), |field| {
                field.size(&SEGMENT_SIZE, report).map(Some)
            }),
        ),
        None => (None, None),
    };
    let compression =
        topic.section("compression", "meta.topic.compression", report).and_then(|compression| {
            optional(compression.get("type"), Some(None), |field| {
                field.choice_in_any_case(COMPRESSIONS, report).map(Some)
            })
        });
    Some(TopicSettings {
        partitions: count?,
        replication: replication?,
        ignore_rack_assignment: ignore_rack_assignment?,
        retention: time?,
        segment_size: segment_size?.and_then(|bytes| u32::try_from(bytes).ok()),
        max_partition_size: max_partition_size?.and_then(|bytes| u64::try_from(bytes).ok()),
        compression: compression?,
        name: name?,
    })
}

fn optional<'f, 'a, T>(
    field: Option<&'f Field<'a>>,
    absent: Option<T>,
    read: impl FnOnce(&'f Field<'a>) -> Option<T>,
) -> Option<T> {
    field.map_or(absent, read)
}

fn read_time(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    let time = field.duration(&RETENTION, report)?;
    if time.subsec_nanos() != 0 {
        let what = format!("{} is no whole number of seconds, as Fluvio counts it", field.quoted());
        field.complain(report, what, "round it");
        return None;
    }
    Some(time)
}
