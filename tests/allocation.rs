//! What a record costs in allocations on its way into a batch.

use std::fmt::Write;

use embedsink::batch::{Batch, Place};
use embedsink::decode::{Change, decode};
use embedsink::route::{Router, TableLimits};
use embedsink::source::{Headers, Partition, SourceRecord, Tenure};

const RECORDS: usize = 1_000;

fn payloads(dimensions: usize) -> Vec<String> {
    (0..RECORDS)
        .map(|number| {
            let mut json = format!(r#"{{"id": "doc-{number}", "text": "some words", "embedding": ["#);
            for at in 0..dimensions {
                let separator = if at == 0 { "" } else { ", " };
                write!(json, "{separator}{:?}", f64::from((number * dimensions + at) as f32 * 0.37).sin())
                    .unwrap();
            }
            json.push_str(
                r#"], "timestamp": "2024-01-01T00:00:00Z", "source": "test", "metadata": {"lang": "en"}}"#,
            );
            json
        })
        .collect()
}

/// Allocations of decoding, routing and gathering all of them, with room for a vector at hand.
fn allocations(dimensions: usize) -> u64 {
    let (payloads, limits) = (
        payloads(dimensions),
        TableLimits {
            name: "embeddings".to_owned(),
            dimensions,
            max_id_chars: Some(255),
            max_source_chars: Some(255),
            skip_stale: false,
        },
    );
    let (router, partition) = (Router::new(vec![limits]), Partition::new("topic", 0));
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    let (mut batch, mut vector) = (Batch::new(0, &router), Vec::with_capacity(dimensions));
    let counted = allocation_counter::measure(|| {
        for (offset, payload) in payloads.iter().enumerate() {
            let record = SourceRecord {
                offset: offset as i64,
                timestamp: Some(1),
                key: None,
                payload: Some(payload.as_bytes()),
                headers: Headers::default(),
                omitted: 0,
            };
            let Ok(Change::Upsert(embedding)) = decode(&record, &mut vector) else { panic!("a good record") };
            let table = router.route(&embedding, vector.len()).unwrap();
            batch.upsert(&place, &record, table, &embedding, &vector);
        }
    });
    assert_eq!(batch.records(), RECORDS);
    counted.count_total
}

#[test]
fn neither_a_number_nor_a_record_is_worth_an_allocation() {
    for dimensions in [384, 1536] {
        let counted = allocations(dimensions);
        // The lists of the batch double a few times each.
        assert!(counted < 100, "{counted} for {RECORDS} records of {dimensions} dimensions");
    }
}
