//! What is told of the dataset.

use serde_json::Value;

use crate::stage::Stage;
use crate::support::connector::Process;
use crate::support::record::{Outcome, Record};
use crate::support::turn::alone;

/// The table of this name in the document, once it fulfils `holds`.
async fn told(stage: &Stage, process: &mut Process, table: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let socket = process.socket().to_str().unwrap().to_owned();
    process
        .until(&format!("a good word on {table}"), async |_| {
            let status = stage.connector.run(&["status", "--json", "--socket", &socket]).outputs().await;
            let document: Value = serde_json::from_str(&status).unwrap();
            let tables = document["sink"]["dataset"].as_array().cloned().unwrap_or_default();
            tables.into_iter().find(|told| told["table"] == table && holds(told))
        })
        .await
}

#[tokio::test]
async fn status_shows_tables_upkeep_and_the_index_that_is_built_once_there_are_rows_enough() {
    let _alone = alone().await;
    let mut stage = Stage::new("status", 30_000).await;
    stage.connector.tables =
        "embeddings: {dimensions: 8, index: {kind: hnsw, metric: l2}}\narticles: {dimensions: 12}\n"
            .to_owned();
    stage.connector.more = "batch: {max-rows: 1000, max-wait: 100ms, linger: 5ms}".to_owned();
    let mut process = stage.connector.start();
    stage.settles(&mut process, stage.log.len()).await;
    let rows = stage.rows().await.keys().filter(|(table, _)| *table == 0).count();
    let told_rows =
        |table: &Value| table["rows"] == rows as u64 && table["upkeep"]["done"].as_u64() >= Some(1);
    let table = told(&stage, &mut process, "embeddings", told_rows).await;
    for key in ["versions", "fragments", "files", "disk_bytes"] {
        assert!(table[key].as_u64() > Some(0), "{key} in {table}");
    }
    assert_eq!(table["upkeep"]["trouble"], Value::Null);
    told(&stage, &mut process, "embedsink_offsets", |table| table["rows"] == 4).await;

    let socket = process.socket().to_str().unwrap().to_owned();
    let text = stage.connector.run(&["status", "--socket", &socket]).outputs().await;
    assert!(text.contains("table in the dataset") && text.contains("embedsink_dead_letters"), "{text}");
    let metrics = stage.connector.run(&["status", "--prometheus", "--socket", &socket]).outputs().await;
    let line = format!(
        "embedsink_dataset_rows{{connector=\"{}\",table=\"embeddings\"}} {rows}",
        stage.connector.name()
    );
    assert!(metrics.contains(&line), "{line} in {metrics}");
    process.stop().await;
}

#[tokio::test]
async fn an_index_is_built_once_there_are_ten_thousand_rows_and_searches_use_it() {
    let _alone = alone().await;
    let mut stage = Stage::new("index", 0).await;
    stage.connector.tables =
        "embeddings: {dimensions: 8, index: {kind: hnsw, metric: l2}}\narticles: {dimensions: 12}\n"
            .to_owned();
    stage.connector.more = "batch: {max-rows: 500}".to_owned();
    let lines: String = (0..11_000)
        .map(|number| {
            let numbers: Vec<String> =
                (0..8).map(|place| format!("{}", (number * (place + 3)) % 997)).collect();
            format!("{{\"id\": \"k{number}\", \"embedding\": [{}]}}\n", numbers.join(","))
        })
        .collect();
    let input = stage.connector.file("rows.jsonl");
    std::fs::write(&input, lines).unwrap();
    stage.connector.write();
    let path = stage.connector.path();
    let near = ["query", "--config", &path, "embeddings", "--near-id", "k5", "--limit", "3", "--json"];
    stage.connector.run(&["write", "--config", &path, input.to_str().unwrap()]).ends_with(0).await;
    let answer = stage.connector.run(&near).outputs().await;
    let summary: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["metric"], "l2");
    assert_eq!(summary["summary"]["index"], "embedding_idx", "{summary}");
    assert_eq!(answer.lines().count(), 4, "three neighbours, and none of them is k5: {answer}");
    assert!(!answer.contains("\"k5\""), "{answer}");

    stage.connector.tables = stage.connector.tables.replace("hnsw, metric: l2", "ivfflat, metric: cosine");
    let mut process = stage.connector.start();
    let is_other = |told: &Value| {
        told["sink"]["indexes"][0]["state"] == "waiting" && !told["sink"]["dataset"][0]["rows"].is_null()
    };
    let other = stage.status(&mut process, "another index is there", is_other).await;
    assert_eq!(
        other["sink"]["indexes"][0]["reason"],
        "the index that is there is IVF_HNSW_SQ for l2; upkeep replaces it by IVF_FLAT for cosine"
    );
    produce(&stage, 0..1);
    let is_ready = |told: &Value| told["sink"]["indexes"][0]["state"] == "ready";
    stage.status(&mut process, "the index is replaced", is_ready).await;
    process.stop().await;
    let answer = stage.connector.run(&near).outputs().await;
    let summary: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&summary["summary"]["metric"], &summary["summary"]["index"]),
        (&"cosine".into(), &"embedding_idx".into())
    );
}

