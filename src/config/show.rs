//! What is in force, key by key, and where each value comes from.
//!
//! It goes through the described keys and the file's own tree, so a key that the reader knows is shown. What its
//! key does not say, whoever resolved it has told the [`Report`](super::problem::Report).
//!
//! Invariant: no secret is in here. A value that a secret was put into stands as the file has it; what is secret
//! by its name, and every password, is [`Shown::Hidden`], unless all of it is one secret that was put in.

mod value;

use std::path::Path;

use serde_json::{Value as Json, json};

use super::field::{is_secret_key, join};
use super::node::{Entry, Node, Scalar, Value};
use super::problem::{ConfigError, Origin, Resolved};
use super::reference::{Absent, Described, KEYS, Kind};
use super::settings::{Settings, SourceSettings, TargetSettings};
use super::source::Build;
use super::template::with_word;
use super::url::PostgresUrl;
use super::{file, read_tree};
use crate::framework::secret::SecretStore;
use value::{hides_within, is_hidden, is_secret_property, json_of, quoted, yaml_of};

/// A line of the configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key, from the top and with dots between.
    pub path: String,
    /// What is shown of its value.
    pub shown: Shown,
    whence: Option<Whence>,
    /// The key as YAML has it.
    key: String,
    depth: usize,
    /// It begins an item of a list.
    is_item: bool,
}

/// What is shown of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Nothing: it is a heading for the lines below.
    Heading,
    /// All of it: as YAML, and as JSON.
    Value(String, Json),
    /// The same, but for a part in it that is hidden.
    Partly(String, Json),
    /// There is none, which means what these words say.
    Absent(String),
    /// That there is one.
    Hidden,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whence {
    /// A line of the file.
    File(u32),
    /// The same, the secrets that were put in there, and the file that they come from, unless it is the environment.
    Secrets(u32, Vec<String>, Option<String>),
    Elsewhere(Origin),
}

/// Reads the configuration at `path` as [`Settings::from_file`] does, and tells what is in force.
///
/// # Errors
/// Every problem of the first file that has one, the secrets file being read first.
pub fn show(path: &Path, secrets: Option<&Path>) -> Result<Vec<Setting>, ConfigError> {
    let text = file::read_text(path, "check the path after `--config`")?;
    let store = secrets.map_or_else(|| Ok(SecretStore::environment()), SecretStore::from_file)?;
    let environment = |name: &str| std::env::var(name).ok();
    show_text(&path.display().to_string(), &text, &store, &environment, Build::THIS)
}

/// The same of a text.
pub(super) fn show_text(
    file_name: &str,
    text: &str,
    secrets: &SecretStore,
    environment: &dyn Fn(&str) -> Option<String>,
    build: Build,
) -> Result<Vec<Setting>, ConfigError> {
    let (root, settings, resolved) = read_tree(file_name, text, secrets, environment, build)?;
    let mut walk = Walk { settings: &settings, resolved: &resolved, secrets, lines: Vec::new() };
    walk.group("", "", Some(&root), 0);
    Ok(walk.lines)
}

impl Setting {
    /// The line of YAML, without where its value comes from.
    pub fn yaml(&self) -> String {
        let indent = "  ".repeat(self.depth);
        let dash = if self.is_item { "- " } else { "" };
        let key = &self.key;
        match &self.shown {
            Shown::Heading => format!("{indent}{dash}{key}:"),
            Shown::Value(yaml, _) | Shown::Partly(yaml, _) => format!("{indent}{dash}{key}: {yaml}"),
            Shown::Absent(words) => format!("{indent}{dash}# {key}: {words}"),
            Shown::Hidden => format!("{indent}{dash}# {key}: hidden"),
        }
    }

    /// Where the value comes from, in words. Nothing for a heading.
    pub fn origin(&self) -> Option<String> {
        Some(match self.whence.as_ref()? {
            Whence::File(line) => format!("line {line}"),
            Whence::Secrets(line, names, file) => {
                let place = file.as_deref().unwrap_or("the environment");
                format!("line {line}, secret {} from {place}", names.join(", "))
            }
            Whence::Elsewhere(Origin::Default) => "default".to_owned(),
            Whence::Elsewhere(Origin::Environment(name)) => format!("environment {name}"),
            Whence::Elsewhere(Origin::Url(at)) => format!("url, line {}", at.line),
            Whence::Elsewhere(Origin::Key(key)) => (*key).to_owned(),
        })
    }

