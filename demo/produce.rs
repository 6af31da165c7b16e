//! The way into Kafka: the topic, the records, their delivery.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde::Deserialize;

use crate::settings::Settings;

/// The number of partitions of a topic that the demo creates.
const PARTITIONS: i32 = 4;

/// How long Kafka may take to answer.
const KAFKA_DEADLINE: Duration = Duration::from_secs(15);

/// One record, ready to be sent.
pub(crate) struct Record {
    /// The record's id, which is also its Kafka key.
    pub(crate) id: String,
    payload: String,
}

/// The field of a record that the demo itself needs.
#[derive(Deserialize)]
struct Key {
    id: String,
}

/// Reads the records, one JSON document a line.
pub(crate) fn load(path: &Path) -> Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    BufReader::new(GzDecoder::new(file))
        .lines()
        .map(|line| {
            let payload = line?;
            let Key { id } = serde_json::from_str(&payload)?;
            Ok(Record { id, payload })
        })
        .collect::<Result<_>>()
        .with_context(|| format!("{} is damaged. Make it again: demo/embed.py", path.display()))
}

/// Creates the topic unless it exists. Returns the number of its partitions.
pub(crate) async fn create_topic(settings: &Settings) -> Result<usize> {
    let silent = || format!("Kafka does not answer on {} (make up starts it)", settings.bootstrap);
    let admin: AdminClient<DefaultClientContext> = client(settings).create()?;
    let topic = NewTopic::new(&settings.topic, PARTITIONS, TopicReplication::Fixed(1));
    let options =
        AdminOptions::new().request_timeout(Some(KAFKA_DEADLINE)).operation_timeout(Some(KAFKA_DEADLINE));
    for result in admin.create_topics([&topic], &options).await.with_context(silent)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("Kafka did not create the topic {name}: {code}"),
        }
    }
    let metadata =
        admin.inner().fetch_metadata(Some(&settings.topic), KAFKA_DEADLINE).with_context(silent)?;
    match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
        0 => bail!("Kafka shows no partitions for the topic {}", settings.topic),
        partitions => Ok(partitions),
    }
}

/// Sends all records and waits until Kafka has acknowledged each of them.
pub(crate) async fn produce(
    settings: &Settings,
    records: Vec<Record>,
    deliveries: Arc<Deliveries>,
) -> Result<()> {
    let context = Reporter(Arc::clone(&deliveries));
    let producer: BaseProducer<Reporter> = client(settings).create_with_context(context)?;
    let topic = settings.topic.clone();
    tokio::task::spawn_blocking(move || {
        for record in &records {
            let message = BaseRecord::to(&topic).key(&record.id).payload(&record.payload);
            producer.send(message).map_err(|(error, _)| error).context("A record could not be queued")?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(KAFKA_DEADLINE).context("Kafka did not take all records in time")?;
        deliveries.check()
    })
    .await
    .context("The task that produces ended early")?
}

/// The client settings that everything here shares.
fn client(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.bootstrap)
        .set("client.id", "embedsink-demo")
        // The broker that stands in for Kafka takes the first offset of the last batch for the log's end.
        .set("batch.num.messages", "1");
    config
}

/// The place of a delivered record in the topic.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The partition.
    pub(crate) partition: i32,
    /// The offset inside the partition.
    pub(crate) offset: i64,
}

/// What Kafka has said so far about the records that were sent.
#[derive(Default)]
pub(crate) struct Deliveries(Mutex<Outcomes>);

/// The two kinds of answers.
#[derive(Default)]
struct Outcomes {
    places: Vec<Place>,
    refused: Vec<KafkaError>,
}

impl Deliveries {
    /// The places of the records that Kafka has acknowledged.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.outcomes().places.clone()
    }

    /// Fails if Kafka refused a record.
    fn check(&self) -> Result<()> {
        let outcomes = self.outcomes();
        match outcomes.refused.first() {
            None => Ok(()),
            Some(first) => bail!("Kafka refused {} records. The first: {first}", outcomes.refused.len()),
        }
    }

    /// The answers, even if another thread has panicked while it held them.
    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the producer's delivery reports.
struct Reporter(Arc<Deliveries>);

impl ClientContext for Reporter {}

impl ProducerContext for Reporter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut outcomes = self.0.outcomes();
        match result {
            Ok(message) => {
                outcomes.places.push(Place { partition: message.partition(), offset: message.offset() });
            }
            Err((error, _)) => outcomes.refused.push(error.clone()),
        }
    }
}