#[tokio::test]
async fn a_running_connector_waits_with_the_index_until_there_are_rows_enough() {
    let _alone = alone().await;
    let mut stage = Stage::new("index of a stream", 0).await;
    stage.connector.tables = "embeddings: {dimensions: 8, index: {metric: l2}}".to_owned();
    stage.connector.write();
    let path = stage.connector.path();
    let near = ["query", "--config", &path, "embeddings", "--near", "[1,2,3,4,5,6,7,8]", "--json"];
    let index = async || {
        let answer = stage.connector.run(&near).outputs().await;
        let summary: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
        summary["summary"]["index"].clone()
    };
    let mut process = stage.connector.start();

    produce(&stage, 0..3_000);
    stage.settles(&mut process, 3_000).await;
    let told = stage.status(&mut process, "all rows", |told| rows(told) == Some(3_000)).await;
    let progress = &told["sink"]["indexes"][0];
    assert_eq!((&progress["table"], &progress["state"]), (&"embeddings".into(), &"waiting".into()));
    assert_eq!(progress["reason"], "upkeep builds it once the table has 10000 rows");
    assert_eq!(index().await, Value::Null);
    let socket = process.socket().to_str().unwrap().to_owned();
    let text = stage.connector.run(&["status", "--socket", &socket]).outputs().await;
    assert!(text.contains("upkeep builds it once the table has 10000 rows"), "{text}");

    produce(&stage, 3_000..21_000);
    let is_ready = |told: &Value| told["sink"]["indexes"][0]["state"] == "ready";
    let told = stage.status(&mut process, "the index is ready", is_ready).await;
    assert_eq!(told["sink"]["indexes"][0]["reason"], Value::Null);
    let is_all = |told: &Value| rows(told) == Some(21_000);
    let told = stage.status(&mut process, "rows in the index", is_all).await;
    assert!(told["sink"]["dataset"][0]["indexed_rows"].as_u64() >= Some(10_000), "{told}");
    assert_eq!(index().await, "embedding_idx");
    process.stop().await;
}

/// How many rows the first table is told to have.
fn rows(told: &Value) -> Option<u64> {
    told["sink"]["dataset"][0]["rows"].as_u64()
}

/// Rows of these numbers, one each, in the first partition.
fn produce(stage: &Stage, numbers: std::ops::Range<i64>) {
    let records: Vec<Record> = numbers
        .map(|number| {
            let vector: Vec<String> =
                (0..8).map(|place| ((number * (place + 3)) % 997).to_string()).collect();
            Record {
                partition: 0,
                offset: number,
                timestamp: 1_700_000_000_000 + number,
                key: Some(format!("k{number}").into_bytes()),
                payload: Some(format!("{{\"embedding\": [{}]}}", vector.join(",")).into_bytes()),
                outcome: Outcome::Open,
            }
        })
        .collect();
    stage.topic.produce(&records);
}
