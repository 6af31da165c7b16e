//! Promises 1 and 4, with Fluvio as the source.

use std::time::Duration;

use crate::stage::{Stage, TOPIC};
use crate::support::postgres::positions;
use crate::support::turn::alone;

#[tokio::test]
async fn kill_nine_and_a_restarted_spu_lose_nothing_and_apply_nothing_twice() {
    const RECORDS: usize = 50_000;
    const KILLS: usize = 5;
    let _alone = alone().await;
    let mut stage = Stage::new("fluvio, kill -9", RECORDS).await;

    let mut at_kills = Vec::new();
    for kill in 0..KILLS {
        let before = stage.settled().await;
        let moment = before + 1 + stage.generator.random.below((RECORDS - before) / (KILLS + 1 - kill) / 2);
        let mut process = stage.connector.start();
        process.settles(&stage.client, moment).await;
        if kill % 2 == 1 {
            // The connector goes on by itself when the SPU is back.
            stage.cluster.kill_spu();
            stage.cluster.start_spu().await;
            let after = stage.settled().await;
            process.settles(&stage.client, after + 500).await;
        }
        process.kill();
        at_kills.push(stage.settled().await);
    }
    assert!(at_kills.is_sorted_by(|earlier, later| earlier < later), "every run did some work: {at_kills:?}");
    assert!(at_kills[KILLS - 1] < RECORDS, "every kill came before the end: {at_kills:?}");

    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn an_spu_that_dies_under_load_is_waited_for_and_reading_goes_on() {
    let _alone = alone().await;
    let mut stage = Stage::new("fluvio, SPU killed", 20_000).await;
    let mut process = stage.connector.start();
    for moment in [2_000, 8_000] {
        process.settles(&stage.client, moment).await;
        let killed = process.logged();
        stage.cluster.kill_spu();
        process.logs_behind(killed, 1, "reading was cut off").await;
        stage.cluster.start_spu().await;
        process.logs_behind(killed, 1, "the partition is read again").await;
    }
    stage.produce(5_000).await;
    process.settles(&stage.client, stage.log.len()).await;
    process.stop().await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn sigterm_under_load_drains_and_the_next_start_continues_at_the_next_record() {
    let _alone = alone().await;
    let mut stage = Stage::new("fluvio, SIGTERM", 30_000).await;
    let mut stored: Vec<(i32, i64)> = Vec::new();
    for moment in [3_000, 9_000] {
        let mut process = stage.connector.start();
        process.settles(&stage.client, moment).await;
        process.signal("TERM");
        let text = process.ends_within(Duration::from_secs(25), 0).await;
        assert!(text.contains("drained=true"), "{text}");
        for (partition, next) in &stored {
            let begins = format!("partition begins partition={TOPIC}[{partition}] offset={next} ");
            assert!(text.contains(&begins), "expected {begins:?} in:\n{text}");
        }
        assert!(stage.settled().await < stage.log.len(), "it was stopped under load");
        stored = positions(&stage.client, TOPIC).await;
        stage.assert_consistent().await;
    }
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}
