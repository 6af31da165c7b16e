//! The dead-letter topic: a copy of every dead letter on Kafka, for those who watch topics.
//!
//! Invariant: a batch is written to the database only when the broker has acknowledged all its letters.
//! A letter can therefore come twice (same topic, partition and offset in its headers), but never not at all.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use tokio::task::spawn_blocking;

use crate::batch::{Batch, DeadLetter};
use crate::config::KafkaSettings;
use crate::reject::RejectReason;
use crate::source::SourceError;
use crate::source::kafka::Log;

/// How long the broker may take to acknowledge a letter.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// How long the broker is waited for when the topic is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// The header of a letter that came without the record's payload, because the topic does not take it: how many bytes
/// that has.
const OMITTED: &str = "__embedsink.omitted.payload.bytes";

/// How much of a record its letter holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Key and headers.
    NoPayload,
    /// Only where it stands, and what is wrong with it.
    Place,
}

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
    producer: FutureProducer<Log>,
    topic: String,
    connector: String,
}

impl std::fmt::Debug for LetterTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Why a letter was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the dead-letter topic {topic} did not take a record: {code}")]
pub struct LetterError {
    /// The topic.
    pub topic: String,
    /// What the broker or the client said.
    pub code: RDKafkaErrorCode,
}

impl LetterError {
    /// Whether trying again can help.
    pub fn is_passing(&self) -> bool {
        use RDKafkaErrorCode as Code;
        !matches!(
            self.code,
            Code::Fatal
                | Code::MessageSizeTooLarge
                | Code::InvalidMessageSize
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::PolicyViolation
                | Code::InvalidRecord
                | Code::Authentication
                | Code::SaslAuthenticationFailed
        )
    }

    /// Whether the broker does not know the topic. At the start that is a wrong name. Later it may be one that is
    /// being made, or whose leader is chosen.
    fn is_missing(&self) -> bool {
        matches!(self.code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    }

    fn is_too_large(&self) -> bool {
        matches!(self.code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    }

    /// What the operator can do; `None` if there is nothing to do but wait.
    pub fn remedy(&self) -> Option<&'static str> {
        use RDKafkaErrorCode as Code;
        match self.code {
            _ if self.is_missing() => {
                Some("Create it (kafka-topics.sh --create --topic ...), or mend errors.dead-letter-topic")
            }
            _ if self.is_too_large() => Some(
                "Not even the place of a record fits. Raise max.message.bytes of the topic, and message.max.bytes under \
                 source.kafka.properties",
            ),
            Code::Fatal => Some("librdkafka cannot go on with this producer. Start the connector again"),
            _ if !self.is_passing() => Some("The connector needs the right Write on this topic"),
            _ => None,
        }
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
            .set("allow.auto.create.topics", "false");
        let producer = config.create_with_context(Log::of(settings)).map_err(|_| SourceError::Settings {
            reason: "it cannot make a producer for errors.dead-letter-topic of them".to_owned(),
        })?;
        Ok(Self { producer, topic: topic.to_owned(), connector: connector.to_owned() })
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
        match code.map(|code| LetterError { topic: self.topic.clone(), code }) {
            Some(error) if error.is_missing() || !error.is_passing() => Err(error),
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
        let mut sent = Vec::new();
        for letter in batch.dead_letters().skip(*published) {
            sent.push((letter, self.send(&letter, Extent::Whole).await));
        }
        for (letter, delivery) in sent {
            let mut told = self.acknowledged(delivery).await;
            for less in [Extent::NoPayload, Extent::Place] {
                if told.as_ref().is_err_and(LetterError::is_too_large) {
                    told = self.acknowledged(self.send(&letter, less).await).await;
                }
            }
            told?;
            *published += 1;
        }
        Ok(())
    }

    async fn acknowledged(&self, delivery: Result<DeliveryFuture, LetterError>) -> Result<(), LetterError> {
        match delivery?.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(self.failed(&error)),
            // The producer gave the record up without a word.
            Err(_) => Err(self.failed(&KafkaError::Canceled)),
        }
    }

    async fn send(&self, letter: &DeadLetter<'_>, extent: Extent) -> Result<DeliveryFuture, LetterError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(self.headers(letter, extent));
        record.key = letter.record.key.filter(|_| extent != Extent::Place);
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

    /// The record's own headers, and behind them those that Kafka Connect gives a dead letter (KIP-298).
    fn headers(&self, letter: &DeadLetter<'_>, extent: Extent) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new();
        for (name, value) in letter.record.headers.iter().filter(|_| extent != Extent::Place) {
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
        if extent != Extent::Whole {
            let bytes = letter.record.payload.map_or(0, <[u8]>::len).to_string();
            headers = headers.insert(Header { key: OMITTED, value: Some(&bytes) });
        }
        headers
    }

    fn failed(&self, error: &KafkaError) -> LetterError {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        LetterError { topic: self.topic.clone(), code }
    }
}
