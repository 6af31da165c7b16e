//! librdkafka's log lines and errors as ours, without the secrets that it may quote.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::KafkaSettings;

/// What a client of librdkafka says, of the source or of the dead-letter topic.
#[derive(Clone)]
pub(crate) struct Log {
    /// Values of properties that librdkafka must not repeat.
    secrets: Vec<String>,
}

impl Log {
    /// For clients with these settings.
    pub(crate) fn of(settings: &KafkaSettings) -> Self {
        let secrets = settings
            .properties
            .iter()
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| value.expose().to_owned())
            .filter(|value| value.len() > 3);
        Self { secrets: secrets.collect() }
    }

    /// The text with the secrets left out.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "****"))
    }
}

impl ClientContext for Log {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka names brokers, topics and states here, never keys or payloads; but it may quote
        // a property's value.
        let message = self.without_secrets(message);
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
        tracing::warn!(target: "librdkafka", %error, "{}", self.without_secrets(reason));
    }
}

/// Whether the value of this property is nobody's to read.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "key", "pem", "jaas", "oauthbearer.config"].iter().any(|word| name.contains(word))
}
