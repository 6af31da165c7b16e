//! How fast a batch finds the last change of each key: `cargo bench --profile release --bench dedupe`.

#[path = "support/record.rs"]
mod record;

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use embedsink::batch::{Batch, Place};
use embedsink::decode::Embedding;
use embedsink::route::{Router, TableId, TableLimits};
use embedsink::source::{Partition, Tenure};

const ROWS: usize = 2_000;
const VECTOR: [f32; 3] = [0.0, 0.6, 0.8];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("dedupe");
    group.throughput(Throughput::Elements(ROWS as u64));
    for skip_stale in [false, true] {
        let rule = if skip_stale { "the newest wins" } else { "the last wins" };
        for changes_per_key in [1, 10, ROWS] {
            let batch = batch(ROWS / changes_per_key, skip_stale);
            group.bench_function(BenchmarkId::new(rule, format!("{changes_per_key} of a key")), |bencher| {
                bencher.iter(|| black_box(batch.changes(TableId(0))));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

/// A batch of [`ROWS`] rows with this many keys, which come in no order.
fn batch(keys: usize, skip_stale: bool) -> Batch {
    let limits = TableLimits {
        name: "embeddings".to_owned(),
        dimensions: VECTOR.len(),
        max_id_chars: None,
        max_source_chars: None,
        skip_stale,
    };
    let mut batch = Batch::new(0, &Router::new(vec![limits]));
    let partition = Partition::new("embeddings", 0);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    for number in 0..ROWS {
        // 1,009 is prime, so that every key comes up, and as often as the others.
        let id = format!("doc-{:07}", number * 1_009 % keys);
        let embedding = Embedding {
            id: Cow::Owned(id),
            text: None,
            timestamp: Some(number as i64),
            source: None,
            metadata: None,
            table_name: None,
        };
        batch.upsert(&place, &record::record(number as i64, &[]), TableId(0), &embedding, &VECTOR);
    }
    batch
}
