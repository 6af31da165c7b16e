//! A producer that keeps a backlog, and knows what must become of what it wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_postgres::Client;

use super::SHAPE;
use crate::support::kafka::{Strict, Topic};
use crate::support::postgres::one;
use crate::support::random::Random;
use crate::support::record::hash;
use crate::support::wait::PATIENCE;

/// The most records that lie in the topic and are not settled.
pub(crate) const MOST: u64 = 50_000;

/// Records of a burst of poison.
pub(crate) const POISON: u64 = 2_000;

/// So many different vectors there are. A record costs the producer next to nothing then.
const VECTORS: usize = 64;

/// A running producer.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Expected>,
}

/// What the producer and the test tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) produced: AtomicU64,
    pub(crate) settled: AtomicU64,
    poison: AtomicU64,
    stop: AtomicBool,
}

/// What must stand in the database in the end: the last record of each id is enough to know.
pub(crate) struct Expected {
    pub(crate) records: u64,
    pub(crate) dead: u64,
    vectors: Vec<Vec<f32>>,
    /// For each id that has a row: its text and its vector.
    rows: BTreeMap<usize, (u64, usize)>,
}

impl Load {
    /// Begins to produce.
    pub(crate) fn start(topic: &Topic, random: Random) -> Self {
        let shared = Arc::new(Shared::default());
        let producer = producer(topic.broker());
        let (own, name) = (Arc::clone(&shared), topic.name().to_owned());
        let thread = std::thread::spawn(move || produce(&producer, &name, random, &own));
        Self { shared, thread }
    }

    /// What it shares with the sampler.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Writes a burst of records that cannot be used.
    pub(crate) fn poison(&self) {
        self.shared.poison.store(POISON, Ordering::Relaxed);
    }

    /// Ends it, and waits until the broker has everything.
    pub(crate) fn finish(self) -> Expected {
        self.shared.stop.store(true, Ordering::Relaxed);
        tokio::task::block_in_place(|| self.thread.join().unwrap())
    }
}

/// Idempotent: a broker that is killed makes it send again, and each record must stand in the log once.
fn producer(broker: &str) -> BaseProducer<Strict> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("compression.type", "zstd")
        .set("batch.num.messages", "500")
        .set("queue.buffering.max.messages", "20000");
    config.create_with_context(Strict).unwrap()
}

fn produce(producer: &BaseProducer<Strict>, topic: &str, mut random: Random, shared: &Shared) -> Expected {
    let vectors: Vec<Vec<f32>> = (0..VECTORS)
        .map(|_| {
            (0..SHAPE.tables[0].1).map(|_| (random.fraction() * 1000.0).round() as f32 / 1000.0).collect()
        })
        .collect();
    let texts: Vec<String> = vectors.iter().map(|vector| serde_json::to_string(vector).unwrap()).collect();
    let mut expected = Expected { records: 0, dead: 0, vectors, rows: BTreeMap::new() };
    while !shared.stop.load(Ordering::Relaxed) {
        let poison = shared.poison.swap(0, Ordering::Relaxed);
        for _ in 0..poison {
            let id = random.below(SHAPE.ids);
            send(producer, topic, id, Some(&damaged(&mut random, &texts[0])));
            expected.records += 1;
            expected.dead += 1;
        }
        let lag = expected.records.saturating_sub(shared.settled.load(Ordering::Relaxed));
        for _ in 0..MOST.saturating_sub(lag).min(500) {
            let (id, vector) = (random.below(SHAPE.ids), random.below(VECTORS));
            if random.chance(SHAPE.tombstones) {
                send(producer, topic, id, None);
                expected.rows.remove(&id);
            } else {
                let number = expected.records;
                let embedding = &texts[vector];
                let payload = format!("{{\"text\": \"text {number}\", \"embedding\": {embedding}}}");
                send(producer, topic, id, Some(&payload));
                expected.rows.insert(id, (number, vector));
            }
            expected.records += 1;
        }
        shared.produced.store(expected.records, Ordering::Relaxed);
        // Where there is enough, it waits a little.
        producer.poll(Duration::from_millis(if lag >= MOST { 20 } else { 0 }));
        if lag >= MOST {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    producer.flush(PATIENCE).unwrap();
    expected
}

fn damaged(random: &mut Random, embedding: &str) -> String {
    match random.below(3) {
        0 => format!("{{\"text\": \"cut off\", \"embedding\": {}", &embedding[..embedding.len() / 2]),
        1 => "{\"text\": \"too short\", \"embedding\": [1, 2, 3]}".to_owned(),
        _ => format!("{{\"text\": \"zero \\u0000\", \"embedding\": {embedding}}}"),
    }
}

fn send(producer: &BaseProducer<Strict>, topic: &str, id: usize, payload: Option<&str>) {
    let key = format!("doc-{id}");
    let partition = (hash(key.as_bytes()) % SHAPE.partitions as u64) as i32;
    let mut record = BaseRecord::<str, str>::to(topic).partition(partition).key(&key);
    record.payload = payload;
    while let Err((_, unsent)) = producer.send(record) {
        // The queue is full.
        producer.poll(Duration::from_millis(20));
        record = unsent;
    }
}

impl Expected {
    /// Compares the table and the dead letters with what was produced.
    pub(crate) async fn compare(&mut self, client: &Client) {
        let sql = "select id, text, embedding::float4[] from embeddings";
        for row in client.query(sql, &[]).await.unwrap() {
            let (id, text, embedding): (String, String, Vec<f32>) = (row.get(0), row.get(1), row.get(2));
            let number: usize = id.strip_prefix("doc-").unwrap().parse().unwrap();
            let (record, vector) =
                self.rows.remove(&number).unwrap_or_else(|| panic!("there should be no row {id}"));
            assert_eq!(text, format!("text {record}"), "the row {id} is its last record");
            assert_eq!(embedding, self.vectors[vector], "the vector of {id}");
        }
        assert!(self.rows.is_empty(), "{} rows are missing", self.rows.len());
        let dead: i64 = one(client, "select count(*) from embedsink.dead_letters").await;
        assert_eq!(dead as u64, self.dead, "dead letters");
        let settled: i64 = one(client, "select sum(next_offset)::int8 from embedsink.offsets").await;
        assert_eq!(settled as u64, self.records, "records that are settled");
    }
}
