//! Instances that join and leave.

use std::time::Duration;

use crate::campaign::{Campaign, keep_ahead};
use crate::support::connector::{Process, SHORT_SESSION};
use crate::support::servers;
use crate::support::stage::Stage;
use crate::support::wait::{pass, until};

const STRIDE: usize = 2_000;

#[tokio::test]
async fn instances_that_join_and_leave_write_everything_once() {
    let mut campaign = Campaign::new("rebalances", "EMBEDSINK_REBALANCES", 200);
    // Started, stopped, killed, frozen for longer than the session.
    let mut events = [0; 4];
    for strategy in ["cooperative-sticky", "range"].iter().cycle() {
        let Some(rebalances) = campaign.round(25) else { break };
        let mut stage = campaign.stage(servers::postgres_port(), servers::kafka_port()).await;
        let properties =
            SHORT_SESSION.replace('}', &format!(", partition.assignment.strategy: {strategy}}}"));
        stage.connector.kafka = stage.connector.kafka.replace(SHORT_SESSION, &properties);
        let mut instances = vec![stage.connector.start()];
        for _ in 0..rebalances {
            keep_ahead(&mut stage, 3 * STRIDE).await;
            if campaign.random.chance(75) {
                settle_some(&stage, campaign.random.below(STRIDE)).await;
            } else {
                // Maybe into the rebalance before.
                pass(Duration::from_millis(campaign.random.below(1_000) as u64)).await;
            }
            let kind = match instances.len() {
                1 => 0,
                2 if campaign.random.chance(50) => 0,
                _ => 1 + campaign.random.below(3),
            };
            events[kind] += 1;
            let which = campaign.random.below(instances.len());
            match kind {
                0 => instances.push(stage.connector.start()),
                1 => leave(instances.swap_remove(which)).await,
                2 => drop(instances.swap_remove(which).kill()),
                _ => freeze(&instances[which], &stage).await,
            }
            campaign.struck();
        }
        settle_some(&stage, 0).await;
        let last = instances.remove(0);
        for instance in instances {
            leave(instance).await;
        }
        stage.finish(last).await;
        campaign.verify(&stage).await;
    }
    let [started, stopped, killed, frozen] = events;
    campaign.report(&format!(" ({started} joined, {stopped} left, {killed} killed, {frozen} frozen)"));
}

/// Waits until so many records more are settled, by whichever instance.
async fn settle_some(stage: &Stage, count: usize) {
    let wanted = stage.settled().await + 1 + count;
    let wanted = wanted.min(stage.log.len());
    until("records to be settled", async || (stage.settled().await >= wanted).then_some(())).await;
}

/// Stops a process until others have what it had, and lets it go on with batches in hand that are not its own.
async fn freeze(process: &Process, stage: &Stage) {
    process.signal("STOP");
    pass(Duration::from_millis(2_000)).await;
    settle_some(stage, 0).await;
    process.signal("CONT");
}

/// SIGTERM, a drain, exit code 0. Before its first line a process does not listen for signals yet.
async fn leave(mut instance: Process) {
    instance.logs(1, "embedsink: ").await;
    instance.stop().await;
}
