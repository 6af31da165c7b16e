//! A disk that refuses for a while.

use sink_lancedb::{Deletion, Overwrite, TableSpec, Upkeep, VectorRow, VectorTable};

use crate::stage::Stage;
use crate::support::turn::alone;

/// 128 KiB: what a batch writes into one file is longer or shorter, as a test wants.
const BLOCKS: u32 = 256;

#[tokio::test]
async fn a_full_disk_is_waited_out_and_then_everything_is_there() {
    let _alone = alone().await;
    let mut stage = Stage::new("a full disk", 20_000).await;
    stage.connector.more = "batch: {max-rows: 5000, max-wait: 500ms, linger: 200ms}".to_owned();
    stage.connector.largest_file = Some(BLOCKS);
    let mut process = stage.connector.start();
    let is_retrying = |told: &serde_json::Value| told["health"]["phase"] == "retrying";
    let told = stage.status(&mut process, "retrying", is_retrying).await;
    let error = told["health"]["last_error"]["text"].as_str().unwrap();
    assert!(error.contains("the disk is full") && error.contains("Free space on the disk"), "{error}");
    assert!(stage.settled().await < stage.log.len());
    stage.assert_consistent().await;

    process.lift_limit();
    stage.settles(&mut process, stage.log.len()).await;
    let is_running = |told: &serde_json::Value| told["health"]["phase"] == "running";
    stage.status(&mut process, "running again", is_running).await;
    process.stop().await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn upkeep_that_the_disk_refuses_is_told_and_stops_nothing() {
    let _alone = alone().await;
    let mut stage = Stage::new("upkeep on a full disk", 20_000).await;
    // There is room for what a batch writes, and none for twenty of them in one file.
    stage.connector.more = "batch: {max-rows: 400, max-wait: 20ms, linger: 5ms}".to_owned();
    stage.connector.largest_file = Some(BLOCKS);
    let mut process = stage.connector.start();
    let trouble = |told: &serde_json::Value| {
        let tables = told["sink"]["dataset"].as_array().cloned().unwrap_or_default();
        tables.iter().any(|table| {
            table["upkeep"]["trouble"].as_str().is_some_and(|text| text.contains("the disk is full"))
        })
    };
    stage.status(&mut process, "upkeep has failed", trouble).await;
    let text = stage.finish(process).await;
    assert!(text.contains("writing go on, and this is tried again later"), "{text}");
    stage.assert_complete().await;

    // The next process has room, and tidies what is left.
    stage.connector.largest_file = None;
    stage.produce(10_000);
    let text = stage.finish(stage.connector.start()).await;
    assert!(!text.contains("writing go on, and this is tried again"), "{text}");
    stage.assert_complete().await;
}

#[tokio::test]
async fn old_versions_go_when_a_write_finds_the_disk_full() {
    let _alone = alone().await;
    let mut stage = Stage::new("old versions on a full disk", 10_000).await;
    let spec =
        TableSpec { name: "embeddings".to_owned(), dimensions: 8, index: None, upkeep: Upkeep::default() };
    let locked = stage.dataset().lock().unwrap();
    let mut table = VectorTable::open(&locked, spec).await.unwrap();
    for number in 0..35 {
        let embedding = [number as f32; 8];
        let row = VectorRow {
            id: "of no record",
            text: None,
            embedding: &embedding,
            timestamp: None,
            source: None,
            metadata: None,
        };
        table.upsert(&[row], Overwrite::Always).await.unwrap();
        let key = Deletion { id: row.id, timestamp: None };
        table.delete(&[key], Overwrite::Always).await.unwrap();
    }
    assert!(table.stats().await.unwrap().versions > 70);
    drop((table, locked));

    stage.connector.more = "batch: {max-rows: 5000, max-wait: 500ms, linger: 200ms}".to_owned();
    stage.connector.largest_file = Some(BLOCKS);
    let mut process = stage.connector.start();
    let is_pruned = |told: &serde_json::Value| {
        let tables = told["sink"]["dataset"].as_array().cloned().unwrap_or_default();
        let table = tables.iter().find(|table| table["table"] == "embeddings");
        let versions = table.and_then(|table| table["versions"].as_u64());
        told["health"]["phase"] == "retrying" && versions.is_some_and(|versions| versions <= 51)
    };
    stage.status(&mut process, "old versions are gone though nothing can be written", is_pruned).await;
    process.lift_limit();
    stage.settles(&mut process, stage.log.len()).await;
    process.stop().await;
    stage.assert_complete().await;
}
