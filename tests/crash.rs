//! Promises 1 and 4: whatever ends the process, each table equals the fold of the log per key.

use std::time::{Duration, Instant};

use crate::support::postgres::positions;
use crate::support::stage::Stage;
use crate::support::turn::alone;

#[tokio::test]
async fn kill_nine_at_random_moments_loses_nothing_and_applies_nothing_twice() {
    const KILLS: usize = 25;
    let _alone = alone().await;
    let mut stage = Stage::new("kill -9", 100_000).await;

    let mut at_kills = Vec::new();
    for left in (1..=KILLS).rev() {
        let moment = stage.next_moment(left).await;
        let mut process = stage.connector.start();
        process.settles(&stage.client, moment).await;
        process.kill();
        at_kills.push(stage.settled().await);
    }
    assert!(at_kills.is_sorted_by(|earlier, later| earlier < later), "every run did some work: {at_kills:?}");
    assert!(at_kills[KILLS - 1] < stage.log.len(), "every kill came before the end: {at_kills:?}");

    stage.finish(stage.connector.start()).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn sigterm_under_load_drains_and_the_next_start_continues_at_the_next_record() {
    const DEADLINE: Duration = Duration::from_secs(25);
    let _alone = alone().await;
    let mut stage = Stage::new("SIGTERM", 40_000).await;

    let mut stored = Vec::new();
    for left in (1..=4).rev() {
        let moment = stage.next_moment(left).await;
        let mut process = stage.connector.start();
        process.settles(&stage.client, moment).await;
        let asked = Instant::now();
        process.signal("TERM");
        let text = process.ends_within(DEADLINE, 0).await;
        println!("drained within {:?}", asked.elapsed());
        assert!(text.contains("drained=true"), "{text}");
        assert_begins_at(&text, &stored);
        assert!(stage.settled().await < stage.log.len(), "it was stopped under load");
        stored = positions(&stage.client, stage.topic.name()).await;
        // A clean stop leaves exactly what it says it has written.
        stage.assert_consistent().await;
    }

    assert_begins_at(&stage.finish(stage.connector.start()).await, &stored);
    stage.assert_complete().await;
}

/// The log says that each partition began where the database has it.
fn assert_begins_at(text: &str, stored: &[(i32, i64)]) {
    for (partition, next) in stored {
        let begins =
            |line: &&str| line.contains("partition begins") && line.contains(&format!("[{partition}]"));
        let line =
            text.lines().find(begins).unwrap_or_else(|| panic!("partition {partition} began in:\n{text}"));
        assert!(line.contains(&format!("offset={next} ")), "expected {next}: {line}");
        assert!(line.contains("stored in Postgres"), "{line}");
    }
}
