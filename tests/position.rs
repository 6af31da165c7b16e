//! A stored position outside of what the broker holds stops the connector. Nothing is skipped in silence.

use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::model::assert_fold;
use crate::support::postgres::{Database, one, positions};
use crate::support::random::Random;
use crate::support::record::{Generator, Shape};

const ONE: Shape = Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 20, tombstones: 10, damaged: 5 };

#[tokio::test]
async fn a_topic_deleted_and_created_again_stops_the_connector() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let connector = Connector::restless(&topic, &database, &ONE);
    let log = Generator::new(Random::new("recreated"), ONE).records(30);
    topic.produce(&log);
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 30).await;
    process.stop().await;

    topic.recreate().await;
    topic.produce(&Generator::new(Random::new("recreated"), ONE).records(7));
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("has offset 30, but the broker holds 0 to 7"), "{text}");
    assert!(text.contains("deleted and created again"), "{text}");
    assert_eq!(positions(&client, topic.name()).await, [(0, 30)]);
    assert_fold(&client, &ONE, topic.name(), &log, &[(0, 30)]).await;
}

#[tokio::test]
async fn a_topic_created_again_with_more_records_than_before_stops_the_connector() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let connector = Connector::restless(&topic, &database, &ONE);
    let shape = Shape { damaged: 50, ..ONE };
    let mut generator = Generator::new(Random::new("recreated longer"), shape);
    let log = generator.records(30);
    topic.produce(&log);
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 30).await;
    process.stop().await;

    topic.recreate().await;
    generator.begin_anew();
    topic.produce(&generator.records(50));
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("the record at offset 29 is not the one that was written from there"), "{text}");
    assert_eq!(positions(&client, topic.name()).await, [(0, 30)]);
    assert_fold(&client, &ONE, topic.name(), &log, &[(0, 30)]).await;

    // The way out that the message names: the new topic from its beginning. Both topics' bad records are kept.
    client.batch_execute("delete from embedsink.offsets").await.unwrap();
    let before: i64 = one(&client, "select count(*) from embedsink.dead_letters").await;
    let mut process = connector.start();
    process.settles(&client, 50).await;
    process.stop().await;
    let after: i64 = one(&client, "select count(*) from embedsink.dead_letters").await;
    assert!(before > 0 && after > before, "{before} dead letters became {after}");
}

#[tokio::test]
async fn records_deleted_before_they_were_written_stop_the_connector() {
    let (database, topic) = (Database::create().await, Topic::create(1).await);
    let connector = Connector::restless(&topic, &database, &ONE);
    let mut generator = Generator::new(Random::new("deleted"), ONE);
    let log = generator.records(10);
    topic.produce(&log);
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 10).await;
    process.stop().await;

    topic.produce(&generator.records(90));
    let deleted = topic.delete_before(50).await;
    let text = if deleted.is_ok() {
        connector.start().ends_with(1).await
    } else {
        // The fallback broker cannot delete records. A position that lies elsewhere is as good.
        println!("this broker does not delete records: {deleted:?}");
        client.batch_execute("update embedsink.offsets set next_offset = 150").await.unwrap();
        connector.start().ends_with(1).await
    };
    if deleted.is_ok() {
        assert!(text.contains("has offset 10, but the broker holds 50 to 100"), "{text}");
        assert!(text.contains("Retention has deleted"), "{text}");
        assert_eq!(positions(&client, topic.name()).await, [(0, 10)]);
    } else {
        assert!(text.contains("has offset 150, but the broker holds 0 to 100"), "{text}");
    }
    assert_fold(&client, &ONE, topic.name(), &log, &[(0, 10)]).await;

    // The way out that the message names.
    client.batch_execute("update embedsink.offsets set next_offset = 50").await.unwrap();
    let mut process = connector.start();
    process.settles(&client, 100).await;
    process.stop().await;
}
