//! Why the dead-letter topic did not take a letter, and what follows.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

/// For how long a topic that was there may be unknown: one that was just created again, or whose leader is being elected.
const UNKNOWN: Duration = Duration::from_secs(30);

/// Why a letter was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the dead-letter topic {topic} did not take a record: {code}")]
pub struct LetterError {
    /// The topic.
    pub topic: String,
    /// What the broker or the client said.
    pub code: RDKafkaErrorCode,
    /// For how long the topic has been unknown that was there before, if that is what was said.
    pub(super) unknown_for: Option<Duration>,
}

impl LetterError {
    /// Whether trying again can help.
    pub fn is_passing(&self) -> bool {
        use RDKafkaErrorCode as Code;
        if let Some(time) = self.unknown_for {
            return time < UNKNOWN;
        }
        !matches!(
            self.code,
            Code::Fatal
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::MessageSizeTooLarge
                | Code::InvalidMessageSize
                | Code::MessageBatchTooLarge
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::PolicyViolation
                | Code::InvalidRecord
                | Code::Authentication
                | Code::SaslAuthenticationFailed
        )
    }

    pub(super) fn is_too_large(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(self.code, Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge)
    }

    pub(super) fn is_unknown_topic(&self) -> bool {
        matches!(self.code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    }

    /// What the operator can do; `None` if it passes by itself.
    pub fn remedy(&self) -> Option<&'static str> {
        use RDKafkaErrorCode as Code;
        match self.code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                Some("Create it (kafka-topics.sh --create --topic ...), or mend errors.dead-letter-topic")
            }
            _ if self.is_too_large() => Some(
                "Even without payload, key and headers of its record a letter is too large. Raise max.message.bytes of \
                 the topic, and message.max.bytes under source.kafka.properties",
            ),
            Code::Fatal => Some("librdkafka cannot go on with this producer. Start the connector again"),
            _ if !self.is_passing() => Some("The connector needs the right Write on this topic"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: RDKafkaErrorCode, unknown_for: Option<Duration>) -> LetterError {
        LetterError { topic: "letters".to_owned(), code, unknown_for }
    }

    #[test]
    fn a_topic_that_was_there_may_be_unknown_for_a_while_and_one_that_never_was_may_not() {
        for code in [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic] {
            assert!(!error(code, None).is_passing());
            assert!(error(code, Some(Duration::ZERO)).is_passing());
            assert!(error(code, Some(Duration::from_secs(29))).is_passing());
            assert!(!error(code, Some(Duration::from_secs(30))).is_passing());
            assert!(
                error(code, Some(Duration::ZERO)).remedy().is_some_and(|text| text.contains("Create it"))
            );
        }
        assert!(error(RDKafkaErrorCode::LeaderNotAvailable, None).is_passing());
        assert!(!error(RDKafkaErrorCode::MessageSizeTooLarge, None).is_passing());
    }
}
