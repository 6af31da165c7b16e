//! Records written by hand, and looked at.

use std::fs::{self, File};
use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use sink_lancedb::{IndexFound, VectorReader};

use crate::stage::Stage;
use crate::support::random::Random;
use crate::support::record::large_file;
use crate::support::turn::alone;

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
async fn kill_nine_in_the_middle_of_a_file_loses_nothing_and_the_same_command_goes_on() {
    const LINES: usize = 4_000;
    let _alone = alone().await;
    let mut stage = Stage::new("write, kill -9", 0).await;
    stage.connector.more = "batch: {max-rows: 100}".to_owned();
    stage.connector.write();
    let input = stage.connector.file("rows.jsonl");
    // Each key stands twice, and of a row that was written twice only the last one counts.
    let line = |number: usize| {
        let (key, text) = (number % (LINES / 2), number / (LINES / 2));
        format!(
            "{{\"id\": \"k{key}\", \"text\": \"{text}\", \"embedding\": [{number}, 2, 3, 4, 5, 6, 7, 8]}}\n"
        )
    };
    fs::write(&input, (0..LINES).map(line).collect::<String>()).unwrap();
    let path = stage.connector.path();
    let write = ["write", "--config", &path, input.to_str().unwrap(), "--json"];
    let mut before = 0;
    for part in [1, 3, 5] {
        let mut process = stage.connector.run(&write);
        let wanted = LINES as i64 * part / 8;
        process
            .until("lines to be written", async |_| (stage.next_line().await > wanted).then_some(()))
            .await;
        process.kill();
        let now = stage.next_line().await;
        assert!(before < now && now <= LINES as i64, "a kill in the middle: {before}, {now}");
        before = now;
    }
    let done: Value = serde_json::from_str(&stage.connector.run(&write).outputs().await).unwrap();
    assert_eq!(done["records"], LINES as i64 + 1 - before, "{done}");
    let rows = stage.rows().await;
    assert_eq!(rows.len(), LINES / 2);
    assert!(rows.values().all(|row| row.text.as_deref() == Some("1")), "the last line of each key");
}

#[tokio::test]
async fn a_large_file_takes_no_more_memory_than_batches_and_caches_do() {
    const RECORDS: usize = 48_000;
    const LIMIT_KIB: u64 = 640 * 1024;
    let _alone = alone().await;
    let mut stage = Stage::new("a large file", 0).await;
    stage.connector.tables = "embeddings: {dimensions: 384}".to_owned();
    stage.connector.write();
    let input = stage.connector.file("large.jsonl");
    let bytes = large_file(&input, RECORDS);
    let path = stage.connector.path();
    let peak = stage.connector.run(&["write", "--config", &path, input.to_str().unwrap()]).peak().await;
    println!("{peak} KiB at most for {bytes} bytes");
    // What stood in memory as a whole would come on top of the 300 MiB that a file of a quarter of this takes.
    assert!(bytes > 400_000_000 && peak < LIMIT_KIB, "{peak} KiB for {bytes} bytes");
    let mut reader = sink_lancedb::VectorReader::open(&stage.dataset(), "embeddings").await.unwrap();
    assert_eq!(reader.stats().await.unwrap().rows, RECORDS as u64);
}

#[tokio::test]
async fn an_import_ends_with_its_rows_in_the_vector_index() {
    let mut stage = Stage::new("an index", 0).await;
    stage.connector.tables = "embeddings: {dimensions: 8, index: {kind: ivfflat, metric: l2}}".to_owned();
    stage.connector.more.clear();
    stage.connector.write();
    let path = stage.connector.path();
    for (name, numbers) in [("first.jsonl", 0..12_000), ("second.jsonl", 12_000..24_000)] {
        let (input, end) = (stage.connector.file(name), numbers.end as u64);
        fs::write(&input, lines(8, numbers)).unwrap();
        let text =
            stage.connector.run(&["write", "--config", &path, input.to_str().unwrap()]).ends_with(0).await;
        let found = vector_index(&stage).await.expect("built without twenty commits");
        assert_eq!((found.rows_indexed, found.rows_unindexed), (end, 0), "{text}");
    }
    let near = ["query", "--config", &path, "embeddings", "--json", "--near-id", "k7", "--limit", "1"];
    let text = stage.connector.run(&near).outputs().await;
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["index"], "embedding_idx", "{text}");
}

#[tokio::test]
async fn a_stop_while_an_import_builds_the_vector_index_leaves_it_to_the_next_run() {
    const ROWS: usize = 20_000;
    let mut stage = Stage::new("no index", 0).await;
    stage.connector.tables = "embeddings: {dimensions: 128, index: {kind: hnsw, metric: l2}}".to_owned();
    stage.connector.more.clear();
    stage.connector.write();
    let (input, path) = (stage.connector.file("rows.jsonl"), stage.connector.path());
    fs::write(&input, lines(128, 0..ROWS)).unwrap();
    let write = ["write", "--config", &path, input.to_str().unwrap()];
    for run in ["writes the file", "finds it written"] {
        let mut process = stage.connector.run(&write);
        process.logs(1, "the vector index is being built").await;
        process.signal("INT");
        let text = process.ends_within(Duration::from_secs(10), 0).await;
        assert!(text.contains("upkeep is left to the next start"), "{run}: {text}");
        assert_eq!(vector_index(&stage).await, None, "{run}");
    }
    let mut reader = VectorReader::open(&stage.dataset(), "embeddings").await.unwrap();
    assert_eq!(reader.stats().await.unwrap().rows, ROWS as u64);
}

/// Records with the keys `k0`, `k1` …, one a line.
fn lines(dimensions: usize, numbers: Range<usize>) -> String {
    let mut random = Random::seeded(1);
    let mut line = |number| {
        let embedding: Vec<f32> = (0..dimensions).map(|_| random.below(1_000) as f32).collect();
        format!("{{\"id\": \"k{number}\", \"embedding\": {embedding:?}}}\n")
    };
    numbers.map(&mut line).collect()
}

async fn vector_index(stage: &Stage) -> Option<IndexFound> {
    let mut reader = VectorReader::open(&stage.dataset(), "embeddings").await.unwrap();
    reader.stats().await.unwrap().vector_index
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
