//! How fast records are decoded, in bytes of payload: `cargo bench --profile release --bench decode`.

#[path = "support/record.rs"]
mod record;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use embedsink::decode::decode;

use record::{Numbers, RECORDS};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decode");
    for (name, dimensions, numbers) in [
        ("Python, 384", 384, Numbers::Python),
        ("Python, 768", 768, Numbers::Python),
        ("Python, 1536", 1536, Numbers::Python),
        ("short, 384", 384, Numbers::Short),
        ("above one, 384", 384, Numbers::AboveOne),
    ] {
        let payloads = record::payloads(RECORDS, dimensions, numbers);
        group.throughput(Throughput::Bytes(payloads.iter().map(|payload| payload.len() as u64).sum()));
        group.bench_function(name, |bencher| {
            let mut vector = Vec::new();
            bencher.iter(|| {
                for payload in &payloads {
                    let change = decode(&record::record(0, payload), &mut vector);
                    black_box((change.is_ok(), &vector));
                }
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
