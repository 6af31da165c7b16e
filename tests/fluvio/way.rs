//! The whole way, from `fluvio produce` to a row, and what a Fluvio user sees on it.

use std::fs;

use crate::cluster::Cluster;
use crate::stage::{TOPIC, UNEVEN};
use crate::support::connector::Connector;
use crate::support::postgres::{Database, one, positions};
use crate::support::turn::alone;
use crate::support::wait::until;

#[tokio::test]
async fn what_fluvio_produce_writes_to_uneven_partitions_becomes_rows() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    cluster.cli(&["topic", "create", TOPIC, "-p", "3"]);
    let sizes = [300_i64, 40, 7];
    for (partition, size) in sizes.iter().enumerate() {
        let lines: Vec<String> = (0..*size).map(|number| line(partition, number)).collect();
        produce(&cluster, partition, &lines);
    }
    let database = Database::create().await;
    let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    connector.meta = "consumer: {id: reader, offset: {flush-period: 1s}}".to_owned();
    connector.log = "trace";
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 347).await;

    assert_eq!(positions(&client, TOPIC).await, [(0, 300), (1, 40), (2, 7)]);
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 347);
    let sql = "select text from embeddings where id = 'p1-39'";
    assert_eq!(one::<String>(&client, sql).await, "text 39");
    // Advice for Fluvio's own tools: the offset of the last record that is durable.
    for (partition, size) in sizes.iter().enumerate() {
        until(&format!("Fluvio to know the offset of partition {partition}"), async || {
            let list = cluster.cli(&["consumer", "list"]);
            let is_it = |line: &&str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.starts_with(&["reader", TOPIC, &partition.to_string(), &(size - 1).to_string()])
            };
            list.lines().find(is_it).map(drop)
        })
        .await;
    }

    // An empty value is a tombstone.
    produce(&cluster, 2, &["p2-3:".to_owned()]);
    process.settles(&client, 348).await;
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 346);
    let text = process.stop().await;
    for payload in ["text 39", "p1-39", "0.5, 0.5"] {
        assert!(!text.contains(payload), "{payload:?} was logged");
    }
}

#[tokio::test]
async fn a_topic_that_is_missing_is_an_error_and_is_created_when_that_is_asked_for() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    let database = Database::create().await;
    let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("there is no topic embeddings") && text.contains("create-topic: true"), "{text}");

    connector.more = "source: {fluvio: {create-topic: true}}".to_owned();
    let client = database.connect().await;
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    produce(&cluster, 0, &[line(0, 1)]);
    process.settles(&client, 1).await;
    process.stop().await;
}

#[tokio::test]
async fn partitions_that_are_added_are_read() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    cluster.cli(&["topic", "create", TOPIC, "-p", "1"]);
    let database = Database::create().await;
    let connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    let client = database.connect().await;
    let mut process = connector.start();
    process.logs(1, "partition begins").await;
    cluster.cli(&["topic", "add-partition", TOPIC, "-c", "1"]);
    process.logs(2, "partition begins").await;
    produce(&cluster, 1, &[line(1, 1)]);
    process.settles(&client, 1).await;
    assert_eq!(positions(&client, TOPIC).await, [(0, 0), (1, 1)]);
    process.stop().await;
}

/// A line of a file for `fluvio produce`: the key, and an embedding record.
pub(crate) fn line(partition: usize, number: i64) -> String {
    let embedding = [0.5; 8];
    format!("p{partition}-{number}:{{\"text\": \"text {number}\", \"embedding\": {embedding:?}}}")
}

/// `fluvio produce` of these lines.
pub(crate) fn produce(cluster: &Cluster, partition: usize, lines: &[String]) {
    let file = cluster.home().join("lines");
    fs::write(&file, lines.join("\n")).unwrap();
    let (file, partition) = (file.to_str().unwrap(), partition.to_string());
    cluster.cli(&["produce", TOPIC, "-p", &partition, "--key-separator", ":", "-f", file]);
}
