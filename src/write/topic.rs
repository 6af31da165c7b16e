//! The dead-letter topic: a copy of every dead letter on Kafka, for those who watch topics.
//!
//! Invariant: a batch is written to the database only when the broker has acknowledged all its letters.
//! A letter can therefore come twice (same topic, partition and offset in its headers), but never not at all.

mod error;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use tokio::task::spawn_blocking;

use crate::batch::{Batch, DeadLetter};
use crate::config::KafkaSettings;
use crate::reject::RejectReason;
use crate::source::SourceError;
use crate::source::kafka::Said;

pub use error::LetterError;

/// How long the broker may take to acknowledge a letter.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// How long the broker is waited for when the topic is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How the names begin of librdkafka's properties that say how a broker is reached.
const OF_BOTH: [&str; 15] = [
    "api.version",
    "broker.",
    "client.",
    "connections.max",
    "enable.sasl",
    "enable.ssl",
    "https.",
    "message.max.bytes",
    "metadata.",
    "reconnect.",
    "retry.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

/// Writes dead letters to a topic of the brokers that the records come from.
#[derive(Clone)]
pub(crate) struct LetterTopic {
    producer: FutureProducer<Said>,
    topic: String,
    connector: String,
    /// Since when the brokers have said that there is no such topic.
    unknown: Arc<Mutex<Option<Instant>>>,
}

/// How much of a letter is sent. What is too large for the topic is sent again with less of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    WithoutPayload,
    /// Without the record's key and headers, too: only what is told of it is left.
    Bare,
}

impl Extent {
    fn less(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::WithoutPayload),
            Self::WithoutPayload => Some(Self::Bare),
            Self::Bare => None,
        }
    }
}

impl std::fmt::Debug for LetterTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl LetterTopic {
    /// A producer with the connection settings of the source.
    ///
    /// # Errors
    /// [`SourceError::Settings`] when librdkafka refuses them.
    pub(crate) fn new(settings: &KafkaSettings, topic: &str, connector: &str) -> Result<Self, SourceError> {
        let mut config = ClientConfig::new();
        // Those of a consumer alone mean nothing to a producer, and librdkafka says so at each start.
        let of_both = |name: &str| OF_BOTH.iter().any(|start| name.starts_with(start));
        for (name, value) in settings.properties.iter().filter(|(name, _)| of_both(name)) {
            config.set(name, value.expose());
        }
        config
            .set("bootstrap.servers", settings.bootstrap_servers.join(","))
            // Not idempotent: a letter may come twice, and an idempotent producer can fail for good.
            .set("acks", "all")
            .set("message.timeout.ms", ACKNOWLEDGE.as_millis().to_string())
            .set("topic.metadata.propagation.max.ms", LOOK.as_millis().to_string())
            // A broker refuses a batch as a whole for its size: each letter is judged by its own.
            .set("batch.num.messages", "1")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        let producer =
            config.create_with_context(Said::new(settings)).map_err(|_| SourceError::Settings {
                reason: "it cannot make a producer for errors.dead-letter-topic of them".to_owned(),
            })?;
        let unknown = Arc::default();
        Ok(Self { producer, topic: topic.to_owned(), connector: connector.to_owned(), unknown })
    }

    /// Finds out now, and not at the first bad record, that there is no such topic. A broker that is away is no
    /// error here.
    ///
    /// # Errors
    /// When the broker says that there is none, or that it is not for us.
    pub(crate) async fn look(&self) -> Result<(), LetterError> {
        let this = self.clone();
        let asked =
            spawn_blocking(move || this.producer.client().fetch_metadata(Some(&this.topic), LOOK)).await;
        let Ok(Ok(metadata)) = asked else { return Ok(()) };
        let code = metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        let error = |code| LetterError { topic: self.topic.clone(), code, unknown_for: None };
        match code.map(error) {
            Some(error) if !error.is_passing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the dead letters of `batch` but for the first `published`, and waits until all are acknowledged. Counts
    /// each of them in `published`, also when a later one fails.
    ///
    /// Cancel-safe: what was sent stays sent, and may be sent again.
    ///
    /// # Errors
    /// See [`LetterError::is_passing`].
    pub(crate) async fn publish(&self, batch: &Batch, published: &mut usize) -> Result<(), LetterError> {
        let mut letters = batch.dead_letters().skip(*published).peekable();
        let is_unknown = self.unknown().is_some();
        if is_unknown && letters.peek().is_some() {
            // By itself librdkafka asks for a topic that is gone once in five minutes.
            self.look().await.map_err(|error| self.dated(error))?;
        }
        let mut sent = Vec::new();
        for letter in letters {
            let first = self.send(&letter, Extent::Whole).await?;
            sent.push((letter, first));
        }
        for (letter, first) in sent {
            self.acknowledged(&letter, first).await?;
            *published += 1;
            self.unknown().take();
        }
        Ok(())
    }

    /// Waits until the letter is acknowledged, sending it again with less of it while it is too large.
    async fn acknowledged(
        &self,
        letter: &DeadLetter<'_>,
        (mut extent, mut delivery): (Extent, DeliveryFuture),
    ) -> Result<(), LetterError> {
        loop {
            let error = match delivery.await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err((error, _))) => self.failed(&error),
                // The producer gave the record up without a word.
                Err(_) => self.failed(&KafkaError::Canceled),
            };
            let Some(less) = extent.less().filter(|_| error.is_too_large()) else { return Err(error) };
            (extent, delivery) = self.send(letter, less).await?;
        }
    }

