//! A value of the tree as YAML on one line, and as JSON. What is secret by its name is left out.

use serde_json::Value as Json;

use super::super::field::is_secret_key;
use super::super::node::{self, Entry, Node, Scalar, Value};
use super::super::template::is_one_secret;

/// Whether a property or a parameter, whose name is the user's, may hold a secret.
pub(super) fn is_secret_property(entry: &Entry) -> bool {
    let is_path = entry.key.ends_with(".location");
    (is_secret_key(&entry.key) && !is_path)
        || entry.key == "sasl.oauthbearer.config"
        || holds_address(&entry.node)
}

/// Whether nothing of a value may be shown that may hold a secret. Where a secret was put in, what stands around it may
/// be the rest of a password; only one secret and nothing else says nothing.
pub(super) fn is_hidden(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(Scalar { template: Some(template), .. }) => !is_one_secret(template),
        Value::Scalar(_) | Value::Mapping(_) | Value::Sequence(_) => true,
        Value::Null | Value::Unresolved => false,
    }
}

/// What holds an `@` may be a URL with a password in it.
fn holds_address(node: &Node) -> bool {
    let Value::Scalar(Scalar { text, template, .. }) = &node.value else { return false };
    text.contains('@') || template.as_ref().is_some_and(|template| template.contains('@'))
}

fn hides_entry(entry: &Entry) -> bool {
    is_secret_property(entry) && is_hidden(&entry.node)
}

fn hides_item(item: &Node) -> bool {
    holds_address(item) && is_hidden(item)
}

/// Whether a part of the value is hidden.
pub(super) fn hides_within(node: &Node) -> bool {
    match &node.value {
        Value::Sequence(items) => items.iter().any(|item| hides_item(item) || hides_within(item)),
        Value::Mapping(entries) => {
            entries.iter().any(|entry| hides_entry(entry) || hides_within(&entry.node))
        }
        Value::Null | Value::Unresolved | Value::Scalar(_) => false,
    }
}

/// The value on one line. What may be a secret inside of it stands there as `hidden`: by its key, which only the
/// parameters of a transform can hold, or by its `@`.
pub(super) fn yaml_of(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Unresolved => "null".to_owned(),
        Value::Scalar(Scalar { template: Some(template), .. }) => quoted(template),
        Value::Scalar(Scalar { text, kind: node::Kind::Text, .. }) => quoted(text),
        Value::Scalar(Scalar { text, .. }) => text.clone(),
        Value::Sequence(items) => {
            let item = |item: &Node| if hides_item(item) { "hidden".to_owned() } else { yaml_of(item) };
            let items: Vec<String> = items.iter().map(item).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(entries) => {
            let entry = |entry: &Entry| match hides_entry(entry) {
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
        Value::Sequence(items) => {
            items.iter().map(|item| if hides_item(item) { Json::Null } else { json_of(item) }).collect()
        }
        Value::Mapping(entries) => {
            let entry = |entry: &Entry| {
                let value = if hides_entry(entry) { Json::Null } else { json_of(&entry.node) };
                (entry.key.clone(), value)
            };
            Json::Object(entries.iter().map(entry).collect())
        }
    }
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
