//! What a plain writer service does: the table of `docs/features.md`, each line of it run by a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::connector::Connector;
use crate::support::postgres::Database;
use crate::support::record::Shape;

const PLAIN: Shape = Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 0, tombstones: 0, damaged: 0 };

/// What such a service has.
const FEATURES: [&str; 13] = [
    "consume",
    "validate",
    "write",
    "health",
    "statistics",
    "configuration",
    "start",
    "stop",
    "manual write",
    "migrations",
    "query",
    "test message",
    "containers",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of every source below a folder.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => sources(&path),
            false if path.extension().is_some_and(|end| end == "rs") => fs::read_to_string(path).unwrap(),
            false => String::new(),
        })
        .collect()
}

#[test]
fn each_line_of_the_table_of_features_names_tests_that_there_are() {
    let table = fs::read_to_string(root().join("docs/features.md")).unwrap();
    let tests = sources(&root().join("tests"));
    let lines: Vec<Vec<String>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Feature"))
        .map(|line| line.replace("\\|", "¦").split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let named: BTreeSet<&str> = lines.iter().map(|cells| cells[1].as_str()).collect();
    for feature in FEATURES {
        assert!(named.contains(feature), "{feature} has no line");
    }
    for cells in &lines {
        let names: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{} is run by no test", cells[1]);
        for name in names {
            assert!(tests.contains(&format!("fn {name}()")), "{}: there is no test {name}", cells[1]);
        }
    }
}

#[tokio::test]
async fn a_test_message_goes_in_by_hand_and_is_found_again() {
    let database = Database::create().await;
    let connector = Connector::without_source(&database, &PLAIN);
    connector.migrate().await;
    let (path, line) = (connector.path(), connector.file("line.jsonl"));
    fs::write(&line, "{\"id\": \"test-1\", \"text\": \"hello\", \"embedding\": [1, 2, 3]}\n").unwrap();
    let input = fs::File::open(&line).unwrap();
    connector.run_with_input(&["write", "--config", &path, "-"], input).ends_with(0).await;
    let query = ["query", "--config", &path, "embeddings", "--id", "test-1", "--json"];
    let found = connector.run(&query).outputs().await;
    let row: Value = serde_json::from_str(found.lines().next().unwrap()).unwrap();
    assert_eq!(row["text"], "hello");
}

/// No container can be run by a test. That they come up is for whoever has an engine to see.
#[test]
fn the_containers_answer_where_the_reference_configuration_looks() {
    let read = |name: &str| -> Value {
        serde_saphyr::from_str(&fs::read_to_string(root().join(name)).unwrap()).unwrap()
    };
    let (compose, reference) = (read("compose.yaml"), read("connector.yaml"));
    let embedsink = &reference["embedsink"];
    let postgres = &compose["services"]["postgres"];
    let url = embedsink["sink"]["postgres"]["url"].as_str().unwrap();
    assert!(url.contains("@localhost:5432/"), "{url}");
    assert_eq!(postgres["ports"][0], "127.0.0.1:${POSTGRES_PORT:-5432}:5432");
    assert!(
        url.ends_with(&format!("/{}", postgres["environment"]["POSTGRES_DB"].as_str().unwrap())),
        "{url}"
    );
    assert!(postgres["image"].as_str().unwrap().starts_with("pgvector/pgvector:"));
    let broker = &embedsink["source"]["kafka"]["bootstrap-servers"][0];
    assert_eq!(broker, "localhost:9092");
    let kafka = &compose["services"]["kafka"];
    assert_eq!(kafka["ports"][0], "127.0.0.1:${KAFKA_PORT:-9092}:9092");
    let advertised = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(advertised.starts_with("HOST://localhost:${KAFKA_PORT:-9092}"), "{advertised}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_program_needs_nothing_of_a_container_but_the_c_library() {
    let told = Command::new("ldd").arg(env!("CARGO_BIN_EXE_embedsink")).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let known =
        ["linux-vdso", "libgcc_s.so", "libm.so", "libc.so", "libdl.so", "libpthread.so", "ld-linux", "ld64"];
    for line in told.lines() {
        assert!(known.iter().any(|library| line.contains(library)), "{line}");
    }
    assert!(told.contains("libc.so"), "{told}");
}
