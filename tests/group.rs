//! Several instances of one connector share its partitions, and none writes what another has.

use tokio_postgres::Client;

use crate::support::connector::Process;
use crate::support::stage::Stage;
use crate::support::turn::alone;
use crate::support::wait::until;

#[tokio::test]
async fn two_instances_that_join_and_leave_under_load_write_everything_once() {
    let _alone = alone().await;
    let mut stage = Stage::new("two instances", 80_000).await;

    let mut a = stage.connector.start();
    let moment = stage.next_moment(6).await;
    a.settles(&stage.client, moment).await;
    let mut b = stage.connector.start();
    b.logs(1, "partition begins").await;
    let moment = stage.next_moment(5).await;
    b.settles(&stage.client, moment).await;
    a.stop().await;
    let mut a = stage.connector.start();
    a.logs(1, "partition begins").await;
    let moment = stage.next_moment(4).await;
    a.settles(&stage.client, moment).await;
    b.kill();
    let moment = stage.next_moment(3).await;
    a.settles(&stage.client, moment).await;
    let mut b = stage.connector.start();
    let mut c = stage.connector.start();
    b.logs(1, "partition begins").await;
    c.logs(1, "partition begins").await;
    let moment = stage.next_moment(2).await;
    a.settles(&stage.client, moment).await;
    a.kill();
    let moment = stage.next_moment(1).await;
    c.settles(&stage.client, moment).await;
    assert!(stage.settled().await < stage.log.len(), "all of this happened under load");
    b.stop().await;

    stage.finish(c).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn an_instance_stopped_past_its_session_writes_nothing_of_what_it_has_lost() {
    let _alone = alone().await;
    let mut stage = Stage::new("SIGSTOP", 60_000).await;

    let mut a = stage.connector.start();
    let moment = stage.next_moment(3).await;
    a.settles(&stage.client, moment).await;
    a.signal("STOP");
    let sessions = sessions(&stage.client).await;
    let mut b = stage.connector.start();
    b.logs(4, "partition begins").await;
    let moment = stage.next_moment(1).await;
    b.settles(&stage.client, moment).await;
    let moves = moves_of(&stage.client, &sessions).await;

    // It has batches in hand, and does not know yet that they are no longer its own.
    a.signal("CONT");
    until("the continued instance to notice", async || {
        let noticed = ["has taken this partition", "lost=true", "revoked by the group"];
        noticed.iter().any(|text| !a.lines_with(text).is_empty()).then_some(())
    })
    .await;
    assert_eq!(moves_of(&stage.client, &sessions).await, moves, "its old sessions moved nothing after that");

    // It joins again, and both go on.
    let begins = a.lines_with("partition begins").len();
    a.logs(begins + 1, "partition begins").await;
    stage.produce(20_000);
    b.settles(&stage.client, stage.log.len()).await;
    stops(a, b).await;
    stage.assert_complete().await;
}

async fn stops(a: Process, b: Process) {
    a.stop().await;
    b.stop().await;
}

/// The server's processes that serve connectors.
async fn sessions(client: &Client) -> Vec<i32> {
    let sql = "select pid from pg_stat_activity where application_name like 'embedsink %' \
               and datname = current_database()";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// How often these sessions have moved a position.
async fn moves_of(client: &Client, sessions: &[i32]) -> i64 {
    let sql = "select count(*) from audit.moves where session = any($1)";
    client.query_one(sql, &[&sessions]).await.unwrap().get(0)
}
