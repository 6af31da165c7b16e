//! `embedsink.source.kafka`.

use std::collections::BTreeMap;
use std::path::Path;

use super::field::{Field, Key};
use super::file::{self, Pem};
use super::meta::Meta;
use super::node::Value;
use super::problem::{Origin, Report, plain_key, quote};
use super::section::Section;
use super::settings::KafkaSettings;
use super::topic::{Topic, topic_complaint};
use crate::framework::config::StartAt;
use crate::framework::secret::Secret;
use crate::source::kafka::property::{self, Fault};

/// Properties of librdkafka that the connector sets itself: name, reason, fix.
const OWNED: &[(&str, &str, &str)] = &[
    ("bootstrap.servers", "the connector sets it", "use `bootstrap-servers`"),
    ("metadata.broker.list", "the connector sets it", "use `bootstrap-servers`"),
    ("group.id", "the connector sets it", "use `group-id`"),
    (
        "auto.offset.reset",
        "the connector sets it: a lost position is an error, never a silent jump",
        "use `start`",
    ),
    ("enable.auto.commit", POSITIONS, REMOVE),
    ("auto.commit.enable", POSITIONS, REMOVE),
    ("plugin.library.paths", "it would load foreign code into the connector", REMOVE),
    ("auto.commit.interval.ms", POSITIONS, REMOVE),
    ("enable.auto.offset.store", POSITIONS, REMOVE),
    ("offset.store.method", POSITIONS, REMOVE),
    ("offset.store.path", POSITIONS, REMOVE),
    ("offset.store.sync.interval.ms", POSITIONS, REMOVE),
    ("enable.partition.eof", "the connector sets it: it does not use the end of a partition", REMOVE),
];
const POSITIONS: &str = "the connector sets it: positions are stored together with the rows";
const REMOVE: &str = "remove it";
const LISTED: &str = "librdkafka's CONFIGURATION.md lists those that it has";
const DESCRIBED: &str = "librdkafka's CONFIGURATION.md says which it takes";

/// Reads the section. The group is named after the connector when it has no name of its own.
pub(super) fn read(
    kafka: &Section<'_>,
    meta: &Meta,
    folder: &Path,
    report: &mut Report,
) -> Option<KafkaSettings> {
    let bootstrap_servers = read_servers(kafka, report);
    let topics = read_topics(kafka, meta, report);
    let group_id = match kafka.get("group-id") {
        Some(field) => field.text(report).map(str::to_owned),
        None => {
            let path = format!("{}.group-id", kafka.path);
            report.resolve(path, meta.name.clone(), Origin::Key("meta.name"));
            meta.name.clone()
        }
    };
    let start = match kafka.get("start") {
        Some(field) => field.choice(&[("beginning", StartAt::Beginning), ("end", StartAt::End)], report),
        None => Some(StartAt::default()),
    };
    let properties = match kafka.get("properties") {
        Some(field) => read_properties(field, report),
        None => Some(BTreeMap::new()),
    };
    let properties = read_files(kafka, properties, folder, report);
    Some(KafkaSettings {
        bootstrap_servers: bootstrap_servers?,
        topics: topics?,
        group_id: group_id?,
        start: start?,
        properties: properties?,
    })
}

fn read_servers(kafka: &Section<'_>, report: &mut Report) -> Option<Vec<String>> {
    let fix = "add the brokers to ask first, such as `[localhost:9092]`";
    let (texts, mut good) = kafka.require("bootstrap-servers", fix, report)?.texts(report);
    let mut servers = Vec::new();
    for (text, field) in texts {
        if let Some(fix) = server_complaint(&text) {
            let shown = if field.is_hidden() { "the value".to_owned() } else { quote(&text) };
            field.complain(report, format!("{shown} is no `host:port`"), fix);
            good = false;
        }
        servers.push(text);
    }
    good.then_some(servers)
}

fn server_complaint(server: &str) -> Option<&'static str> {
    if server.contains("://") {
        return Some("leave the scheme away; the property `security.protocol` says how to connect");
    }
    let Some((host, port)) = server.rsplit_once(':') else {
        return Some("add the port, such as `:9092`");
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().unwrap_or(0) == 0 {
        return Some("give a port from 1 to 65535");
    }
    let host_is_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    (!host_is_fine).then_some("give a host name, an IPv4 address, or an IPv6 address in `[` `]`")
}

fn read_topics(kafka: &Section<'_>, meta: &Meta, report: &mut Report) -> Option<Vec<String>> {
    let Some(field) = kafka.get("topics") else {
        return match &meta.topic {
            Topic::Named(topic) => {
                let path = format!("{}.topics", kafka.path);
                report.resolve(path, Some(topic.name.clone()), Origin::Key("meta.topic"));
                Some(vec![topic.name.clone()])
            }
            Topic::Bad => None,
            Topic::Absent => {
                let path = format!("{}.topics", kafka.path);
                report.add(
                    kafka.at,
                    &path,
                    "no topic is named",
                    "add `topics: [NAME]` here, or `meta.topic`",
                );
                None
            }
        };
    };
    let mut topics: Vec<String> = Vec::new();
    let (texts, mut good) = field.texts(report);
    for (topic, item) in texts {
        let shown = if item.is_hidden() { "the value".to_owned() } else { quote(&topic) };
        if let Some(fix) = topic_complaint(&topic) {
            item.complain(report, format!("{shown} cannot name a topic"), fix);
            good = false;
        } else if topics.contains(&topic) {
            item.complain(report, format!("{shown} is named twice"), "keep one");
            good = false;
        }
        topics.push(topic);
    }
    if let Topic::Named(topic) = &meta.topic
        && good
        && !topics.contains(&topic.name)
    {
        let what = "contradicts `meta.topic`, which is not among these topics and would not be read";
        field.complain(report, what, "add it here, or name one of these in `meta.topic`");
        good = false;
    }
    good.then_some(topics)
}