    /// The same line for programs. Nothing for a heading.
    pub fn json(&self) -> Option<Json> {
        let (value, hidden) = match &self.shown {
            Shown::Heading => return None,
            Shown::Value(_, json) => (json.clone(), false),
            Shown::Partly(_, json) => (json.clone(), true),
            Shown::Absent(_) => (Json::Null, false),
            Shown::Hidden => (Json::Null, true),
        };
        let (from, line, name) = match self.whence.as_ref()? {
            Whence::File(line) => ("file", Some(*line), None),
            Whence::Secrets(line, names, _) => ("secret", Some(*line), Some(names.join(", "))),
            Whence::Elsewhere(Origin::Default) => ("default", None, None),
            Whence::Elsewhere(Origin::Environment(name)) => ("environment", None, Some((*name).to_owned())),
            Whence::Elsewhere(Origin::Url(at)) => ("url", Some(at.line), None),
            Whence::Elsewhere(Origin::Key(key)) => ("key", None, Some((*key).to_owned())),
        };
        let secrets_file = match self.whence.as_ref()? {
            Whence::Secrets(_, _, file) => file.as_deref(),
            Whence::File(_) | Whence::Elsewhere(_) => None,
        };
        Some(json!({
            "key": self.path,
            "value": value,
            "hidden": hidden,
            "from": from,
            "line": line,
            "name": name,
            "secrets_file": secrets_file,
        }))
    }
}

/// Goes through the keys in the order of the guide.
struct Walk<'a> {
    settings: &'a Settings,
    resolved: &'a [Resolved],
    secrets: &'a SecretStore,
    lines: Vec<Setting>,
}

impl Walk<'_> {
    /// The keys of the group that is described at `schema`.
    fn group(&mut self, schema: &str, path: &str, node: Option<&Node>, depth: usize) {
        for described in KEYS.iter().filter(|key| is_right_under(key, schema)) {
            let name = described.name();
            if name == "*" || !self.applies(described.path, node) {
                continue;
            }
            let entry = entries(node).iter().find(|entry| entry.key.replace('_', "-") == name);
            self.key(described, &join(path, name), entry, depth);
        }
    }

    fn key(&mut self, described: &'static Described, path: &str, entry: Option<&Entry>, depth: usize) {
        let name = described.name();
        // Some keys are a word or a mapping.
        let is_mapping = entry.is_some_and(|entry| matches!(entry.node.value, Value::Mapping(_)))
            && KEYS.iter().any(|key| key.is_under(described.path));
        let opens = described.kind == Kind::Group && entry.is_some()
            || described.kind != Kind::Blocks && is_mapping
            || described.absent == Absent::Empty;
        if opens {
            self.heading(path, name, depth);
            return self.group(described.path, path, entry.map(|entry| &entry.node), depth + 1);
        }
        match (described.kind, entry) {
            (Kind::Blocks, Some(entry)) if !matches!(entry.node.value, Value::Null) => {
                self.heading(path, name, depth);
                self.blocks(described, path, &entry.node, depth + 1);
            }
            (Kind::Map, Some(entry)) if !entries(Some(&entry.node)).is_empty() => {
                self.heading(path, name, depth);
                for entry in entries(Some(&entry.node)) {
                    let is_secret = name == "storage-options" || is_secret_property(entry);
                    self.value(&join(path, &entry.key), &entry.key, entry, is_secret, depth + 1);
                }
            }
            (Kind::Group | Kind::Blocks | Kind::Map, _) | (_, None) => self.absent(described, path, depth),
            (_, Some(entry)) => {
                let is_secret = match &entry.node.value {
                    Value::Scalar(scalar) if name == "url" => holds_password(scalar),
                    _ => is_secret_key(name),
                };
                self.value(path, name, entry, is_secret, depth);
            }
        }
    }

    /// Named blocks, or those of a list.
    fn blocks(&mut self, described: &Described, path: &str, node: &Node, depth: usize) {
        let schema = format!("{}.*", described.path);
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.heading(&path, &quoted(&entry.key), depth);
                    self.group(&schema, &path, Some(&entry.node), depth + 1);
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    let first = self.lines.len();
                    self.group(&schema, &format!("{path}[{index}]"), Some(item), depth + 1);
                    // The dash stands where the indent of the first line ends.
                    if let Some(line) = self.lines.get_mut(first) {
                        (line.is_item, line.depth) = (true, depth);
                    }
                }
            }
            _ => {}
        }
    }

    fn heading(&mut self, path: &str, key: &str, depth: usize) {
        self.push(path, key, Shown::Heading, None, depth);
    }

    /// A value that the file has.
    fn value(&mut self, path: &str, key: &str, entry: &Entry, is_secret: bool, depth: usize) {
        let shown = match is_secret && is_hidden(&entry.node) {
            true => Shown::Hidden,
            false if hides_within(&entry.node) => Shown::Partly(yaml_of(&entry.node), json_of(&entry.node)),
            false => Shown::Value(yaml_of(&entry.node), json_of(&entry.node)),
        };
        let mut names = Vec::new();
        secrets_in(&entry.node, &mut names);
        let (line, file) = (entry.key_at.line, self.secrets.file().map(str::to_owned));
        let whence = if names.is_empty() { Whence::File(line) } else { Whence::Secrets(line, names, file) };
        self.push(path, &quoted(key), shown, Some(whence), depth);
    }

    /// A value that the file does not have under its key.
    fn absent(&mut self, described: &Described, path: &str, depth: usize) {
        let found = self.resolved.iter().find(|resolved| resolved.path == path);
        let (shown, origin) = match (found, described.absent) {
            (Some(Resolved { text: None, origin, .. }), _) => (Shown::Hidden, origin.clone()),
            (Some(Resolved { text: Some(text), origin, .. }), _) => {
                (scalar(text, described.kind), origin.clone())
            }
            (None, Absent::Default(text)) => (scalar(text, described.kind), Origin::Default),
            (None, Absent::Means(words)) if !words.contains("PG") => {
                (Shown::Absent(words.replace('`', "")), Origin::Default)
            }
            (None, _) => (Shown::Absent("none".to_owned()), Origin::Default),
        };
        self.push(path, described.name(), shown, Some(Whence::Elsewhere(origin)), depth);
    }

    fn push(&mut self, path: &str, key: &str, shown: Shown, whence: Option<Whence>, depth: usize) {
        let (path, key) = (path.to_owned(), key.to_owned());
        self.lines.push(Setting { path, shown, whence, key, depth, is_item: false });
    }

    /// Whether the key means anything beside the others: the reader refuses some that would do nothing.
    fn applies(&self, schema: &str, node: Option<&Node>) -> bool {
        let is_kafka = matches!(self.settings.source, SourceSettings::Kafka(_));
        let is_lance = matches!(self.settings.target, TargetSettings::Lance(_));
        let word = |key: &str| match entries(node)
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node.value)
        {
            Some(Value::Scalar(scalar)) => Some(scalar.text.as_str()),
            _ => None,
        };
        match schema {
            "meta.consumer" | "transforms" | "embedsink.source.fluvio" => !is_kafka,
            "embedsink.source.kafka" => is_kafka,
            "embedsink.sink.postgres" => !is_lance,
            "embedsink.sink.lancedb" => is_lance,
            "meta.consumer.offset.flush-period" => word("strategy") != Some("none"),
            _ => match schema.strip_prefix("embedsink.tables.*.index.") {
                Some(key) if is_lance => key == "kind" || (key == "metric" && word("kind") != Some("none")),
                Some("m" | "ef-construction") => matches!(word("kind"), None | Some("hnsw")),
                Some("lists") => word("kind") == Some("ivfflat"),
                Some(key) => key == "kind" || word("kind") != Some("none"),
                None => true,
            },
        }
    }
}

