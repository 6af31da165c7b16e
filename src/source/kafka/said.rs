//! What librdkafka says, brought into our log without the values that are nobody's to read.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::KafkaSettings;

/// Takes what a client says. By itself it is the whole context of a client that has nothing else to tell.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    secrets: Secrets,
}

impl Said {
    /// For a client with these settings.
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Self { secrets: Secrets::of(settings) }
    }
}

/// Values of properties that librdkafka must not repeat in our log. `Debug` counts them.
#[derive(Clone)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        let secret = settings.properties.iter().filter(|(name, _)| is_secret(name));
        let values = secret.map(|(_, value)| value.expose().to_owned());
        Self(values.filter(|value| value.len() > 3).collect())
    }

    pub(super) fn taken_out_of(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "****"))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} secrets]", self.0.len())
    }
}

/// Whether the value of this property is nobody's to read.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "key", "pem", "jaas", "oauthbearer.config"].iter().any(|word| name.contains(word))
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka names brokers, topics and states here, never keys or payloads; but it may quote
        // a property's value.
        let message = self.secrets.taken_out_of(message);
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, "{}", self.secrets.taken_out_of(reason));
    }
}
