//! The lifecycle: stopped under load, and started again.

use std::time::Duration;

use crate::stage::Stage;
use crate::support::turn::alone;

#[tokio::test]
async fn sigterm_under_load_drains_and_the_next_start_goes_on_at_the_stored_positions() {
    let _alone = alone().await;
    let stage = Stage::new("SIGTERM over LanceDB", 20_000).await;
    for moment in [1, 4_000, 9_000] {
        let before = stage.positions().await;
        let mut process = stage.connector.start();
        stage.settles(&mut process, moment).await;
        process.signal("TERM");
        let text = process.ends_within(Duration::from_secs(25), 0).await;
        assert!(text.contains("drained=true"), "{text}");
        for (partition, next) in &before {
            let begins = format!("[{partition}] offset={next} origin=\"stored in LanceDB\"");
            assert!(text.contains(&begins), "{begins} in {text}");
        }
        stage.assert_consistent().await;
    }
    assert!(stage.settled().await < stage.log.len(), "it was stopped under load");
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}
