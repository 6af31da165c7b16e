//! What most tests begin and end with: a cluster, a topic with records, a migrated database with audits, and
//! a connector that takes the one to the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluvio::consumer::{ConsumerConfigExtBuilder, RetryMode};
use fluvio::{
    Fluvio, FluvioClusterConfig, Offset, Partitioner, PartitionerConfig, RecordKey,
    TopicProducerConfigBuilder,
};
use futures_util::StreamExt;
use tokio_postgres::Client;

use super::cluster::Cluster;
use super::support::audit;
use super::support::connector::{Connector, Process, SMALL_BATCHES};
use super::support::model::{assert_fold, assert_fold_of_all};
use super::support::postgres::{Database, positions, settled};
use super::support::random::Random;
use super::support::record::{Generator, Outcome, Record, Shape};
use super::support::wait::PATIENCE;

/// Repeated keys in two tables, and tombstones, over three partitions of uneven size.
pub(crate) const UNEVEN: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 12)],
    partitions: 3,
    ids: 15_000,
    tombstones: 8,
    damaged: 0,
};

/// The topic of every test; each has a cluster of its own.
pub(crate) const TOPIC: &str = "embeddings";

pub(crate) struct Stage {
    pub(crate) connector: Connector,
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    pub(crate) log: Vec<Record>,
    pub(crate) generator: Generator,
    _database: Database,
}

impl Stage {
    /// With a topic of three partitions that holds this many records.
    pub(crate) async fn new(test: &str, records: usize) -> Self {
        let cluster = Cluster::start().await;
        cluster.cli(&["topic", "create", TOPIC, "-p", "3"]);
        let database = Database::create().await;
        let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
        connector.more.push_str(SMALL_BATCHES);
        connector.migrate().await;
        let client = database.connect().await;
        audit::install(&client, &UNEVEN).await;
        let generator = Generator::new(Random::new(test), UNEVEN).with_partitions(uneven);
        let log = Vec::new();
        let mut stage = Self { connector, client, cluster, log, generator, _database: database };
        stage.produce(records).await;
        stage
    }

    /// Writes more records into the topic.
    pub(crate) async fn produce(&mut self, records: usize) {
        let more = self.generator.records(records);
        let fluvio = self.fluvio().await;
        let config = TopicProducerConfigBuilder::default().partitioner(Arc::new(Uneven)).build().unwrap();
        let producer = fluvio.topic_producer_with_config(TOPIC, config).await.unwrap();
        for record in &more {
            let key = record.key.clone().map_or(RecordKey::NULL, RecordKey::from);
            // Fluvio has no tombstones; an empty value stands for one.
            producer.send(key, record.payload.clone().unwrap_or_default()).await.unwrap();
        }
        producer.flush().await.unwrap();
        self.log.extend(more);
    }

    async fn fluvio(&self) -> Fluvio {
        Fluvio::connect_with_config(&FluvioClusterConfig::new(self.cluster.endpoint())).await.unwrap()
    }

    /// Sets the time of each record to the one that the cluster gave it.
    pub(crate) async fn read_times(&mut self) {
        let fluvio = self.fluvio().await;
        let config = ConsumerConfigExtBuilder::default()
            .topic(TOPIC)
            .offset_start(Offset::beginning())
            // The client loses records where an answer is cut off, so it is given one that is not.
            .max_bytes(1 << 30)
            .retry_mode(RetryMode::Disabled)
            .build()
            .unwrap();
        let mut stream = fluvio.consumer_with_config(config).await.unwrap();
        let mut times = BTreeMap::new();
        while times.len() < self.log.len() {
            let record = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
            times.insert((record.partition() as i32, record.offset()), record.timestamp());
        }
        for record in &mut self.log {
            let time = times[&(record.partition, record.offset)];
            if let Outcome::Row(row) = &mut record.outcome
                && row.timestamp == record.timestamp * 1000
            {
                row.timestamp = time * 1000;
            }
            record.timestamp = time;
        }
    }

    /// How many records are settled.
    pub(crate) async fn settled(&self) -> usize {
        settled(&self.client).await as usize
    }

    /// Lets the process go on to the end of the log and stops it. Returns what it logged.
    pub(crate) async fn finish(&self, mut process: Process) -> String {
        process.settles(&self.client, self.log.len()).await;
        process.stop().await
    }

    /// The tables equal the fold of what lies before the stored positions.
    pub(crate) async fn assert_consistent(&mut self) {
        self.read_times().await;
        let positions = positions(&self.client, TOPIC).await;
        assert_fold(&self.client, &UNEVEN, TOPIC, &self.log, &positions).await;
    }

    /// The tables equal the fold of the whole log, and every record of it was applied once.
    pub(crate) async fn assert_complete(&mut self) {
        self.read_times().await;
        assert_fold_of_all(&self.client, &UNEVEN, TOPIC, &self.log).await;
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for record in &self.log {
            *ends.entry(record.partition).or_default() += 1;
        }
        let mut sizes: Vec<i64> = ends.values().copied().collect();
        sizes.sort_unstable();
        assert!(sizes.len() == 3 && sizes[0] * 2 < sizes[2], "the partitions are of uneven size: {sizes:?}");
        audit::assert_exactly_once(&self.client, &ends).await;
    }
}

/// The partition of a hash: half of all records in the first, a third in the second.
fn uneven(hash: u64) -> usize {
    [0, 0, 0, 1, 1, 2][(hash % 6) as usize]
}

/// Puts records where the generator expects them.
struct Uneven;

impl Partitioner for Uneven {
    fn partition(&self, _config: &PartitionerConfig, key: Option<&[u8]>, _value: &[u8]) -> u32 {
        uneven(super::support::record::hash(key.expect("every record has its id as key"))) as u32
    }
}
