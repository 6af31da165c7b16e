//! What most tests begin and end with.

use tokio_postgres::Client;

use super::connector::{Connector, Process};
use super::kafka::Topic;
use super::model::{assert_fold, assert_fold_of_all};
use super::postgres::{Database, positions, settled};
use super::random::Random;
use super::record::{Generator, Record, Shape};
use super::{audit, servers};

/// Repeated keys in two tables, tombstones and bad records, over four partitions.
pub(crate) const MIXED: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 12)],
    partitions: 4,
    ids: 15_000,
    tombstones: 8,
    damaged: 3,
};

/// A topic with records, a migrated database with audits, and a connector that takes the one to the other.
pub(crate) struct Stage {
    pub(crate) connector: Connector,
    pub(crate) client: Client,
    pub(crate) topic: Topic,
    pub(crate) database: Database,
    pub(crate) log: Vec<Record>,
    pub(crate) generator: Generator,
}

impl Stage {
    /// On the common servers.
    pub(crate) async fn new(test: &str, records: usize) -> Self {
        Self::on(servers::postgres_port(), servers::kafka_port(), test, records).await
    }

    /// On the servers at these ports.
    pub(crate) async fn on(postgres: u16, kafka: u16, test: &str, records: usize) -> Self {
        Self::seeded(postgres, kafka, Random::new(test), records).await
    }

    /// On the servers at these ports, with these choices.
    pub(crate) async fn seeded(postgres: u16, kafka: u16, random: Random, records: usize) -> Self {
        let mut generator = Generator::new(random, MIXED);
        let log = generator.records(records);
        let (database, topic) =
            (Database::create_on(postgres).await, Topic::create_on(kafka, MIXED.partitions).await);
        topic.produce(&log);
        let connector = Connector::restless(&topic, &database, &MIXED);
        connector.migrate().await;
        let client = database.connect().await;
        audit::install(&client, &MIXED).await;
        Self { connector, client, topic, database, log, generator }
    }

    /// Writes more records into the topic.
    pub(crate) fn produce(&mut self, records: usize) {
        let more = self.generator.records(records);
        self.topic.produce(&more);
        self.log.extend(more);
    }

    /// How many records are settled.
    pub(crate) async fn settled(&self) -> usize {
        settled(&self.client).await as usize
    }

    /// A number of settled records for something to happen at, if `left` such things are to come before the end.
    /// Writes more records into the topic when the connector was too fast for that.
    pub(crate) async fn next_moment(&mut self, left: usize) -> usize {
        /// More than the connector settles while the test looks at it once.
        const STRIDE: usize = 3_000;
        let before = self.settled().await;
        let wanted = before + (left + 1) * STRIDE;
        if self.log.len() < wanted {
            self.produce(wanted - self.log.len());
        }
        before + 1 + self.generator.random.below((self.log.len() - before) / (left + 1))
    }

    /// Lets the process go on to the end of the log and stops it. Returns what it logged.
    pub(crate) async fn finish(&self, mut process: Process) -> String {
        process.settles(&self.client, self.log.len()).await;
        process.stop().await
    }

    /// The tables and dead letters equal the fold of what lies before the stored positions.
    pub(crate) async fn assert_consistent(&self) {
        let positions = positions(&self.client, self.topic.name()).await;
        assert_fold(&self.client, &MIXED, self.topic.name(), &self.log, &positions).await;
    }

    /// The tables and dead letters equal the fold of the whole log, and every record of it was applied once.
    pub(crate) async fn assert_complete(&self) {
        assert_fold_of_all(&self.client, &MIXED, self.topic.name(), &self.log).await;
        audit::assert_exactly_once(&self.client, &self.topic.ends().unwrap()).await;
    }
}
