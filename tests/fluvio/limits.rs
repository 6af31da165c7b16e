//! Where Fluvio cannot give what the stored position asks for.

use crate::cluster::Cluster;
use crate::stage::{TOPIC, UNEVEN};
use crate::support::connector::Connector;
use crate::support::postgres::{Database, one, run};
use crate::support::turn::alone;
use crate::support::wait::until;
use crate::way::{line, produce};

#[tokio::test]
async fn retention_below_the_stored_offset_stops_with_a_message_and_loses_nothing_silently() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    // The smallest segments there are: the oldest is deleted as soon as the cleaner runs.
    cluster.cli(&["topic", "create", TOPIC, "--segment-size", "1024", "--max-partition-size", "2048"]);
    let database = Database::create().await;
    let connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    let client = database.connect().await;
    produce(&cluster, 0, &[line(0, 0)]);
    let mut process = connector.start();
    process.settles(&client, 1).await;
    process.stop().await;

    for number in 1..=30 {
        produce(&cluster, 0, &[line(0, number)]);
    }
    let earliest = || {
        let first = cluster.cli(&["consume", TOPIC, "-B", "-d", "-F", "{{offset}}"]);
        first.trim().lines().next().and_then(|offset| offset.parse::<i64>().ok())
    };
    let gone =
        until("retention to delete the oldest records", async || earliest().filter(|first| *first > 1)).await;

    let text = connector.start().ends_with(1).await;
    let says =
        format!("embeddings[0]: the next record to write has offset 1, but the broker holds {gone} to 31");
    assert!(text.contains(&says) && text.contains("Retention has deleted"), "expected {says:?} in:\n{text}");
    assert_eq!(one::<i64>(&client, "select next_offset from embedsink.offsets").await, 1);

    // As the message says.
    run(&client, &format!("update embedsink.offsets set next_offset = {gone}")).await;
    let mut process = connector.start();
    process.settles(&client, 31).await;
    process.stop().await;
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 1 + 31 - gone);
}

#[tokio::test]
async fn a_topic_made_anew_stops_with_a_message() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    cluster.cli(&["topic", "create", TOPIC]);
    let database = Database::create().await;
    let connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    let client = database.connect().await;
    let lines: Vec<String> = (0..20).map(|number| line(0, number)).collect();
    produce(&cluster, 0, &lines[..10]);
    let mut process = connector.start();
    process.settles(&client, 10).await;
    cluster.cli(&["topic", "delete", TOPIC]);
    let text = process.ends_with(1).await;
    assert!(text.contains("topic embeddings is gone"), "{text}");

    cluster.cli(&["topic", "create", TOPIC]);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("the next record to write has offset 10, but the broker holds 0 to 0"), "{text}");
    produce(&cluster, 0, &lines);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("the record at offset 9 is not the one that was written"), "{text}");
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, 10);
}
