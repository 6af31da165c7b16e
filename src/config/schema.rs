//! The description of the keys in the two forms that others read: `Connector.toml` for the framework's tools,
//! and a table for people.

use super::reference::{Absent, Described, KEYS, Kind};

/// The release of Fluvio whose format this is. The tools keep it and compare it with nothing.
const FLUVIO: &str = "0.18.1";
const OWN: &str = "embedsink";

/// The text of `Connector.toml`: the package, and the schema of everything under `embedsink`.
///
/// `cdk` enforces `required` alone, all the way down from the top. So only what no configuration can do
/// without is required there; everything else is for the reader of the file.
pub fn connector_toml() -> String {
    let mut toml = String::from(HEAD);
    let package = [
        ("name", env!("CARGO_PKG_NAME")),
        ("group", OWN),
        ("version", env!("CARGO_PKG_VERSION")),
        ("apiVersion", "0.1.0"),
        ("fluvio", FLUVIO),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("license", env!("CARGO_PKG_LICENSE")),
        ("visibility", "private"),
    ];
    toml.push_str("\n[package]\n");
    for (key, value) in package {
        line(&mut toml, key, &text(value));
    }
    toml.push_str("\n[direction]\ndest = true\n");
    toml.push_str("\n[deployment]\n");
    line(&mut toml, "binary", &text(env!("CARGO_PKG_NAME")));
    toml.push_str("\n[custom]\n");
    line(&mut toml, "name", &text(OWN));
    required(&mut toml, OWN);
    for (key, rest) in KEYS.iter().filter_map(|key| Some((key, key.path.strip_prefix("embedsink.")?))) {
        let mut header = String::from("custom");
        for segment in rest.split('.') {
            match segment {
                "*" => header.push_str(".additionalProperties"),
                name => header.push_str(&format!(".properties.{name}")),
            }
        }
        toml.push_str(&format!("\n[{header}]\n"));
        property(&mut toml, key);
    }
    toml
}

const HEAD: &str = "\
# What Fluvio's `cdk` reads. Written from the description of the keys in src/config/reference.rs;
# `EMBEDSINK_BLESS=1 cargo test --release --lib config` writes it again.
";

/// A schema of OpenAPI 3 for one key.
fn property(toml: &mut String, key: &Described) {
    line(toml, "title", &text(&title(key.name())));
    line(toml, "description", &text(&key.about.replace('`', "")));
    let (kind, more) = match key.kind {
        Kind::Group | Kind::Blocks => ("object", None),
        Kind::Text | Kind::Size | Kind::Duration => ("string", None),
        Kind::Integer => ("integer", None),
        Kind::Ratio => ("number", None),
        Kind::Boolean => ("boolean", None),
        Kind::Choice(words) => ("string", Some(format!("enum = {}", list(words)))),
        Kind::List => ("array", Some("items = { type = \"string\" }".to_owned())),
        Kind::Map => ("object", Some("additionalProperties = { type = \"string\" }".to_owned())),
    };
    line(toml, "type", &text(kind));
    if let Some(more) = more {
        toml.push_str(&more);
        toml.push('\n');
    }
    if let Absent::Default(value) = key.absent {
        let bare = matches!(key.kind, Kind::Integer | Kind::Ratio | Kind::Boolean);
        line(toml, "default", &if bare { value.to_owned() } else { text(value) });
    }
    if key.kind == Kind::Group {
        required(toml, key.path);
    }
}

/// The keys that the group at `path` cannot do without.
fn required(toml: &mut String, path: &str) {
    let keys: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.is_under(path) && key.absent == Absent::Refused)
        .map(Described::name)
        .collect();
    if !keys.is_empty() {
        line(toml, "required", &list(&keys));
    }
}

fn line(toml: &mut String, key: &str, value: &str) {
    toml.push_str(key);
    toml.push_str(" = ");
    toml.push_str(value);
    toml.push('\n');
}

fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| text(word)).collect();
    format!("[{}]", words.join(", "))
}

/// A basic string of TOML.
fn text(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `max-rows` as `Max rows`.
fn title(name: &str) -> String {
    let words = if name == "*" { "table".to_owned() } else { name.replace('-', " ") };
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The table of the guide, in Markdown: each key with its default and its meaning.
pub fn key_table() -> String {
    let mut table = String::from("| Key | Default | Meaning |\n|---|---|---|\n");
    for key in KEYS.iter().filter(|key| !key.is_heading()) {
        let path = key.path.replace("tables.*", "tables.<table>").replace(".*", "[]");
        let absent = match key.absent {
            Absent::Refused | Absent::Elsewhere | Absent::Empty => "",
            Absent::Default(words) | Absent::Means(words) => words,
        };
        let cell = if absent.is_empty() { String::new() } else { format!("{absent} ") };
        // A cell cannot hold a bar.
        let about = key.about.replace('|', "\\|");
        table.push_str(&format!("| `{path}` | {cell}| {about} |\n"));
    }
    table
}
