//! Promise 5: memory is bounded, whatever the backlog and whatever the database does.

use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::{self, Database, one};
use crate::support::random::Random;
use crate::support::record::Shape;
use crate::support::servers::OwnServer;
use crate::support::turn::alone;

const LARGE: Shape =
    Shape { tables: &[("embeddings", 384)], partitions: 4, ids: 0, tombstones: 0, damaged: 0 };

/// The most that may be resident: 300 MB.
const LIMIT_KIB: u64 = 300 * 1000 * 1000 / 1024;

#[tokio::test]
async fn a_backlog_before_a_database_that_stands_still_stays_under_300_mb() {
    const RECORDS: usize = 60_000;
    let _alone = alone().await;
    let (database, topic) = (Database::create().await, Topic::create(LARGE.partitions).await);
    produce(&topic, RECORDS);
    let mut connector = Connector::new(&topic, &database, &LARGE);
    connector.log = "info,embedsink=debug";
    connector.migrate().await;
    let client = database.connect().await;
    let locker = database.connect().await;
    postgres::run(&locker, "begin; lock table embeddings in exclusive mode").await;

    let mut process = connector.start();
    // By then every queue is full, and stays so until each lane has failed once.
    process.logs(1, "partitions are paused").await;
    process.logs(2, "a lock was not free in time").await;
    println!("while nothing is written: {} KiB", process.memory("VmHWM"));
    postgres::run(&locker, "commit").await;

    process.settles(&client, RECORDS).await;
    let peak = process.memory("VmHWM");
    println!("in the end: {peak} KiB");
    process.stop().await;
    assert!(peak < LIMIT_KIB, "at most {peak} KiB were resident");
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, RECORDS as i64);
}

#[tokio::test]
async fn a_backlog_of_1_mb_records_before_a_database_that_is_stopped_stays_under_300_mb() {
    const RECORDS: usize = 600;
    let _alone = alone().await;
    let server = OwnServer::start("postgres", "memory");
    let database = Database::create_on(server.port()).await;
    let topic = Topic::create(LARGE.partitions).await;
    let mut connector = Connector::new(&topic, &database, &LARGE);
    connector.log = "info,embedsink=debug";
    connector.migrate().await;
    let mut process = connector.start();
    process.logs(LARGE.partitions as usize, "partition begins").await;
    server.stop("fast");
    let vector = vec!["0.5"; 384].join(",");
    let producer = TopicProducer::new(&topic);
    for number in 0..RECORDS {
        let text = "x".repeat(990_000);
        let payload =
            format!("{{\"id\": \"doc-{number}\", \"text\": \"{text}\", \"embedding\": [{vector}]}}");
        producer.send((number % LARGE.partitions as usize) as i32, 0, None, Some(payload.as_bytes()));
    }
    producer.finish();
    process.logs(1, "partitions are paused").await;
    process.logs(2, "trying again").await;
    println!("while the database is stopped: {} KiB", process.memory("VmHWM"));

    server.start_again();
    let client = database.connect().await;
    process.settles(&client, RECORDS).await;
    let peak = process.memory("VmHWM");
    println!("in the end: {peak} KiB");
    process.stop().await;
    assert!(peak < LIMIT_KIB, "at most {peak} KiB were resident");
    let whole = "select count(*) from embeddings where length(text) = 990000";
    assert_eq!(one::<i64>(&client, whole).await, RECORDS as i64);
}

/// Records of 8.6 KB, as Python's `json.dumps` prints 384 numbers. They share a few vectors.
fn produce(topic: &Topic, count: usize) {
    let mut random = Random::new("memory");
    let vectors: Vec<String> = (0..100)
        .map(|_| (0..384).map(|_| format!("{:.19}", random.fraction())).collect::<Vec<_>>().join(", "))
        .collect();
    let producer = TopicProducer::new(topic);
    for number in 0..count {
        let vector = &vectors[number % vectors.len()];
        let payload =
            format!("{{\"id\": \"doc-{number}\", \"text\": \"text {number}\", \"embedding\": [{vector}]}}");
        let partition = (number % LARGE.partitions as usize) as i32;
        producer.send(partition, 0, None, Some(payload.as_bytes()));
    }
    producer.finish();
}
