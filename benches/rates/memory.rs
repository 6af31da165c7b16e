//! The connector's peak memory over a small and a large backlog.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::backlog::target;
use crate::drain::drain;
use crate::report::Report;
use crate::row::{Rows, Version, id};
use crate::scale::Scale;
use crate::stand::{Stand, send, settle};
use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};

/// So many different vectors there are: making a million takes longer than all else.
const VECTORS: usize = 1_000;

/// Measures it: the small backlog from its beginning, then the same topic with more behind.
pub(crate) async fn measure(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    let (database, topic) = (stand.database().await, stand.empty_topic().await);
    Connector::new(&topic, &database, &target(384)).migrate().await;
    let client = database.connect().await;
    let bodies = bodies();
    let mut from = 0;
    for (number, to) in scale.memory.into_iter().enumerate() {
        let since = Instant::now();
        produce(&topic, &bodies, from..to);
        let took = since.elapsed().max(Duration::from_millis(1));
        println!(
            "  a backlog of {to} records, produced at {:.0} records/s",
            (to - from) as f64 / took.as_secs_f64()
        );
        from = to;
        settle(&client, "truncate embeddings").await?;
        let drain = drain(stand, &Connector::new(&topic, &database, &target(384)), &client, to).await?;
        let megabytes = drain.peak as f64 / 1e6;
        let (peak, rate) = match number {
            0 => ("peak_rss_small_mb", "small_backlog_rows_per_s"),
            _ => ("peak_rss_mb", "large_backlog_rows_per_s"),
        };
        report.add(peak, megabytes);
        report.add(rate, drain.rate());
    }
    report.add("memory_records_small", scale.memory[0] as f64);
    report.add("memory_records", scale.memory[1] as f64);
    Ok(())
}

/// Records without their ids.
fn bodies() -> Vec<Vec<u8>> {
    let rows = Rows::new(384);
    (0..VECTORS)
        .map(|number| {
            let mut payload = Vec::new();
            rows.row(number, Version::default()).render(&mut payload);
            payload
        })
        .collect()
}

fn produce(topic: &Topic, bodies: &[Vec<u8>], numbers: std::ops::Range<usize>) {
    let producer = TopicProducer::new(topic);
    let mut payload = Vec::new();
    for number in numbers {
        let body = &bodies[number % bodies.len()];
        payload.clone_from(body);
        // `{"id": "doc-00000000"`
        payload[8..20].copy_from_slice(id(number).as_bytes());
        send(&producer, number, 1_767_225_600_000, &payload);
    }
    producer.finish();
}
