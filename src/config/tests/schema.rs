//! What is written from the description of the keys: `Connector.toml`, and the table of the guide.

use std::path::PathBuf;

use super::*;
use crate::config::reference::Kind;

const BLESS: &str = "EMBEDSINK_BLESS=1 cargo test --release --lib config";

/// Compares a committed file with what it should hold, or writes it when asked to.
fn compare(name: &str, committed: &str, wanted: &str) {
    if committed == wanted {
        return;
    }
    if std::env::var_os("EMBEDSINK_BLESS").is_some() {
        fs::write(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name), wanted).unwrap();
        return;
    }
    let differs = wanted.lines().zip(committed.lines()).find(|(wanted, found)| wanted != found);
    panic!("{name} is not what src/config/reference.rs describes, at {differs:?}; write it again: {BLESS}");
}

fn root_file(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

#[test]
fn connector_toml_is_written_from_the_keys_that_the_reader_knows() {
    compare("Connector.toml", &root_file("Connector.toml"), &connector_toml());
}

#[test]
fn the_table_of_the_guide_is_written_from_the_keys_that_the_reader_knows() {
    let (before, rest) = GUIDE.split_once("| Key | Default | Meaning |").expect("the guide has the table");
    let (_, after) = rest.split_once("\n\n").expect("something follows the table");
    compare("docs/configuration.md", GUIDE, &format!("{before}{}\n{after}", key_table()));
}

#[test]
fn the_framework_reads_connector_toml_and_requires_only_what_every_configuration_has() {
    let toml: toml::Table = connector_toml().parse().unwrap();
    assert_eq!(toml["package"]["name"].as_str(), Some("embedsink"));
    assert_eq!(toml["package"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(toml["direction"]["dest"].as_bool(), Some(true));
    assert_eq!(toml["deployment"]["binary"].as_str(), Some("embedsink"));
    let mut custom = toml["custom"].as_table().unwrap().clone();
    assert_eq!(custom.remove("name").unwrap().as_str(), Some("embedsink"));
    let schema: openapiv3::Schema = custom.try_into().unwrap();
    let openapiv3::SchemaKind::Any(custom) = &schema.schema_kind else {
        panic!("it has a type of its own");
    };
    assert_eq!(custom.required, ["sink", "tables"]);
    let names: BTreeSet<&str> = custom.properties.keys().map(String::as_str).collect();
    let blocks = ["batch", "errors", "shutdown-timeout", "sink", "source", "tables"];
    assert_eq!(names, BTreeSet::from(blocks));

    // The enforced keys, from the top, are in every file that the reader takes.
    for text in [MINIMAL, REFERENCE] {
        for key in ["  sink:", "postgres:", "  tables:"] {
            assert!(text.contains(key), "{key}");
        }
    }
    let required = |name: &str| match &custom.properties[name].as_item().unwrap().schema_kind {
        openapiv3::SchemaKind::Type(openapiv3::Type::Object(object)) => object.required.clone(),
        other => panic!("{other:?}"),
    };
    assert!(required("sink").is_empty(), "one of two");
    assert!(required("tables").is_empty() && required("source").is_empty() && required("batch").is_empty());
}

#[test]
fn every_word_that_a_choice_is_described_with_is_taken() {
    for key in KEYS {
        let Kind::Choice(words) = key.kind else { continue };
        for word in words {
            let text = with_value(key.path, word);
            let text = if *word == "ivfpq" { text.replace(SERVER, LANCE) } else { text };
            assert!(read(&text).is_ok(), "{text}{:?}", problems(&text));
        }
    }
}

#[test]
fn every_default_that_is_described_is_the_one_in_force() {
    for key in KEYS {
        let reference::Absent::Default(value) = key.absent else { continue };
        // These stand for nothing alone: without the rest of their group there is no such group.
        if key.path.starts_with("transforms") || key.path.ends_with("nanos") {
            continue;
        }
        let text = with_value(key.path, value);
        let base = base_of(key.path);
        let (mut with, mut without) = (read(&text).unwrap(), read(&base).unwrap());
        if key.path == "meta.topic.compression.type" {
            // Saying nothing leaves it to the cluster, whose word is `any`.
            assert_eq!(fluvio(&with).topic.compression, Some(crate::framework::config::Compression::Any));
            for settings in [&mut with, &mut without] {
                let SourceSettings::Fluvio(fluvio) = &mut settings.source else { panic!() };
                fluvio.topic.compression = None;
            }
        }
        assert_eq!(with, without, "{}", key.path);
    }
}

const SERVER: &str = "postgres: {url: postgres://postgres@localhost/db}";
const LANCE: &str = "lancedb: {uri: ./data}";

/// The minimal file with the other target.
fn on_lance() -> String {
    MINIMAL.replacen(SERVER, LANCE, 1)
}

/// A file in which the key makes sense.
fn base_of(path: &str) -> String {
    let fluvio = "apiVersion: 0.2.0\nmeta: {name: docs, topic: {meta: {name: t}}, version: '1'}\nembedsink:\n  \
                  sink: {postgres: {url: postgres://postgres@localhost/db}}\n  tables: {t: {dimensions: 1}}\n";
    if path.starts_with("meta.topic.") || path.starts_with("meta.consumer") || path.contains("fluvio") {
        fluvio.to_owned()
    } else if path.starts_with("embedsink.sink.lancedb") {
        on_lance()
    } else if path.starts_with("embedsink.tables.*.index.") {
        MINIMAL.replacen("dimensions: ", "index: {}, dimensions: ", 1)
    } else {
        MINIMAL.to_owned()
    }
}

/// The base of a key, with the value put in.
fn with_value(path: &str, value: &str) -> String {
    let nested = |path: &str| {
        let words: Vec<&str> = path.split('.').collect();
        let (last, groups) = words.split_last().unwrap();
        let open: String = groups.iter().map(|group| format!("{group}: {{")).collect();
        format!("{open}{last}: {value}{}", "}".repeat(groups.len()))
    };
    let base = base_of(path);
    if let Some(key) = path.strip_prefix("embedsink.tables.*.index.") {
        return base.replacen("index: {}", &format!("index: {{{key}: {value}}}"), 1);
    }
    if let Some(key) = path.strip_prefix("embedsink.tables.*.") {
        return base.replacen("dimensions: ", &format!("{key}: {value}, dimensions: "), 1);
    }
    let (from, inside) = [
        ("apiVersion", ""),
        ("meta.topic.", "topic: {"),
        ("meta.", "meta: {"),
        ("embedsink.source.kafka.", "kafka: {"),
        ("embedsink.sink.postgres.", "postgres: {"),
        ("embedsink.sink.lancedb.", "lancedb: {"),
        ("embedsink.", "embedsink:\n  "),
    ]
    .into_iter()
    .find(|(prefix, _)| path.starts_with(prefix))
    .unwrap();
    if inside.is_empty() {
        return format!("{}: {value}\n{base}", path);
    }
    let entry = nested(path.strip_prefix(from).unwrap());
    let separator = if inside.ends_with('{') { ", " } else { "\n  " };
    base.replacen(inside, &format!("{inside}{entry}{separator}"), 1)
}
