//! How fast rows become the parameters of the upsert, alone and with all that comes before it, in bytes of
//! payload: `cargo bench --profile release --bench encode`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says so by a panic")]

// The sink keeps its encoding to itself.
#[path = "../sink-postgres-vector/src/encode.rs"]
#[allow(dead_code, unused_imports, reason = "its tests are run where it belongs")]
mod encode;
#[path = "support/record.rs"]
mod record;
#[path = "../sink-postgres-vector/src/row.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is public where it belongs")]
mod row;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use embedsink::batch::{Batch, Place};
use embedsink::decode::{Change, Embedding, decode};
use embedsink::route::{Router, TableId, TableLimits};
use embedsink::source::{Partition, Tenure};
use tokio_postgres::types::{Kind, ToSql, Type};

use encode::{Column, Field};
use record::{Numbers, RECORDS};
use row::VectorRow;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let types = Types::new();
    let mut out = BytesMut::new();
    let mut group = criterion.benchmark_group("encode");
    for dimensions in [384, 768, 1536] {
        let payloads = record::payloads(RECORDS, dimensions, Numbers::Python);
        let mut vectors = vec![Vec::new(); RECORDS];
        group.throughput(Throughput::Bytes(payloads.iter().map(|payload| payload.len() as u64).sum()));

        let embeddings = decoded(&payloads, &mut vectors);
        let rows = rows(&embeddings, &vectors);
        group.bench_function(BenchmarkId::new("encode", dimensions), |bencher| {
            bencher.iter(|| encode(&rows, &types, &mut out));
        });
        drop(embeddings);
        group.bench_function(BenchmarkId::new("decode and encode", dimensions), |bencher| {
            bencher.iter(|| {
                let embeddings = decoded(&payloads, &mut vectors);
                encode(&self::rows(&embeddings, &vectors), &types, &mut out);
            });
        });
        group.bench_function(BenchmarkId::new("decode, batch and encode", dimensions), |bencher| {
            bencher.iter(|| {
                let batch = gathered(&payloads, dimensions);
                let changes = batch.changes(TableId(0));
                let rows: Vec<_> = changes
                    .upserts
                    .iter()
                    .map(|row| VectorRow {
                        id: row.id,
                        text: row.text,
                        embedding: row.embedding,
                        timestamp: row.timestamp,
                        source: row.source,
                        metadata: row.metadata,
                    })
                    .collect();
                encode(&rows, &types, &mut out);
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The types of the upsert's parameters.
struct Types([(Field, Type); 6]);

impl Types {
    fn new() -> Self {
        let vectors = Type::new("_vector".to_owned(), 7, Kind::Array(Type::INT2), "public".to_owned());
        Self([
            (Field::Id, Type::TEXT_ARRAY),
            (Field::Text, Type::TEXT_ARRAY),
            (Field::Embedding, vectors),
            (Field::Timestamp, Type::TIMESTAMPTZ_ARRAY),
            (Field::Source, Type::TEXT_ARRAY),
            (Field::Metadata, Type::JSONB_ARRAY),
        ])
    }
}

fn decoded<'a>(payloads: &'a [Vec<u8>], vectors: &mut [Vec<f32>]) -> Vec<Embedding<'a>> {
    payloads
        .iter()
        .zip(vectors)
        .map(|(payload, vector)| match decode(&record::record(0, payload), vector) {
            Ok(Change::Upsert(embedding)) => embedding,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn gathered(payloads: &[Vec<u8>], dimensions: usize) -> Batch {
    let limits = TableLimits {
        name: "embeddings".to_owned(),
        dimensions,
        max_id_chars: Some(255),
        max_source_chars: Some(255),
        skip_stale: false,
    };
    let router = Router::new(vec![limits]);
    let mut batch = Batch::new(0, &router);
    let partition = Partition::new("embeddings", 0);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    let mut vector = Vec::new();
    for (offset, payload) in payloads.iter().enumerate() {
        let record = record::record(offset as i64, payload);
        let Ok(Change::Upsert(embedding)) = decode(&record, &mut vector) else {
            panic!("the records are good");
        };
        let table = router.route(&embedding, vector.len()).unwrap();
        batch.upsert(&place, &record, table, &embedding, &vector);
    }
    batch
}

fn rows<'a>(embeddings: &'a [Embedding<'_>], vectors: &'a [Vec<f32>]) -> Vec<VectorRow<'a>> {
    embeddings
        .iter()
        .zip(vectors)
        .map(|(embedding, vector)| VectorRow {
            id: &embedding.id,
            text: embedding.text.as_deref(),
            embedding: vector,
            timestamp: embedding.timestamp,
            source: embedding.source.as_deref(),
            metadata: embedding.metadata,
        })
        .collect()
}

#[inline(never)]
fn encode(rows: &[VectorRow<'_>], Types(types): &Types, out: &mut BytesMut) {
    out.clear();
    for (field, ty) in types {
        Column::new(rows, *field).to_sql(ty, out).unwrap();
    }
    black_box(out);
}
