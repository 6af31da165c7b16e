//! What is written again, as after a kill before the positions, changes nothing.

use crate::stage::Stage;
use crate::support::turn::alone;

#[tokio::test]
async fn records_that_come_again_double_no_row_and_no_dead_letter() {
    let _alone = alone().await;
    let mut stage = Stage::new("replay", 6_000).await;
    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
    let letters = stage.letters().await.len();
    assert!(letters > 50, "{letters} dead letters");

    stage.forget_positions().await;
    stage.produce(1_000);
    let text = stage.finish(stage.connector.start()).await;
    assert!(text.contains("[0] offset=0 origin="), "{text}");
    stage.assert_complete().await;
    assert!(stage.letters().await.len() >= letters);
}
