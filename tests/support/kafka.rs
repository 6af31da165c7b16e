//! Topics, and records in them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::record::Record;
use super::servers;
use super::wait::{PATIENCE, until};

/// A topic of a test. It is deleted in the end.
pub(crate) struct Topic {
    broker: String,
    name: String,
    partitions: i32,
    is_on_tansu: bool,
}

impl Topic {
    /// Creates a topic on the common broker.
    pub(crate) async fn create(partitions: i32) -> Self {
        Self::create_on(servers::kafka_port(), partitions).await
    }

    /// Creates a topic on the broker at `port`.
    pub(crate) async fn create_on(port: u16, partitions: i32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("embedsink-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let topic = Self {
            broker: format!("127.0.0.1:{port}"),
            name,
            partitions,
            is_on_tansu: servers::is_tansu(port),
        };
        topic.make(&[]).await;
        topic
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> usize {
        self.partitions as usize
    }

    /// How a client reaches the topic's broker.
    pub(crate) fn config(&self) -> ClientConfig {
        config(&self.broker)
    }

    /// What stands under `bootstrap-servers` in a configuration.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// Creates the topic under its name, with these settings of a topic.
    pub(crate) async fn make(&self, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(&self.name, self.partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let admin = admin(&self.broker);
        for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        self.has_leaders().await;
    }

    /// The answer to who makes partitions comes before each has its leader.
    async fn has_leaders(&self) {
        until("the topic's leaders", async || {
            self.ends().filter(|ends| ends.len() == self.partitions as usize)
        })
        .await;
    }

    /// Deletes the topic, and creates it anew under its name.
    pub(crate) async fn recreate(&self) {
        self.remove().await;
        self.make(&[]).await;
    }

    /// Deletes the topic, and waits until the broker has forgotten it.
    pub(crate) async fn remove(&self) {
        delete(&self.broker, &self.name).await;
        until("the topic's end", async || {
            let metadata = consumer(&self.broker).fetch_metadata(Some(&self.name), PATIENCE).ok()?;
            let code: Option<RDKafkaErrorCode> = metadata.topics().first()?.error().map(Into::into);
            (code == Some(RDKafkaErrorCode::UnknownTopicOrPartition)).then_some(())
        })
        .await;
    }

    /// Gives the topic more partitions, `partitions` in all.
    pub(crate) async fn grow(&mut self, partitions: i32) {
        let more = NewPartitions::new(&self.name, partitions as usize);
        for result in admin(&self.broker).create_partitions([&more], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        self.partitions = partitions;
        self.has_leaders().await;
    }

    /// Deletes the records of partition 0 that lie before `offset`.
    pub(crate) async fn delete_before(&self, offset: i64) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, 0, Offset::Offset(offset))?;
        let done = admin(&self.broker).delete_records(&offsets, &AdminOptions::new()).await?;
        done.elements().iter().try_for_each(|partition| partition.error())
    }

    /// Writes records, each into its partition, and makes sure that they have the offsets they were made for.
    pub(crate) fn produce<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        let producer = TopicProducer::new(self);
        for record in records {
            last.insert(record.partition, record.offset + 1);
            producer.send(
                record.partition,
                record.timestamp,
                record.key.as_deref(),
                record.payload.as_deref(),
            );
        }
        producer.finish();
        let ends = self.ends().unwrap();
        for (partition, end) in last {
            assert_eq!(
                ends[&partition], end,
                "partition {partition} holds what was written, and nothing else"
            );
        }
    }

    /// The end offset of every partition; `None` if the broker does not say.
    pub(crate) fn ends(&self) -> Option<BTreeMap<i32, i64>> {
        let consumer = consumer(&self.broker);
        let end = |partition| {
            let (_, end) = consumer.fetch_watermarks(&self.name, partition, Duration::from_secs(10)).ok()?;
            Some((partition, end))
        };
        (0..self.partitions).map(end).collect()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let (broker, name) = (self.broker.clone(), self.name.clone());
        // The test's runtime cannot wait inside of a drop.
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(delete(&broker, &name));
        });
        if deleted.join().is_err() {
            eprintln!("the topic {} was left behind", self.name);
        }
    }
}

async fn delete(broker: &str, name: &str) {
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    if let Ok(results) = admin(broker).delete_topics(&[name], &options).await {
        println!("deleted {results:?}");
    }
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn admin(broker: &str) -> AdminClient<DefaultClientContext> {
    config(broker).create().unwrap()
}

fn consumer(broker: &str) -> BaseConsumer {
    config(broker).create().unwrap()
}

/// Writes records into one topic.
pub(crate) struct TopicProducer<'a> {
    producer: BaseProducer<Strict>,
    topic: &'a Topic,
}

/// Panics when the broker does not take a record.
pub(crate) struct Strict;

impl ClientContext for Strict {}

impl ProducerContext for Strict {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("the broker did not take a record: {error}");
        }
    }
}

impl<'a> TopicProducer<'a> {
    /// A producer that keeps the order of records.
    pub(crate) fn new(topic: &'a Topic) -> Self {
        let mut config = config(&topic.broker);
        config
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "50000")
            .set("message.max.bytes", "83886080");
        if topic.is_on_tansu {
            // It takes the first offset of the last batch for the end of the log.
            config.set("batch.num.messages", "1");
        }
        Self { producer: config.create_with_context(Strict).unwrap(), topic }
    }

    /// Sends a record, waiting for room if need be.
    pub(crate) fn send(&self, partition: i32, timestamp: i64, key: Option<&[u8]>, payload: Option<&[u8]>) {
        let mut record =
            BaseRecord::<[u8], [u8]>::to(&self.topic.name).partition(partition).timestamp(timestamp);
        record.key = key;
        record.payload = payload;
        while let Err((error, unsent)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.poll(Duration::from_millis(50));
            record = unsent;
        }
        self.producer.poll(Duration::ZERO);
    }

    /// The same with headers.
    pub(crate) fn send_with_headers(
        &self,
        partition: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: *value });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic.name)
            .partition(partition)
            .timestamp(timestamp)
            .headers(owned);
        record.key = key;
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits until the broker has everything.
    pub(crate) fn finish(self) {
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// Reads the dead letters on a topic, from its beginning.
pub(crate) struct LetterReader(BaseConsumer);

impl LetterReader {
    /// A reader of partition 0. `group` is only a name.
    pub(crate) fn new(letters: &Topic, group: &str) -> Self {
        let consumer: BaseConsumer = letters.config().set("group.id", group).create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(letters.name(), 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        Self(consumer)
    }

    /// The next letter. Waits for it.
    pub(crate) async fn next(&mut self) -> OwnedMessage {
        until("a dead letter on the topic", async || {
            self.0.poll(Duration::from_millis(100)).map(|message| message.unwrap().detach())
        })
        .await
    }

    /// A header of a letter, as text.
    pub(crate) fn told(letter: &OwnedMessage, name: &str) -> Option<String> {
        let header = letter.headers()?.iter().find(|header| header.key == name)?;
        Some(String::from_utf8_lossy(header.value?).into_owned())
    }
}