fn is_right_under(key: &Described, schema: &str) -> bool {
    if schema.is_empty() { !key.path.contains('.') } else { key.is_under(schema) }
}

fn entries(node: Option<&Node>) -> &[Entry] {
    match node.map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries,
        _ => &[],
    }
}

/// Whether what the file has of a URL holds a password, or a part of one. One that is a secret and nothing else is none.
fn holds_password(url: &Scalar) -> bool {
    // It can be any part of a URL, even the port.
    const WORD: &str = "65432";
    let Some(template) = &url.template else {
        return PostgresUrl::parse(&url.text).map_or(true, |url| url.password.is_some());
    };
    template.contains(WORD)
        || PostgresUrl::parse(&with_word(template, WORD))
            .map_or(true, |url| url.password.is_some_and(|password| password.expose() != WORD))
}

/// The names of the secrets that were put in.
fn secrets_in(node: &Node, names: &mut Vec<String>) {
    match &node.value {
        Value::Scalar(Scalar { template: Some(template), .. }) => {
            let found = template.split("secrets.").skip(1).map(|rest| {
                rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default()
            });
            for name in found {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| secrets_in(item, names)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| secrets_in(&entry.node, names)),
        Value::Null | Value::Scalar(_) | Value::Unresolved => {}
    }
}

/// A value that does not come from the file's tree.
fn scalar(text: &str, kind: Kind) -> Shown {
    match kind {
        Kind::List => Shown::Value(format!("[{}]", quoted(text)), json!([text])),
        Kind::Integer | Kind::Ratio | Kind::Boolean => {
            Shown::Value(text.to_owned(), serde_json::from_str(text).unwrap_or_else(|_| text.into()))
        }
        _ => Shown::Value(quoted(text), text.into()),
    }
}
