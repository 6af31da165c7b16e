//! The servers of a run: one Postgres and one broker, with the settings that `dev/servers` gives every server.

use std::process::Command;

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::backlog::target;
use crate::drain::drain;
use crate::sample::{Row, Rows, Version, id};
use crate::support::connector::Connector;
use crate::support::kafka::{Topic, TopicProducer};
use crate::support::postgres::Database;
use crate::support::servers::OwnServer;

/// Records that are taken before anything is measured.
const WARM_UP: usize = 60_000;

/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 4;

/// The servers of a run.
pub(crate) struct Stand {
    kafka: OwnServer,
    postgres: OwnServer,
    kafka_process: u32,
    postgres_process: u32,
    broker: String,
}

impl Stand {
    /// Starts them, and lets them work a little: a broker makes its own topics for the first group, and the JVM
    /// compiles what is used.
    pub(crate) async fn start() -> Result<Self> {
        let stand = Self::cold()?;
        let (database, rows) = (stand.database().await, Rows::new(384));
        let topic = stand.topic(&rows, (0..WARM_UP).map(|number| (number, Version::default()))).await;
        let connector = Connector::new(&topic, &database, &target(384));
        connector.migrate().await;
        drain(&stand, &connector, &database.connect().await, WARM_UP).await?;
        Ok(stand)
    }

    fn cold() -> Result<Self> {
        let (kafka, postgres) = (OwnServer::start("kafka", "bench"), OwnServer::start("postgres", "bench"));
        let status =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/servers")).arg("status").output()?;
        let status = String::from_utf8(status.stdout)?;
        let (broker, kafka_process) = program_at(&status, kafka.port())?;
        let (_, postgres_process) = program_at(&status, postgres.port())?;
        Ok(Self { kafka, postgres, kafka_process, postgres_process, broker })
    }

    /// Which broker it is.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// CPU seconds of the broker and of Postgres so far.
    pub(crate) fn cpu(&self) -> [f64; 2] {
        [self.kafka_process, self.postgres_process].map(crate::cpu::seconds)
    }

    /// An empty database.
    pub(crate) async fn database(&self) -> Database {
        Database::create_on(self.postgres.port()).await
    }

    /// A topic that holds these records, evenly over its partitions, uncompressed.
    pub(crate) async fn topic(&self, rows: &Rows, records: impl Iterator<Item = (usize, Version)>) -> Topic {
        let topic = self.empty_topic().await;
        produce(&topic, records.map(|(number, version)| (number, rows.row(number, version))));
        topic
    }

    /// A topic without records.
    pub(crate) async fn empty_topic(&self) -> Topic {
        Topic::create_on(self.kafka.port(), PARTITIONS).await
    }
}

/// Appends records, and waits until the broker has them.
pub(crate) fn produce(topic: &Topic, rows: impl Iterator<Item = (usize, Row)>) {
    let (producer, mut payload) = (TopicProducer::new(topic), Vec::new());
    for (number, row) in rows {
        row.render(&mut payload);
        send(&producer, number, row.timestamp / 1000, &payload);
    }
    producer.finish();
}

/// Sends the record with this number to its partition.
pub(crate) fn send(producer: &TopicProducer<'_>, number: usize, timestamp: i64, payload: &[u8]) {
    let partition = (number % PARTITIONS as usize) as i32;
    producer.send(partition, timestamp, Some(id(number).as_bytes()), Some(payload));
}

/// The program and the process of the server at this port.
fn program_at(status: &str, port: u16) -> Result<(String, u32)> {
    let line =
        status.lines().find(|line| line.contains(&format!(":{port}, process "))).context("no such server")?;
    let program = line.split(" (").next().unwrap_or_default();
    let (_, behind) = line.split_once("process ").context("it has no process")?;
    Ok((program.to_owned(), behind.split(',').next().unwrap_or_default().parse()?))
}

/// Runs statements, and leaves the server with nothing to do that belongs to them.
pub(crate) async fn settle(client: &Client, sql: &str) -> Result<()> {
    for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        client.batch_execute(statement).await.with_context(|| statement.to_owned())?;
    }
    client.batch_execute("checkpoint").await?;
    Ok(())
}
