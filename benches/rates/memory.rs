//! The connector's peak memory over a small and a large backlog.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::backlog::target;
use crate::drain::drain;
use crate::report::Report;
use crate::sample::{Rows, Version, id};
use crate::scale::Scale;
use crate::stand::{Stand, send, settle};
use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};

/// So many different vectors there are: making a million takes longer than all else.
const VECTORS: usize = 1_000;

/// Measures it, over each backlog in turn.
pub(crate) async fn measure(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    let (database, bodies) = (stand.database().await, bodies());
    let client = database.connect().await;
    let mut backlogs = Vec::new();
    for (records, peak, rate) in [
        (scale.memory[0], "peak_rss_small_mb", "small_backlog_rows_per_s"),
        (scale.memory[1], "peak_rss_mb", "large_backlog_rows_per_s"),
    ] {
        let (topic, since) = (stand.empty_topic().await, Instant::now());
        produce(&topic, &bodies, 0..records);
        let took = since.elapsed().max(Duration::from_millis(1));
        let made = records as f64 / took.as_secs_f64();
        println!("  a backlog of {records} records, produced at {made:.0} records/s");
        Connector::new(&topic, &database, &target(384)).migrate().await;
        backlogs.push((topic, records, peak, rate));
    }
    for _ in 0..scale.slow_rounds {
        for (topic, records, peak, rate) in &backlogs {
            settle(&client, "truncate embeddings").await?;
            let connector = Connector::new(topic, &database, &target(384));
            let drain = drain(stand, &connector, &client, *records).await?;
            report.add(*peak, drain.peak as f64 / 1e6);
            report.add(*rate, drain.rate());
        }
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
