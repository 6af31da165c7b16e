//! What an operator has to mend: said with its fix, with exit code 78, and nothing is written.

use std::fs;

use sink_lancedb::{KeyedSpec, KeyedTable, Kind, Upkeep, Value};

use crate::stage::{Stage, positions_spec};

#[tokio::test]
async fn a_second_writer_is_refused_by_name_of_the_first_and_readers_are_not() {
    let stage = Stage::new("two writers", 500).await;
    let mut first = stage.connector.start();
    stage.settles(&mut first, 500).await;

    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("another process writes to the LanceDB dataset"), "{text}");
    assert!(text.contains(&format!("Stop process {} first", first.id())), "{text}");
    let path = stage.connector.path();
    let input = stage.connector.file("one.jsonl");
    fs::write(&input, "{\"id\": \"a\", \"embedding\": [1, 2, 3, 4, 5, 6, 7, 8]}\n").unwrap();
    let write = ["write", "--config", &path, input.to_str().unwrap()];
    let text = stage.connector.run(&write).ends_with(78).await;
    assert!(text.contains("another process writes to the LanceDB dataset"), "{text}");

    let shown = stage.connector.run(&["offsets", "show", "--config", &path, "--json"]).outputs().await;
    let next: i64 = shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["next_offset"].as_i64().unwrap())
        .sum();
    assert_eq!(next, 500);
    let found = stage.connector.run(&["query", "--config", &path, "embeddings", "--json", "--limit", "5"]);
    assert_eq!(found.outputs().await.lines().count(), 6, "five rows and a summary");

    first.stop().await;
    stage.connector.run(&write).ends_with(0).await;
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_with_all_that_is_wrong() {
    let mut stage = Stage::new("foreign schema", 100).await;
    stage.finish(stage.connector.start()).await;
    let before = stage.rows().await;
    stage.connector.tables = "embeddings: {dimensions: 9}\narticles: {dimensions: 12}\n".to_owned();
    let text = stage.connector.start().ends_with(78).await;
    assert!(
        text.contains("column embedding is fixed_size_list<float32>[8], not fixed_size_list<float32>[9]"),
        "{text}"
    );
    assert!(text.contains("If its 8 dimensions are right, configure them"), "{text}");
    assert_eq!(stage.rows().await, before);
}

#[tokio::test]
async fn a_table_that_somebody_else_has_made_is_told_and_left_as_it_is() {
    let stage = Stage::new("missing column", 100).await;
    let columns = [("id", Kind::Text), ("text", Kind::Text), ("timestamp", Kind::Timestamp)];
    let foreign = KeyedSpec {
        name: "embeddings".to_owned(),
        columns: columns.map(|(name, kind)| (name.to_owned(), kind)).into(),
        upkeep: Upkeep::default(),
    };
    let locked = stage.dataset().lock().unwrap();
    drop(KeyedTable::open(&locked, foreign.clone()).await.unwrap());
    drop(locked);
    let text = stage.connector.start().ends_with(78).await;
    for part in [
        "the LanceDB table embeddings cannot be written to",
        "It has no column embedding (fixed_size_list<float32>[8]).",
        "It has no column source (string).",
        "Its column timestamp is timestamp[us], not timestamp[ns].",
        "It has a column key that nothing fills. Fix: Drop it",
        "moving the folder embeddings.lance away lets the table be made anew",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(stage.settled().await, 0);
    let locked = stage.dataset().lock().unwrap();
    let mut table = KeyedTable::open(&locked, foreign).await.unwrap();
    assert_eq!(table.reader().count().await.unwrap(), 0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_one_is_told_with_its_path() {
    let mut stage = Stage::new("bad folder", 10).await;
    fs::write(stage.connector.file("data"), "no folder").unwrap();
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("it is not a folder") && text.contains("data"), "{text}");
    stage.connector.postgres = "uri: ./data/below\n".to_owned();
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("data/below") && text.contains("Name a folder on a local disk"), "{text}");
}

#[tokio::test]
async fn a_table_that_is_made_anew_behind_stored_positions_is_told() {
    const WORDS: &str = "it will hold only what comes from here on";
    let mut stage = Stage::new("made anew", 500).await;
    let text = stage.finish(stage.connector.start()).await;
    assert!(!text.contains(WORDS), "{text}");
    let folder = stage.connector.file("data/embeddings.lance");
    fs::rename(&folder, stage.connector.file("moved")).unwrap();
    stage.produce(100);
    let text = stage.finish(stage.connector.start()).await;
    assert!(text.contains(WORDS) && text.contains("start with another `meta.name`"), "{text}");
    let text = stage.finish(stage.connector.start()).await;
    assert!(!text.contains(WORDS), "it is told once: {text}");
}

#[tokio::test]
async fn a_position_that_somebody_has_damaged_is_told_and_no_partition_begins_anew() {
    let stage = Stage::new("damaged position", 300).await;
    stage.finish(stage.connector.start()).await;
    let before = stage.rows().await;
    let locked = stage.dataset().lock().unwrap();
    let mut table = KeyedTable::open(&locked, positions_spec()).await.unwrap();
    let mut positions = table.reader().all(None).await.unwrap();
    let column = positions_spec().columns.iter().position(|(name, _)| name == "next_offset").unwrap();
    positions.iter_mut().for_each(|position| position.values[column] = Value::Null);
    table.put(&positions).await.unwrap();
    drop((table, locked));
    let path = stage.connector.path();
    for (process, code) in
        [(stage.connector.start(), 78), (stage.connector.run(&["offsets", "show", "--config", &path]), 78)]
    {
        let text = process.ends_with(code).await;
        assert!(text.contains("embedsink_offsets") && text.contains("is no position"), "{text}");
    }
    assert_eq!(stage.rows().await, before);
}

#[tokio::test]
async fn positions_of_a_folder_that_is_not_there_are_not_said_to_be_none() {
    let stage = Stage::new("no folder yet", 1).await;
    stage.connector.write();
    let path = stage.connector.path();
    let text = stage.connector.run(&["offsets", "show", "--config", &path]).ends_with(1).await;
    assert!(text.contains("there is no folder") && text.contains("Correct sink.lancedb.uri"), "{text}");
    assert!(!stage.connector.file("data").exists(), "looking makes none");
}

#[tokio::test]
async fn a_table_without_a_file_that_it_needs_stops_the_connector_and_is_not_made_anew() {
    let stage = Stage::new("a missing file", 500).await;
    stage.finish(stage.connector.start()).await;
    fs::remove_dir_all(stage.connector.file("data/embeddings.lance/_versions")).unwrap();
    let text = stage.connector.start().ends_with(78).await;
    assert!(text.contains("a file or version of the table is not there"), "{text}");
    assert!(text.contains("Restore the whole dataset from a copy"), "{text}");
}
