//! Promise 1: whatever kills the process, each table equals the fold of the log per key.

use std::time::{Duration, Instant};

use crate::support::audit;
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::model::{assert_fold, assert_fold_of_all};
use crate::support::postgres::{Database, positions, settled};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};
use crate::support::turn::alone;

/// Repeated keys in two tables, tombstones and bad records, over four partitions.
pub(crate) const MIXED: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 12)],
    partitions: 4,
    ids: 15_000,
    tombstones: 8,
    damaged: 3,
};

#[tokio::test]
async fn kill_nine_at_random_moments_loses_nothing_and_applies_nothing_twice() {
    const RECORDS: usize = 100_000;
    const KILLS: usize = 25;
    let _alone = alone().await;
    let mut generator = Generator::new(Random::new("kill -9"), MIXED);
    let log = generator.records(RECORDS);
    let (database, topic) = (Database::create().await, Topic::create(MIXED.partitions).await);
    topic.produce(&log);
    let mut connector = Connector::restless(&topic, &database, &MIXED);
    connector.log = "info,embedsink=debug,librdkafka=debug";
    connector.migrate().await;
    let client = database.connect().await;
    audit::install(&client, &MIXED).await;

    let mut at_kills = Vec::new();
    for left in (1..=KILLS).rev() {
        let before = settled(&client).await as usize;
        let target = before + 1 + generator.random.below((RECORDS - before) / (left + 1));
        let mut process = connector.start();
        process.settles(&client, target).await;
        process.kill();
        at_kills.push(settled(&client).await);
    }
    assert!(
        at_kills.is_sorted_by(|earlier, later| earlier < later),
        "every run did some work: {at_kills:?}"
    );
    assert!(
        at_kills[KILLS - 1] < RECORDS as i64,
        "every kill came before the end: {at_kills:?}"
    );

    let mut process = connector.start();
    process.settles(&client, RECORDS).await;
    process.stop().await;
    assert_fold_of_all(&client, &MIXED, topic.name(), &log).await;
    audit::assert_exactly_once(&client, &topic.ends().unwrap()).await;
}

#[tokio::test]
async fn sigterm_under_load_drains_and_the_next_start_continues_at_the_next_record() {
    const RECORDS: usize = 40_000;
    const DEADLINE: Duration = Duration::from_secs(25);
    let _alone = alone().await;
    let mut generator = Generator::new(Random::new("SIGTERM"), MIXED);
    let log = generator.records(RECORDS);
    let (database, topic) = (Database::create().await, Topic::create(MIXED.partitions).await);
    topic.produce(&log);
    let mut connector = Connector::restless(&topic, &database, &MIXED);
    connector.log = "info,embedsink=debug,librdkafka=debug";
    connector.migrate().await;
    let client = database.connect().await;
    audit::install(&client, &MIXED).await;

    let mut stored = Vec::new();
    for left in (1..=4).rev() {
        let before = settled(&client).await as usize;
        let target = before + 1 + generator.random.below((RECORDS - before) / (left + 1));
        let mut process = connector.start();
        process.settles(&client, target).await;
        let asked = Instant::now();
        process.signal("TERM");
        let text = process.ends_within(DEADLINE, 0).await;
        println!("drained within {:?}", asked.elapsed());
        assert!(text.contains("drained=true"), "{text}");
        assert_begins_at(&text, &stored);
        stored = positions(&client, topic.name()).await;
        assert!(
            stored.iter().map(|(_, next)| next).sum::<i64>() < RECORDS as i64,
            "it was stopped under load"
        );
        // A clean stop leaves exactly what it says it has written.
        assert_fold(&client, &MIXED, topic.name(), &log, &stored).await;
    }

    let mut process = connector.start();
    if crate::support::wait::at_most(Duration::from_secs(8), async || {
        (settled(&client).await == RECORDS as i64).then_some(())
    })
    .await
    .is_none()
    {
        println!(
            "STUCK {:?} ends {:?}",
            positions(&client, topic.name()).await,
            topic.ends()
        );
        let more = generator.records(100);
        topic.produce(&more);
        crate::support::wait::at_most(Duration::from_secs(8), async || {
            (settled(&client).await == RECORDS as i64 + 100).then_some(())
        })
        .await;
        println!(
            "STUCK {:?} ends {:?}",
            positions(&client, topic.name()).await,
            topic.ends()
        );
        panic!("stuck");
    }
    process.settles(&client, RECORDS).await;
    assert_begins_at(&process.stop().await, &stored);
    assert_fold_of_all(&client, &MIXED, topic.name(), &log).await;
    audit::assert_exactly_once(&client, &topic.ends().unwrap()).await;
}

/// The log says that each partition began where the database has it.
fn assert_begins_at(text: &str, stored: &[(i32, i64)]) {
    for (partition, next) in stored {
        let begins =
            |line: &&str| line.contains("partition begins") && line.contains(&format!("[{partition}]"));
        let line = text
            .lines()
            .find(begins)
            .unwrap_or_else(|| panic!("partition {partition} began in:\n{text}"));
        assert!(
            line.contains(&format!("offset={next} ")),
            "expected {next}: {line}"
        );
        assert!(line.contains("stored in Postgres"), "{line}");
    }
}
