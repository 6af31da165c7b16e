use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

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
    let config = client_config(settings).create_native_config().expect("librdkafka takes them");
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
    let hostile = owned.map(|(name, _)| (name, if name.starts_with("enable") { "true" } else { "other" }));
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
    assert_eq!(native(&settings, "partition.assignment.strategy"), "cooperative-sticky");
    assert_eq!(native(&settings, "queued.max.messages.kbytes"), "16384");
    assert_eq!(native(&settings, "fetch.max.bytes"), "8388608");
    assert_eq!(native(&settings, "isolation.level"), "read_committed");
    assert_eq!(native(&settings, "statistics.interval.ms"), "5000");
}

#[tokio::test]
async fn a_property_that_librdkafka_does_not_know_or_take_is_named_without_its_value() {
    for (name, value) in
        [("no.such.property", "c4nary"), ("session.timeout.ms", "c4nary"), ("sasl.mechanism", "c4nary")]
    {
        match KafkaSource::start(&settings(&[(name, value)]), usize::MAX, Budget::new(1 << 20)) {
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

#[test]
fn what_librdkafka_says_of_the_settings_together_is_told_without_the_value_of_any() {
    let broken = [("sasl.mechanism", "c4nary"), ("security.protocol", "sasl_plaintext")];
    let said = check_settings(&settings(&broken)).expect_err("there is no such mechanism").to_string();
    assert!(said.contains("SASL mechanism: ****") && !said.contains("c4nary"), "{said}");
    for (text, word, left) in [
        ("ssl: ssl.ca of ssl", "ssl", "****: ssl.ca of ****"),
        ("a_a a a-a", "a", "a_a **** a-a"),
        ("aa", "a", "aa"),
        ("any", "", "any"),
    ] {
        assert_eq!(without_word(text, word), left);
    }
}

/// The next event, in time.
async fn next(source: &mut KafkaSource) -> SourceEvent {
    let event = tokio::time::timeout(Duration::from_secs(60), source.next()).await;
    event.expect("in time").expect("an event")
}

/// Waits for the assignment, and says which partitions it gives.
async fn given(source: &mut KafkaSource) -> Vec<Partition> {
    match next(source).await {
        SourceEvent::Given(mut partitions) => {
            partitions.sort_unstable();
            partitions
        }
        other => panic!("{other:?} before the assignment"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_leader_is_away_is_known_to_be_ours_before_any_is_announced() {
    let mock = MockCluster::new(2).expect("a cluster");
    mock.create_topic("topic", 2, 1).expect("a topic");
    mock.partition_leader("topic", 0, Some(1)).expect("a leader");
    mock.partition_leader("topic", 1, None).expect("no leader");
    let mut settings = settings(&[]);
    settings.bootstrap_servers = vec![mock.bootstrap_servers()];
    let mut source = KafkaSource::start(&settings, usize::MAX, Budget::new(1 << 20)).expect("a source");
    let partition = |number| Partition::new("topic", number);
    assert_eq!(given(&mut source).await, [partition(0), partition(1)]);
    match next(&mut source).await {
        SourceEvent::Assigned { partition: first, .. } => assert_eq!(first, partition(0)),
        other => panic!("{other:?} before what can be announced"),
    }
    source.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_partitions_end_is_told_without_statistics_too() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("topic", 1, 1).expect("a topic");
    let mut settings = settings(&[("statistics.interval.ms", "0")]);
    settings.bootstrap_servers = vec![mock.bootstrap_servers()];
    let mut source = KafkaSource::start(&settings, usize::MAX, Budget::new(1 << 20)).expect("a source");
    let partition = Partition::new("topic", 0);
    loop {
        match next(&mut source).await {
            SourceEvent::Assigned { partition, .. } => source.begin(&partition, Tenure(1), 0),
            SourceEvent::Ends(ends) => break assert_eq!(ends, [(partition, 0)]),
            _ => {}
        }
    }
    source.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_partition_ends_that_begins_while_all_are_paused_is_told() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("topic", 2, 1).expect("a topic");
    let mut settings = settings(&[("statistics.interval.ms", "100")]);
    settings.bootstrap_servers = vec![mock.bootstrap_servers()];
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .create()
        .expect("librdkafka takes this");
    let produce = |partition, count| {
        for _ in 0..count {
            let record = BaseRecord::<(), _>::to("topic").partition(partition).payload(&[b'x'; 1024]);
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
        producer.flush(Duration::from_secs(30)).expect("the mock takes them");
    };
    produce(0, 3000);
    let mut source = KafkaSource::start(&settings, usize::MAX, Budget::new(1 << 20)).expect("a source");
    let partition = |number| Partition::new("topic", number);
    let (mut announced, mut untaken) = (0, Vec::new());
    while announced < 2 {
        announced += usize::from(matches!(next(&mut source).await, SourceEvent::Assigned { .. }));
    }
    source.begin(&partition(0), Tenure(1), 0);
    loop {
        match next(&mut source).await {
            SourceEvent::Fetched(run) => untaken.push(run),
            SourceEvent::Paused(true) => break,
            _ => {}
        }
    }
    source.begin(&partition(1), Tenure(1), 0);
    produce(1, 3);
    let told = async {
        loop {
            if let SourceEvent::Ends(ends) = next(&mut source).await
                && ends.contains(&(partition(1), 3))
            {
                break ends;
            }
        }
    };
    let ends = tokio::time::timeout(Duration::from_secs(60), told).await.expect("in time");
    assert!(ends.contains(&(partition(0), 3000)), "{ends:?}");
    drop(untaken);
    source.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_reach_the_broker_as_advice_and_a_refusal_is_harmless() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("topic", 2, 1).expect("a topic");
    let mut settings = settings(&[("session.timeout.ms", "4000")]);
    settings.bootstrap_servers = vec![mock.bootstrap_servers()];
    let mut source = KafkaSource::start(&settings, usize::MAX, Budget::new(1 << 20)).expect("a source");
    given(&mut source).await;
    for _ in 0..2 {
        assert!(matches!(next(&mut source).await, SourceEvent::Assigned { .. }));
    }
    let refusals = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
    ];
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    let advice = |zero, one| {
        let foreign = Partition::new("another topic", 0);
        CommitPoint::new(vec![
            (Partition::new("topic", 0), zero),
            (Partition::new("topic", 1), one),
            (foreign, 9),
        ])
    };
    for _ in refusals {
        source.commit(&advice(1, 2));
    }
    // The refused ones are not repeated; the next one stands for all.
    let observer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "group")
        .create()
        .expect("an observer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition("topic", 0);
    asked.add_partition("topic", 1);
    let since = std::time::Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        source.commit(&advice(30, 40));
        let found = observer.committed_offsets(asked.clone(), Duration::from_secs(10)).expect("an answer");
        let found: Vec<Offset> = found.elements().iter().map(|element| element.offset()).collect();
        if found == [Offset::Offset(30), Offset::Offset(40)] {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "the broker knows {found:?}");
    }
    source.close(Duration::from_secs(20)).await;
}

#[test]
fn what_a_client_says_is_told_without_the_values_that_are_nobodys_to_read() {
    let settings = settings(&[
        ("sasl.password", "c4nary-password"),
        ("ssl.key.password", "c4nary-key"),
        ("client.rack", "rack"),
        ("sasl.oauthbearer.client.secret", "abc"),
    ]);
    let secrets = Secrets::of(&settings);
    let said = "c4nary-password of rack, (c4nary-key), abc";
    assert_eq!(secrets.taken_out_of(said), "**** of rack, (****), abc", "three letters are in many words");
    let shown = format!("{:?}", Said::new(&settings));
    assert!(!shown.contains("c4nary"), "{shown}");
}
