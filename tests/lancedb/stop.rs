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

#[tokio::test]
async fn a_stop_does_not_wait_for_an_upkeep_that_is_under_way() {
    let _alone = alone().await;
    let mut stage = Stage::new("SIGTERM in an upkeep", 20_000).await;
    stage.connector.more = "batch: {max-rows: 100, max-wait: 20ms, linger: 5ms}".to_owned();
    let mut process = stage.connector.start();
    stage.settles(&mut process, 6_000).await;
    process.stop().await;
    // There are so many versions now that the first batch of each start is followed by upkeep.
    let mut broken_off = 0;
    for _ in 0..6 {
        let before = stage.settled().await;
        let mut process = stage.connector.start();
        stage.settles(&mut process, before + 1).await;
        process.signal("TERM");
        let text = process.ends_within(Duration::from_secs(25), 0).await;
        assert!(text.contains("drained=true"), "{text}");
        broken_off += usize::from(text.contains("upkeep is left to the next start"));
        stage.assert_consistent().await;
    }
    println!("{broken_off} of 6 stops came in an upkeep");
    assert!(broken_off > 0, "a stop came in an upkeep");
    stage.connector.more = "batch: {max-rows: 2000}".to_owned();
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}
