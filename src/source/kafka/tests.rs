use std::collections::BTreeMap;

use super::*;
use crate::config::{Secret, StartAt};

fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
    let property = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
    KafkaSettings {
        bootstrap_servers: vec!["one:9092".to_owned(), "two:9093".to_owned()],
        topics: vec!["topic".to_owned()],
        group_id: "group".to_owned(),
        start: StartAt::Beginning,
        properties: properties.iter().map(property).collect::<BTreeMap<_, _>>(),
    }
}

/// What librdkafka itself makes of the properties, defaults included.
fn native(settings: &KafkaSettings, name: &str) -> String {
    let config = client_config(settings)
        .create_native_config()
        .expect("librdkafka takes them");
    config.get(name).expect("a property")
}

#[test]
fn the_connector_owns_the_properties_that_its_promise_rests_on() {
    let owned = [
        ("bootstrap.servers", "one:9092,two:9093"),
        ("group.id", "group"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "false"),
    ];
    let hostile = owned.map(|(name, _)| {
        (
            name,
            if name.starts_with("enable") {
                "true"
            } else {
                "other"
            },
        )
    });
    for settings in [settings(&[]), settings(&hostile)] {
        for (name, wanted) in owned {
            assert_eq!(client_config(&settings).get(name), Some(wanted));
            assert_eq!(native(&settings, name), wanted);
        }
        assert_eq!(client_config(&settings).get("auto.offset.reset"), Some("error"));
    }
    let reset = settings(&[("auto.offset.reset", "latest")]);
    assert_eq!(client_config(&reset).get("auto.offset.reset"), Some("error"));
    assert!(client_config(&reset).create_native_config().is_ok());
}

#[test]
fn any_other_property_of_librdkafka_passes() {
    let settings = settings(&[
        ("client.id", "mine"),
        ("fetch.min.bytes", "7"),
        ("queued.max.messages.kbytes", "4096"),
        ("partition.assignment.strategy", "range"),
        ("session.timeout.ms", "6000"),
        ("sasl.username", "somebody"),
    ]);
    for (name, wanted) in [
        ("client.id", "mine"),
        ("fetch.min.bytes", "7"),
        ("queued.max.messages.kbytes", "4096"),
        ("partition.assignment.strategy", "range"),
        ("session.timeout.ms", "6000"),
        ("sasl.username", "somebody"),
    ] {
        assert_eq!(native(&settings, name), wanted);
    }
}

#[test]
fn without_properties_the_queues_are_bounded_and_rebalances_are_gradual() {
    let settings = settings(&[]);
    assert_eq!(native(&settings, "client.id"), "embedsink");
    assert_eq!(
        native(&settings, "partition.assignment.strategy"),
        "cooperative-sticky"
    );
    assert_eq!(native(&settings, "queued.max.messages.kbytes"), "16384");
    assert_eq!(native(&settings, "fetch.max.bytes"), "8388608");
    assert_eq!(native(&settings, "isolation.level"), "read_committed");
}

#[tokio::test]
async fn a_property_that_librdkafka_does_not_know_or_take_is_named_without_its_value() {
    for (name, value) in [
        ("no.such.property", "c4nary"),
        ("session.timeout.ms", "c4nary"),
        ("sasl.mechanism", "c4nary"),
    ] {
        match KafkaSource::start(&settings(&[(name, value)]), 1 << 20) {
            Err(error @ SourceError::Settings { .. }) => {
                let said = error.to_string();
                assert!(said.contains(name) || name == "sasl.mechanism", "{said}");
                assert!(!said.contains("c4nary"), "{said}");
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(source) => {
                assert_eq!(
                    name, "sasl.mechanism",
                    "librdkafka looks at it only with security.protocol: sasl_*"
                );
                source.close(Duration::from_secs(10)).await;
            }
        }
    }
}
