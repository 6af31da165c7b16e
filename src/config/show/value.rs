//! A value of the tree as YAML on one line, and as JSON. What is secret by its name is left out.

use serde_json::Value as Json;

use super::super::field::is_secret_key;
use super::super::node::{self, Entry, Node, Scalar, Value};

/// Whether a property or a parameter, whose name is the user's, may hold a secret. What holds an `@` may be a URL with
/// a password in it.
pub(super) fn is_secret_property(entry: &Entry) -> bool {
    let is_path = entry.key.ends_with(".location");
    let holds_at = matches!(&entry.node.value, Value::Scalar(scalar) if scalar.text.contains('@'));
    (is_secret_key(&entry.key) && !is_path) || entry.key == "sasl.oauthbearer.config" || holds_at
}

/// The value on one line. What is secret by its key stands there as `hidden`, which only the parameters of a
/// transform can hold.
pub(super) fn yaml_of(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Unresolved => "null".to_owned(),
        Value::Scalar(Scalar { template: Some(template), .. }) => quoted(template),
        Value::Scalar(Scalar { text, kind: node::Kind::Text, .. }) => quoted(text),
        Value::Scalar(Scalar { text, .. }) => text.clone(),
        Value::Sequence(items) => {
            let items: Vec<String> = items.iter().map(yaml_of).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(entries) => {
            let entry = |entry: &Entry| match hides(entry) {
                true => format!("{}: hidden", quoted(&entry.key)),
                false => format!("{}: {}", quoted(&entry.key), yaml_of(&entry.node)),
            };
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

pub(super) fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null | Value::Unresolved => Json::Null,
        Value::Scalar(Scalar { template: Some(template), .. }) => template.as_str().into(),
        Value::Scalar(Scalar { text, kind: node::Kind::Text, .. }) => text.as_str().into(),
        Value::Scalar(Scalar { text, .. }) => {
            serde_json::from_str(&text.to_lowercase()).unwrap_or_else(|_| text.as_str().into())
        }
        Value::Sequence(items) => items.iter().map(json_of).collect(),
        Value::Mapping(entries) => {
            let entry = |entry: &Entry| {
                let value = if hides(entry) { Json::Null } else { json_of(&entry.node) };
                (entry.key.clone(), value)
            };
            Json::Object(entries.iter().map(entry).collect())
        }
    }
}

fn hides(entry: &Entry) -> bool {
    let is_template = matches!(&entry.node.value, Value::Scalar(scalar) if scalar.is_tainted());
    !is_template && is_secret_property(entry)
}

/// Text as YAML: as it is where nothing else can be read from it, otherwise in quotes.
pub(super) fn quoted(text: &str) -> String {
    const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_./-@+".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_');
    // What may be a number has no letter but those of numbers.
    let is_number = text.starts_with(|c: char| c.is_ascii_digit())
        && !text.contains(|c: char| c.is_ascii_alphabetic() && !"exob_".contains(c.to_ascii_lowercase()))
        && text.matches('.').count() < 2;
    // A `:` is a key's only before a blank, but a reader in a hurry would not know.
    let colon = text.split_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && host.contains(|c: char| c.is_ascii_alphabetic())
    });
    let is_plain = text.chars().all(|c| is_safe(c) || (colon && c == ':'));
    if begins_well && is_plain && !is_word && !is_number {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // A terminal would obey it.
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
