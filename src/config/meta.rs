//! The block that every connector of the framework has: name, type, topic, secrets.

use std::collections::BTreeSet;

use super::node::{Node, Value};
use super::problem::{Position, Report};
use super::section::Section;
use super::topic::{self, Form, Taker, Topic};
use crate::framework::secret::{NAME_FORM, is_secret_name};

/// What the rest of the configuration needs from `meta`.
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) topic: Topic,
}

/// Reads `meta` after secrets have been put in.
pub(super) fn read(meta: &Section<'_>, form: Form, taker: Taker, report: &mut Report) -> Meta {
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
    Meta { name: read_name(meta, report), topic: topic::read(meta, form, taker, report) }
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
