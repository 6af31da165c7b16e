//! `kill -9` at random moments of many short runs.

use std::time::Duration;

use crate::campaign::{Campaign, keep_ahead};
use crate::support::servers;
use crate::support::wait::pass;

/// Longer than a run needs to begin to write, so that kills fall before, into and behind each step of a start.
const LONGEST_RUN_MS: usize = 300;

/// As many records as a run settles at most before it is killed.
const STRIDE: usize = 1_500;

#[tokio::test]
async fn kill_nine_at_random_moments_loses_nothing_and_applies_nothing_twice() {
    let mut campaign = Campaign::new("kill -9", "EMBEDSINK_KILLS", 1_000);
    // How far the killed were: nothing taken, all taken and nothing written, writing.
    let mut killed = [0; 3];
    while let Some(kills) = campaign.round(50) {
        let mut stage = campaign.stage(servers::postgres_port(), servers::kafka_port()).await;
        stage.connector.more = "batch: {max-rows: 250, max-wait: 10ms}".to_owned();
        let kafka = stage.connector.kafka.clone();
        for run in 0..kills {
            keep_ahead(&mut stage, 2 * STRIDE).await;
            // A group of its own: it need not wait until the one before is missed. Positions stand in Postgres.
            stage.connector.kafka = format!("{kafka}\ngroup-id: {}-{run}", stage.connector.name());
            let before = stage.settled().await;
            let mut process = stage.connector.start();
            if campaign.random.chance(50) {
                process.settles(&stage.client, before + 1 + campaign.random.below(STRIDE)).await;
            } else {
                let moment = campaign.random.below(LONGEST_RUN_MS * 1_000);
                pass(Duration::from_micros(moment as u64)).await;
            }
            let begun = process.kill().contains("partition begins");
            let wrote = stage.settled().await > before;
            killed[usize::from(begun || wrote) + usize::from(wrote)] += 1;
            campaign.struck();
        }
        stage.finish(stage.connector.start()).await;
        campaign.verify(&stage).await;
    }
    let [early, begun, writing] = killed;
    campaign.report(&format!(
        " (killed: {early} before a partition began, {begun} before the first write, {writing} while writing)"
    ));
}
