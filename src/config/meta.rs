//! The block that every connector of the framework has: name, type, topic, secrets.

use std::collections::BTreeSet;

use super::node::{Node, Value};
use super::problem::{Position, Report};
use super::secret::{NAME_FORM, is_secret_name};
use super::section::Section;

/// What the rest of the configuration needs from `meta`.
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) topic: Topic,
}

/// The topic of `meta`.
pub(super) enum Topic {
    /// It is there, but could not be used. That has been reported.
    Bad,
    Absent,
    Named(String),
}

/// Reads `meta` after secrets have been put in.
pub(super) fn read(meta: &Section<'_>, report: &mut Report) -> Meta {
    if let Some(version) = meta.get("version") {
        version.text(report);
    }
    if let Some(kind) = meta.get("type")
        && let Some(text) = kind.text(report)
    {
        if text.ends_with("-source") {
            let what = format!("{} is a source, and this connector is a sink", kind.quoted());
            kind.complain(report, what, "write `embedsink`");
        } else if !matches!(text, "embedsink" | "embedsink-sink") {
            kind.complain(report, format!("{} is another connector", kind.quoted()), "write `embedsink`");
        }
    }
    Meta { name: read_name(meta, report), topic: read_topic(meta, report) }
}

fn read_name(meta: &Section<'_>, report: &mut Report) -> Option<String> {
    let fix = "add a name; stored positions belong to it, so keep it";
    let field = meta.require("name", fix, report)?;
    let name = field.text(report)?;
    if name.len() > 100 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        let what = format!("{} cannot name a connector", field.quoted());
        field.complain(report, what, "use 1 to 100 letters, digits, `.`, `_` and `-`");
        return None;
    }
    Some(name.to_owned())
}

fn read_topic(meta: &Section<'_>, report: &mut Report) -> Topic {
    let Some(field) = meta.get("topic") else {
        return Topic::Absent;
    };
    if matches!(field.node.value, Value::Mapping(_)) {
        field.mismatch("text", "write the topic's name alone, as apiVersion 0.1.0 has it", report);
        return Topic::Bad;
    }
    let Some(topic) = field.text(report) else {
        return Topic::Bad;
    };
    match topic_complaint(topic) {
        None => Topic::Named(topic.to_owned()),
        Some(fix) => {
            field.complain(report, format!("{} cannot name a topic", field.quoted()), fix);
            Topic::Bad
        }
    }
}

/// How to mend a name that Kafka would not take for a topic.
pub(super) fn topic_complaint(topic: &str) -> Option<&'static str> {
    let legal = topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let whole = (1..=249).contains(&topic.len()) && !matches!(topic, "." | "..");
    (!(legal && whole)).then_some("use 1 to 249 letters, digits, `.`, `_` and `-`, and not only dots")
}

/// The names that `meta.secrets` declares. It is read before anything else, for the rest may need them.
pub(super) fn declared_secrets(root: &Node, report: &mut Report) -> BTreeSet<String> {
    let mut declared = BTreeSet::new();
    let Some(meta) = child(root, "meta") else {
        return declared;
    };
    // `meta` itself is checked when it is read.
    let mut silent = Report::default();
    let Some(meta) = Section::open(meta, "meta", Position::START, "meta", &mut silent) else {
        return declared;
    };
    let Some(list) = meta.get("secrets").filter(|field| !matches!(field.node.value, Value::Null)) else {
        return declared;
    };
    for item in list.items(report).unwrap_or_default() {
        let Some(section) = Section::open(item.node, &item.path, item.key_at, "meta.secrets.*", report)
        else {
            continue;
        };
        let Some(name) = section.require("name", "write `- name: NAME`", report) else {
            continue;
        };
        let Some(text) = name.text(report) else { continue };
        if !is_secret_name(text) {
            name.complain(report, "the name of the secret is badly formed", NAME_FORM);
        } else if !declared.insert(text.to_owned()) {
            name.complain(report, "the secret is declared twice", "keep one");
        }
    }
    declared
}

fn child<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
        _ => None,
    }
}
