//! What librdkafka makes of one property, asked before any consumer is made.
//!
//! librdkafka's own words are never passed on: they quote the value, and that may be a secret. What it
//! only finds when it sees all properties together shows when they are all given to it.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::nearest;

/// What is wrong with a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// librdkafka has none of this name.
    Unknown {
        /// The one that the name most likely means.
        nearest: Option<&'static str>,
    },
    /// librdkafka has it, and does not take this value.
    BadValue,
}

/// Setting this one loads code, so nobody sets it only to ask.
const PLUGINS: &str = "plugin.library.paths";

/// What is wrong with this property, looked at alone. Opens nothing.
pub(crate) fn fault(name: &str, value: &str) -> Option<Fault> {
    if name == PLUGINS {
        return None;
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Some(Fault::Unknown { nearest: nearest(name, WELL_KNOWN.iter().copied()) })
        }
        Err(_) => Some(Fault::BadValue),
    }
}

/// What people set on a consumer, to guess which one a misspelt name means. None of them is the connector's
/// own.
const WELL_KNOWN: &[&str] = &[
    "allow.auto.create.topics",
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "coordinator.query.interval.ms",
    "debug",
    "enable.metrics.push",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "log_level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_knows_every_property_that_is_ever_suggested() {
        for name in WELL_KNOWN {
            assert!(!matches!(fault(name, ""), Some(Fault::Unknown { .. })), "{name}");
        }
    }

    #[test]
    fn a_misspelt_property_is_unknown_and_has_the_nearest_beside_it() {
        let nearest = |name| match fault(name, "1") {
            Some(Fault::Unknown { nearest }) => nearest,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(nearest("sesion.timeout.ms"), Some("session.timeout.ms"));
        assert_eq!(nearest("sasl.mechanims"), Some("sasl.mechanism"));
        assert_eq!(nearest("key.deserializer"), None);
    }

    #[test]
    fn a_value_that_librdkafka_does_not_take_is_told_apart_from_one_that_it_takes() {
        for (name, bad, good) in [
            ("session.timeout.ms", "soon", "6000"),
            ("fetch.min.bytes", "0", "1"),
            ("security.protocol", "tls", "sasl_ssl"),
            ("check.crcs", "", "true"),
            ("client.id", "a\0b", "a b"),
        ] {
            assert_eq!(fault(name, bad), Some(Fault::BadValue), "{name}");
            assert_eq!(fault(name, good), None, "{name}");
        }
    }

    #[test]
    fn asking_after_plugins_loads_none() {
        assert_eq!(fault(PLUGINS, "no-such-library"), None);
    }
}
