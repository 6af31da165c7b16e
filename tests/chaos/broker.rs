//! A broker that is killed.

use crate::campaign::{Campaign, keep_ahead};
use crate::support::servers::{self, OwnServer};

#[tokio::test]
async fn broker_crashes_under_load_lose_nothing_and_apply_nothing_twice() {
    const STRIDE: usize = 4_000;
    let mut campaign = Campaign::new("broker crashes", "EMBEDSINK_BROKER_CRASHES", 50);
    let server = OwnServer::start("kafka", "chaos");
    assert!(
        server.is_durable(),
        "this needs Apache Kafka: a broker that forgets its log has nothing to lose"
    );
    while let Some(crashes) = campaign.round(25) {
        let mut stage = campaign.stage(servers::postgres_port(), server.port()).await;
        let mut process = stage.connector.start();
        for _ in 0..crashes {
            keep_ahead(&mut stage, 3 * STRIDE).await;
            let moment = stage.settled().await + 1 + campaign.random.below(STRIDE);
            // All may be settled by now.
            process.settles(&stage.client, moment.min(stage.log.len())).await;
            server.stop("kill");
            server.start_again();
            campaign.struck();
        }
        stage.finish(process).await;
        campaign.verify(&stage).await;
    }
    campaign.report("");
}
