//! Several instances of one connector share its partitions, and none writes what another has.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio_postgres::Client;

use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::postgres::{Database, one};
use crate::support::record::Shape;
use crate::support::stage::Stage;
use crate::support::turn::alone;
use crate::support::wait::PATIENCE;

const SINGLE: Shape =
    Shape { tables: &[("embeddings", 8)], partitions: 1, ids: 100, tombstones: 0, damaged: 0 };

#[tokio::test]
async fn two_instances_that_join_and_leave_under_load_write_everything_once() {
    let _alone = alone().await;
    let mut stage = Stage::new("two instances", 80_000).await;

    let mut a = stage.connector.start();
    let moment = stage.next_moment(6).await;
    a.settles(&stage.client, moment).await;
    let mut b = stage.connector.start();
    b.logs(1, "partition begins").await;
    let moment = stage.next_moment(5).await;
    b.settles(&stage.client, moment).await;
    a.stop().await;
    let mut a = stage.connector.start();
    a.logs(1, "partition begins").await;
    let moment = stage.next_moment(4).await;
    a.settles(&stage.client, moment).await;
    b.kill();
    let moment = stage.next_moment(3).await;
    a.settles(&stage.client, moment).await;
    let mut b = stage.connector.start();
    let mut c = stage.connector.start();
    b.logs(1, "partition begins").await;
    c.logs(1, "partition begins").await;
    let moment = stage.next_moment(2).await;
    a.settles(&stage.client, moment).await;
    a.kill();
    let moment = stage.next_moment(1).await;
    c.settles(&stage.client, moment).await;
    assert!(stage.settled().await < stage.log.len(), "all of this happened under load");
    b.stop().await;

    stage.finish(c).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn an_instance_stopped_past_its_session_writes_nothing_of_what_it_has_lost() {
    let _alone = alone().await;
    let mut stage = Stage::new("SIGSTOP", 60_000).await;

    let mut a = stage.connector.start();
    let moment = stage.next_moment(3).await;
    a.settles(&stage.client, moment).await;
    a.signal("STOP");
    let mut b = stage.connector.start();
    b.logs(4, "partition begins").await;
    let moment = stage.next_moment(1).await;
    b.settles(&stage.client, moment).await;
    let moves = first_moves(&stage.client).await;
    assert!(moves > 0, "the stopped instance was the first to write");

    // It has batches in hand, and does not know yet that they are no longer its own.
    let stopped = a.logged();
    a.signal("CONT");
    a.until("notice of the loss", async |a| {
        let notices = ["has taken this partition", "revoked by the group"];
        notices.iter().any(|text| !a.lines_with(text).is_empty()).then_some(())
    })
    .await;

    // It joins again, and both go on.
    a.logs_behind(stopped, 1, "partition begins").await;
    stage.produce(20_000);
    b.settles(&stage.client, stage.log.len()).await;
    a.stop().await;
    b.stop().await;
    assert_eq!(first_moves(&stage.client).await, moves, "what was lost was not written any more");
    stage.assert_complete().await;
}

/// How often a position was moved under a partition's first tenure.
async fn first_moves(client: &Client) -> i64 {
    one(client, "select count(*) from audit.moves where epoch = 1 and after > before").await
}

/// A connector that reads 100 records from the mock cluster of librdkafka.
async fn mocked(topic: &str) -> (MockCluster<'static, DefaultProducerContext>, Connector, Database) {
    let (database, any) = (Database::create().await, Topic::create(1).await);
    let mock: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    mock.create_topic(topic, 1, 1).unwrap();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
    for number in 0..100 {
        let key = format!("key {number}");
        producer.send(BaseRecord::<str, [u8]>::to(topic).key(&key)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let mut connector = Connector::new(&any, &database, &SINGLE);
    connector.kafka = format!(
        "bootstrap-servers: ['{}']\nproperties: {{session.timeout.ms: 8000, heartbeat.interval.ms: 300}}",
        mock.bootstrap_servers()
    );
    connector.topic = topic.to_owned();
    connector.migrate().await;
    (mock, connector, database)
}

#[tokio::test]
async fn a_member_that_stands_still_though_a_broker_answers_is_replaced_and_reads_on() {
    let (mock, connector, database) = mocked("standing").await;
    let nobody = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 10_000];
    mock.request_errors(RDKafkaApiKey::FindCoordinator, &nobody);
    let client = database.connect().await;
    let mut process = connector.start();
    process.logs(1, "joining the group anew").await;
    mock.clear_request_errors(RDKafkaApiKey::FindCoordinator);
    process.settles(&client, 100).await;
    process.stop().await;
}

#[tokio::test]
async fn a_stop_while_the_broker_does_not_answer_ends_within_11_seconds() {
    let (mock, connector, database) = mocked("silent").await;
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 100).await;
    mock.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
    process.signal("TERM");
    process.ends_within(Duration::from_secs(11), 0).await;
}
