//! Records written by hand, and looked at.

use std::fs::{self, File};

use serde_json::Value;

use crate::stage::Stage;

const LINES: &str = "\
{\"id\": \"a\", \"text\": \"first\", \"embedding\": [3, 4, 0, 0, 0, 0, 0, 0], \"metadata\": {\"n\": 1}}
{\"id\": \"b\", \"embedding\": [0, 0, 0, 0, 0, 0, 0, 0.5]}
no json
{\"id\": \"a\", \"text\": \"last\", \"embedding\": [3, 4, 0, 0, 0, 0, 0, 0]}
";

#[tokio::test]
async fn a_file_is_written_once_and_again_only_when_asked() {
    let stage = Stage::new("write", 0).await;
    stage.connector.write();
    let input = stage.connector.file("rows.jsonl");
    fs::write(&input, LINES).unwrap();
    let path = stage.connector.path();
    let write = ["write", "--config", &path, input.to_str().unwrap(), "--json"];
    let done: Value = serde_json::from_str(&stage.connector.run(&write).outputs().await).unwrap();
    assert_eq!((done["upserted"].as_u64(), done["dead_lettered"].as_u64()), (Some(2), Some(1)), "{done}");
    let again: Value = serde_json::from_str(&stage.connector.run(&write).outputs().await).unwrap();
    assert_eq!(again["records"], 0, "{again}");
    let forced = [&write[..], &["--again"]].concat();
    let forced: Value = serde_json::from_str(&stage.connector.run(&forced).outputs().await).unwrap();
    assert_eq!((forced["upserted"].as_u64(), forced["unchanged"].as_u64()), (Some(0), Some(2)), "{forced}");
    assert_eq!(stage.rows().await.len(), 2);
    assert_eq!(stage.rows().await[&(0, "a".to_owned())].text.as_deref(), Some("last"));
}

#[tokio::test]
async fn standard_input_is_written_and_leaves_no_position() {
    let stage = Stage::new("stdin", 0).await;
    stage.connector.write();
    let input = stage.connector.file("rows.jsonl");
    fs::write(&input, LINES).unwrap();
    let path = stage.connector.path();
    let write = ["write", "--config", &path, "-"];
    stage.connector.run_with_input(&write, File::open(&input).unwrap()).ends_with(0).await;
    assert_eq!(stage.rows().await.len(), 2);
    let shown = stage.connector.run(&["offsets", "show", "--config", &path]).outputs().await;
    assert!(shown.starts_with("nothing is stored"), "{shown}");
}

#[tokio::test]
async fn rows_and_neighbours_are_shown_with_distances_as_postgres_gives_them() {
    let mut stage = Stage::new("query", 0).await;
    stage.connector.tables =
        "embeddings: {dimensions: 8, index: {metric: l2}}\narticles: {dimensions: 12}\n".to_owned();
    stage.connector.write();
    let input = stage.connector.file("rows.jsonl");
    fs::write(&input, LINES).unwrap();
    let path = stage.connector.path();
    stage.connector.run(&["write", "--config", &path, input.to_str().unwrap()]).ends_with(0).await;

    let query = |arguments: &[&str]| {
        let all = [&["query", "--config", &path, "embeddings", "--json"], arguments].concat();
        let process = stage.connector.run(&all);
        async {
            let text = process.outputs().await;
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        }
    };
    let one = query(&["--id", "a", "--with-vector"]).await;
    assert_eq!(
        (one[0]["text"].as_str(), one[0]["embedding"][1].as_f64()),
        (Some("last"), Some(4.0)),
        "{one:?}"
    );
    let near = query(&["--near", "[0,0,0,0,0,0,0,0]"]).await;
    let distances: Vec<f64> = near[..2].iter().map(|row| row["distance"].as_f64().unwrap()).collect();
    assert_eq!(distances, [0.5, 5.0], "{near:?}");
    assert_eq!(near[2]["summary"]["index"], Value::Null);
    let text =
        stage.connector.run(&["query", "--config", &path, "embeddings", "--id", "none"]).ends_with(1).await;
    assert!(text.contains("has no row with the id"), "{text}");
}