fn read_properties(field: &Field<'_>, report: &mut Report) -> Option<BTreeMap<String, Secret>> {
    let mut properties = BTreeMap::new();
    let mut good = true;
    for (name, field) in field.entries(Key::Free, report)? {
        match property_complaint(&name, &field) {
            Some((what, fix)) => {
                report.add(field.key_at, &field.path, what, fix);
                good = false;
            }
            None => match read_value(&name, field, report) {
                Some(value) => {
                    properties.insert(name, value);
                }
                None => good = false,
            },
        }
    }
    good.then_some(properties)
}

/// A key for a file: the property that it becomes, others that would say the same, and what it holds.
struct FileKey {
    key: &'static str,
    property: &'static str,
    rivals: &'static [&'static str],
    holds: Pem,
}

const FILE_KEYS: &[FileKey] = &[
    FileKey {
        key: "ca-file",
        property: "ssl.ca.location",
        rivals: &["ssl.ca.location", "ssl.ca.pem"],
        holds: Pem::Certificate,
    },
    FileKey {
        key: "cert-file",
        property: "ssl.certificate.location",
        rivals: &["ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"],
        holds: Pem::Certificate,
    },
    FileKey {
        key: "key-file",
        property: "ssl.key.location",
        rivals: &["ssl.key.location", "ssl.key.pem", "ssl.keystore.location"],
        holds: Pem::Key,
    },
];

/// Adds the files to the properties. librdkafka reads them itself, when it connects.
fn read_files(
    kafka: &Section<'_>,
    properties: Option<BTreeMap<String, Secret>>,
    folder: &Path,
    report: &mut Report,
) -> Option<BTreeMap<String, Secret>> {
    let given = FILE_KEYS.iter().filter_map(|file| Some((file, kafka.get(file.key)?)));
    let read: Vec<_> =
        given.map(|(file, field)| (file, field, file::pem(field, folder, file.holds, report))).collect();
    let mut properties = properties?;
    let mut good = true;
    for (file, field, path) in &read {
        if let Some(rival) = file.rivals.iter().find(|rival| properties.contains_key(**rival)) {
            field.complain(report, format!("contradicts the property `{rival}`"), "keep one of them");
            good = false;
        }
        good &= path.is_some();
    }
    let has = |key: &'static str, names: [&str; 2]| {
        kafka.get(key).is_some() || names.iter().any(|name| properties.contains_key(*name))
    };
    if has("cert-file", ["ssl.certificate.location", "ssl.certificate.pem"])
        != has("key-file", ["ssl.key.location", "ssl.key.pem"])
        && let Some((_, field, _)) = read.iter().find(|(file, ..)| file.key != "ca-file")
    {
        let what = "a certificate and its key go together, and the other is missing";
        field.complain(report, what, "add `cert-file` and `key-file`");
        good = false;
    }
    let protocol = properties.get("security.protocol").map(|value| value.expose().to_lowercase());
    if let Some((_, field, _)) = read.first()
        && !matches!(protocol.as_deref(), Some("ssl" | "sasl_ssl"))
    {
        let what = "without TLS nothing would use this file";
        field.complain(report, what, "add the property `security.protocol: ssl`, or `sasl_ssl`");
        good = false;
    }
    for (file, _, path) in read {
        // librdkafka takes a path as text.
        let path = path?.into_os_string().into_string().ok()?;
        properties.insert(file.property.to_owned(), Secret::new(path));
    }
    good.then_some(properties)
}

/// The value of a property, as librdkafka takes it.
fn read_value(name: &str, field: Field<'_>, report: &mut Report) -> Option<Secret> {
    let field = field.hide();
    // Without a value, the name can still be wrong.
    let text = match &field.node.value {
        Value::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    let fault = property::fault(name, text);
    if let Some(Fault::Unknown { nearest }) = fault {
        let fix = nearest.map_or_else(|| LISTED.to_owned(), |nearest| format!("did you mean `{nearest}`?"));
        report.add(field.key_at, &field.path, "librdkafka has no such property", fix);
        return None;
    }
    let scalar = field.scalar("one value", report)?;
    if fault.is_some() {
        field.complain(report, "librdkafka does not take this value", DESCRIBED);
        return None;
    }
    Some(Secret::new(&scalar.text))
}

/// Why the property may not be set, or not to this value.
fn property_complaint(name: &str, field: &Field<'_>) -> Option<(String, String)> {
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b))
    {
        let lower = plain_key(name).to_lowercase().replace(['-', '_'], ".");
        let what = "no property of librdkafka is spelt like this".to_owned();
        return Some((what, format!("use its dotted, lower-case name, such as `{lower}`")));
    }
    // librdkafka takes a topic's property with and without this prefix.
    let bare = name.strip_prefix("topic.").unwrap_or(name);
    if let Some((_, why, fix)) = OWNED.iter().find(|(owned, ..)| *owned == bare) {
        return Some(((*why).to_owned(), (*fix).to_owned()));
    }
    if name.ends_with("_cb") {
        return Some(("a callback cannot be set from a file".to_owned(), REMOVE.to_owned()));
    }
    let (only, why) = match name {
        "isolation.level" => ("read_committed", "records of aborted transactions would be written"),
        "group.protocol" => ("classic", "the connector speaks only the classic group protocol yet"),
        _ => return None,
    };
    let fits = match &field.node.value {
        Value::Scalar(scalar) => scalar.text == only,
        value => matches!(value, Value::Unresolved),
    };
    (!fits).then(|| (format!("only `{only}` is allowed: {why}"), format!("remove it, or write `{only}`")))
}
