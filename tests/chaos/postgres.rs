//! Postgres that crashes.

use std::time::Duration;

use crate::campaign::{Campaign, keep_ahead};
use crate::support::servers::{self, OwnServer};
use crate::support::wait::pass;

#[tokio::test]
async fn postgres_crashes_under_load_lose_nothing_and_apply_nothing_twice() {
    const STRIDE: usize = 4_000;
    let mut campaign = Campaign::new("Postgres crashes", "EMBEDSINK_POSTGRES_CRASHES", 100);
    let server = OwnServer::start("postgres", "chaos");
    while let Some(crashes) = campaign.round(25) {
        let mut stage = campaign.stage(server.port(), servers::kafka_port()).await;
        let mut process = stage.connector.start();
        for _ in 0..crashes {
            keep_ahead(&mut stage, 3 * STRIDE).await;
            if campaign.random.chance(75) {
                let moment = stage.settled().await + 1 + campaign.random.below(STRIDE);
                // All may be settled by now.
                process.settles(&stage.client, moment.min(stage.log.len())).await;
            } else {
                // Maybe before the connector has found it again.
                pass(Duration::from_millis(campaign.random.below(500) as u64)).await;
            }
            server.stop("immediate");
            server.start_again();
            stage.client = stage.database.connect().await;
            campaign.struck();
        }
        let text = stage.finish(process).await;
        assert!(text.contains("the database can be written again"), "{text}");
        campaign.verify(&stage).await;
    }
    campaign.report("");
}
