//! SmartModules between the topic and the connector.

use std::path::Path;

use crate::cluster::Cluster;
use crate::stage::{TOPIC, UNEVEN};
use crate::support::connector::Connector;
use crate::support::postgres::{Database, one, settled};
use crate::support::turn::alone;
use crate::way::{line, produce};

const KEEP_SEVENS: &str = "transforms:\n  - uses: keep\n    with: {contains: '7\"'}\n";

#[tokio::test]
async fn what_a_filter_leaves_and_a_map_changes_becomes_rows_also_after_a_kill() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    load(&cluster);
    cluster.cli(&["topic", "create", TOPIC]);
    let lines: Vec<String> = (0..20_000).map(|number| line(0, number)).collect();
    produce(&cluster, 0, &lines[..10_000]);
    let database = Database::create().await;
    let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    connector.top = format!("{KEEP_SEVENS}  - uses: replace\n    with: {{from: text, to: word}}\n");
    // The map turns the key `text` into `word` as well, so the text is lost; `id` stays.
    connector.more = "batch: {max-rows: 50, max-wait: 5ms}".to_owned();
    let client = database.connect().await;
    for _ in 0..3 {
        let before = settled(&client).await;
        let mut process = connector.start();
        process
            .until("some more to be written", async |_| (settled(&client).await > before).then_some(()))
            .await;
        process.kill();
    }
    let mut process = connector.start();
    produce(&cluster, 0, &lines[10_000..]);
    // The position moves over what the filter drops.
    let rows = async |_: &_| {
        let sql = "select count(*) from embeddings";
        (one::<i64>(&client, sql).await == 2_000).then_some(())
    };
    process.until("every seventh of ten to be a row", rows).await;
    let wrong = "select count(*) from embeddings where id !~ '^p0-[0-9]*7$' or text is not null";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
    process.stop().await;
}

#[tokio::test]
async fn the_one_record_that_a_filter_leaves_of_many_segments_arrives_and_the_position_moves_to_the_end() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    load(&cluster);
    cluster.cli(&["topic", "create", TOPIC, "--segment-size", "20000"]);
    let others: Vec<String> = (0..500).map(|number| line(0, number * 10)).collect();
    for part in others.chunks(100) {
        produce(&cluster, 0, part);
    }
    produce(&cluster, 0, &[line(0, 7)]);
    produce(&cluster, 0, &others[..100]);
    let database = Database::create().await;
    let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    connector.top = KEEP_SEVENS.to_owned();
    let client = database.connect().await;
    let mut process = connector.start();
    process.settles(&client, 601).await;
    process.stop().await;
    assert_eq!(one::<String>(&client, "select string_agg(id, ',') from embeddings").await, "p0-7");
}

#[tokio::test]
async fn a_smartmodule_that_is_not_there_is_a_clear_error() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    cluster.cli(&["topic", "create", TOPIC]);
    let database = Database::create().await;
    let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
    connector.top = "transforms: [{uses: missing}]".to_owned();
    produce(&cluster, 0, &[line(0, 0)]);
    let text = connector.start().ends_with(1).await;
    assert!(text.contains("there is no SmartModule missing"), "{text}");
}

fn load(cluster: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fluvio/smartmodule");
    for (name, file) in [("keep", "filter-contains.wasm"), ("replace", "map-replace.wasm")] {
        let file = folder.join(file);
        cluster.cli(&["smartmodule", "create", name, "--wasm-file", file.to_str().unwrap()]);
    }
}