    /// Sends a letter, with less of it where that much is too large for the producer already.
    async fn send(
        &self,
        letter: &DeadLetter<'_>,
        mut extent: Extent,
    ) -> Result<(Extent, DeliveryFuture), LetterError> {
        loop {
            match self.hand_over(letter, extent).await {
                Ok(delivery) => return Ok((extent, delivery)),
                Err(error) => {
                    let less = extent.less().filter(|_| error.is_too_large());
                    extent = less.ok_or(error)?;
                }
            }
        }
    }

    async fn hand_over(
        &self,
        letter: &DeadLetter<'_>,
        extent: Extent,
    ) -> Result<DeliveryFuture, LetterError> {
        if extent != Extent::Whole {
            let rejected = letter.rejected;
            tracing::warn!(partition = %rejected.partition, offset = rejected.offset, ?extent, "a dead letter is too \
                large for its topic; less of it is sent there");
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(self.headers(letter, extent));
        record.key = letter.record.key.filter(|_| extent != Extent::Bare);
        record.payload = letter.record.payload.filter(|_| extent == Extent::Whole);
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
    }

    /// The record's own headers, and behind them those that Kafka Connect gives a dead letter (KIP-298). Then what was left
    /// out of it, in bytes.
    fn headers(&self, letter: &DeadLetter<'_>, extent: Extent) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new();
        let own = Some(letter.record.headers).filter(|_| extent != Extent::Bare).unwrap_or_default();
        for (name, value) in own.iter() {
            // What was read from Kafka has a name that is text.
            if let Ok(key) = std::str::from_utf8(name) {
                headers = headers.insert(Header { key, value });
            }
        }
        let reject = &letter.rejected.reject;
        let stage = match reject.reason {
            RejectReason::Refused => "TASK_PUT",
            _ => "VALUE_CONVERTER",
        };
        let (partition, offset) =
            (letter.rejected.partition.number().to_string(), letter.rejected.offset.to_string());
        let told = [
            ("topic", letter.rejected.partition.topic()),
            ("partition", &partition),
            ("offset", &offset),
            ("connector.name", &self.connector),
            ("task.id", "0"),
            ("stage", stage),
            ("class.name", "embedsink"),
            ("exception.class.name", reject.reason.as_str()),
            ("exception.message", &reject.message),
            ("exception.stacktrace", ""),
        ];
        for (name, value) in told {
            let key = format!("__connect.errors.{name}");
            headers = headers.insert(Header { key: &key, value: Some(value) });
        }
        let key = letter.record.key.map(<[u8]>::len).filter(|_| extent == Extent::Bare);
        let whole = letter.record.payload.map(|payload| payload.len() + letter.record.omitted);
        // The source may have left out some of it, too.
        let payload = match extent {
            Extent::Whole => Some(letter.record.omitted).filter(|bytes| *bytes > 0),
            _ => whole,
        };
        for (name, bytes) in [("payload", payload), ("key", key)] {
            if let Some(bytes) = bytes {
                let (key, value) = (format!("__embedsink.{name}.omitted"), bytes.to_string());
                headers = headers.insert(Header { key: &key, value: Some(&value) });
            }
        }
        if extent == Extent::Bare && !letter.record.headers.is_empty() {
            let count = letter.record.headers.iter().count().to_string();
            headers = headers.insert(Header { key: "__embedsink.headers.omitted", value: Some(&count) });
        }
        headers
    }

    fn failed(&self, error: &KafkaError) -> LetterError {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        self.dated(LetterError { topic: self.topic.clone(), code, unknown_for: None })
    }

    /// The error, with how long the topic has been unknown if it says that it is. The topic was there at the start.
    fn dated(&self, error: LetterError) -> LetterError {
        if !error.is_unknown_topic() {
            return error;
        }
        let since = *self.unknown().get_or_insert_with(Instant::now);
        LetterError { unknown_for: Some(since.elapsed()), ..error }
    }

    fn unknown(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
