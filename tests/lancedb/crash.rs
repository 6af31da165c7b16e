//! Whatever ends the process, each table equals the fold of the log per key.

use std::time::Duration;

use crate::stage::Stage;
use crate::support::wait::pass;

#[tokio::test]
async fn kill_nine_at_random_moments_loses_nothing_and_leaves_every_key_once() {
    const KILLS: usize = 50;
    const STRIDE: usize = 1_500;
    let mut stage = Stage::new("kill -9 over LanceDB", 100_000).await;
    // A batch is several commits, so that a kill comes in the middle of one.
    stage.connector.more = "batch: {max-rows: 1000, max-wait: 20ms, linger: 5ms}".to_owned();
    let kafka = stage.connector.kafka.clone();

    let mut before = stage.positions().await;
    for left in (1..=KILLS).rev() {
        let settled = before.values().sum::<i64>() as usize;
        // More than the connector settles while the test looks at it once, for each kill that is to come.
        let wanted = settled + (left + 1) * STRIDE;
        if stage.log.len() < wanted {
            stage.produce(wanted - stage.log.len());
        }
        // Three quarters of an even share on average, so that little is left in the end.
        let share = (stage.log.len() - settled) / (left + 1);
        let moment = settled + 1 + stage.generator.random.below(share * 3 / 2);
        // In the same group the broker would wait for the killed member's session to end. Positions do not belong to it.
        stage.connector.kafka = format!("{kafka}\ngroup-id: {}-{left}", stage.connector.name());
        let mut process = stage.connector.start();
        stage.settles(&mut process, moment).await;
        pass(Duration::from_micros(stage.generator.random.below(200_000) as u64)).await;
        process.kill();
        let after = stage.positions().await;
        assert!(before.iter().all(|(partition, next)| after[partition] >= *next), "{before:?} {after:?}");
        stage.assert_consistent().await;
        before = after;
    }
    assert!(
        before.values().sum::<i64>() < stage.log.len() as i64,
        "every kill came before the end: {before:?}"
    );

    stage.connector.more = "batch: {max-rows: 5000}".to_owned();
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}
