//! Commits whose answer never comes.

use std::time::Duration;

use crate::campaign::Campaign;
use crate::support::proxy::{Loss, Proxy};
use crate::support::servers;
use crate::support::wait::until;

#[tokio::test]
async fn commits_whose_answer_is_swallowed_are_applied_once() {
    let mut campaign = Campaign::new("swallowed commits", "EMBEDSINK_COMMITS", 200);
    let proxy = Proxy::before(servers::postgres_port()).await;
    let mut number = 0;
    while let Some(commits) = campaign.round(50) {
        let mut stage = campaign.stage(servers::postgres_port(), servers::kafka_port()).await;
        let url = stage
            .database
            .url()
            .replace(&format!(":{}/", servers::postgres_port()), &format!(":{}/", proxy.port()));
        stage.connector.postgres = format!("url: {url}\n");
        let mut process = stage.connector.start();
        for _ in 0..commits {
            // Half are cut at once; the others hear nothing for a while before they are.
            number += 1;
            let silence = Duration::from_millis(campaign.random.below(1_500) as u64);
            let loss = if number % 2 == 0 { Loss::Answer } else { Loss::AnswerAfter(silence) };
            let settled = stage.settled().await;
            stage.produce(2_000);
            let moment = settled + 1 + campaign.random.below(1_500);
            process.settles(&stage.client, moment.min(stage.log.len() - 1)).await;
            proxy.lose_at("select; commit", loss);
            // If all was written already, the words are still to come.
            stage.produce(500);
            until("a swallowed commit", async || proxy.has_lost().then_some(())).await;
            campaign.struck();
        }
        let text = stage.finish(process).await;
        let retries = text.matches("trying again").count();
        assert!(retries >= commits, "the connector noticed {retries} of {commits}:\n{text}");
        campaign.verify(&stage).await;
    }
    campaign.report("");
}
