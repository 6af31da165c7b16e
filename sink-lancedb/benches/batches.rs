//! What a batch costs: new, unchanged and changed rows, beside LanceDB's own append and merge of the same rows.
//!
//! `cargo bench -p sink-lancedb --features lancedb --bench batches`; with `--profile dev` the figures compare with each other only.

#[path = "../tests/support.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

#[path = "../tests/arrow.rs"]
mod arrow;

use std::time::Instant;

use lancedb::arrow::arrow_array::RecordBatchIterator;
use sink_lancedb::{Overwrite, TableSpec, VectorTable};
use support::{Owned, dataset, folder, rows, run, spec};

const DIMENSIONS: u16 = 384;
const BATCH: u64 = 2_000;

fn given(from: u64, salt: u64) -> Vec<Owned> {
    (from..from + BATCH).map(|key| Owned::sized(format!("key-{key:09}"), key + salt, DIMENSIONS)).collect()
}

fn main() {
    let before: u64 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(20_000);
    run(async {
        let folder = folder();
        let locked = dataset(&folder).lock().expect("locked");
        let mut table = VectorTable::open(&locked, TableSpec { dimensions: DIMENSIONS, ..spec("docs") })
            .await
            .expect("made");
        let began = Instant::now();
        for from in (0..before).step_by(BATCH as usize) {
            table.upsert(&rows(&given(from, 0)), Overwrite::Always).await.expect("written");
        }
        println!("{before} new rows in batches of {BATCH}: {:?}", began.elapsed());
        let began = Instant::now();
        table.tidy().await.expect("tidied");
        println!("upkeep: {:?}", began.elapsed());
        for round in 0..3 {
            let new = given(before + round * BATCH, 0);
            let began = Instant::now();
            table.upsert(&rows(&new), Overwrite::Always).await.expect("written");
            println!("upsert of {BATCH} new rows: {:?}", began.elapsed());
            let began = Instant::now();
            table.upsert(&rows(&new), Overwrite::Always).await.expect("written");
            println!("upsert of the same rows, unchanged: {:?}", began.elapsed());
            let changed = given(round * BATCH, 1);
            let began = Instant::now();
            table.upsert(&rows(&changed), Overwrite::Always).await.expect("written");
            println!("upsert of {BATCH} changed rows: {:?}", began.elapsed());
        }
        let uri = folder.path().to_str().expect("text");
        let other = lancedb::connect(uri).execute().await.expect("connected").open_table("docs").execute();
        let other = other.await.expect("opened");
        let schema = other.schema().await.expect("read");
        let from = before + 3 * BATCH;
        for round in 0..3 {
            let batch = arrow::batch(&schema, &given(from + round * BATCH, 0));
            let began = Instant::now();
            other.add(batch.clone()).execute().await.expect("added");
            println!("LanceDB's own append of {BATCH} rows: {:?}", began.elapsed());
            for (what, batch) in
                [("equal", batch), ("new", arrow::batch(&schema, &given(from + 100_000 + round * BATCH, 0)))]
            {
                let mut merge = other.merge_insert(&["id"]);
                merge.when_matched_update_all(None).when_not_matched_insert_all();
                let reader = RecordBatchIterator::new([Ok(batch)], std::sync::Arc::clone(&schema));
                let began = Instant::now();
                merge.execute(Box::new(reader)).await.expect("merged");
                println!("LanceDB's own merge of {BATCH} {what} rows: {:?}", began.elapsed());
            }
        }
        println!("{:?}", table.stats().await.expect("read"));
    });
}
