//! Servers that go away and come back, or take their time: the connector waits, and loses nothing.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::connector::{Connector, Process};
use crate::support::fault::{self, When};
use crate::support::kafka::Topic;
use crate::support::model::assert_fold_of_all;
use crate::support::postgres::{self, Database, positions, settled};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::record::Generator;
use crate::support::servers::{self, OwnServer};
use crate::support::stage::{MIXED, Stage};
use crate::support::turn::alone;
use crate::support::wait::until;

#[tokio::test]
async fn postgres_restarted_and_its_backends_terminated_under_load_lose_nothing() {
    let _alone = alone().await;
    let server = OwnServer::start("postgres", "restart");
    let mut stage = Stage::on(server.port(), servers::kafka_port(), "Postgres restarted", 80_000).await;
    let mut process = stage.connector.start();

    for left in (1..=8).rev() {
        let moment = stage.next_moment(left).await;
        process.settles(&stage.client, moment).await;
        if left % 3 == 0 {
            server.stop(if left == 6 { "immediate" } else { "fast" });
            server.start_again();
            stage.client = stage.database.connect().await;
        } else {
            terminate_backends(&stage.client).await;
        }
    }
    assert!(stage.settled().await < stage.log.len(), "all of this happened under load");
    assert!(!process.lines_with("trying again").is_empty(), "the connector noticed");

    let text = stage.finish(process).await;
    assert!(text.contains("the database can be written again"), "{text}");
    stage.assert_complete().await;
}

async fn terminate_backends(client: &Client) {
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name like 'embedsink %' and application_name <> 'embedsink tests'";
    assert!(postgres::one::<i64>(client, sql).await > 0, "the connector has sessions");
}

#[tokio::test]
async fn a_broker_restarted_under_load_loses_nothing() {
    let _alone = alone().await;
    let server = OwnServer::start("kafka", "restart");
    let mut stage = Stage::on(servers::postgres_port(), server.port(), "broker restarted", 60_000).await;
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;
    let killed = process.logged();
    server.stop("kill");
    process.logs_behind(killed, 1, "librdkafka").await;
    let before = positions(&stage.client, stage.topic.name()).await;
    server.start_again();

    if server.is_durable() {
        stage.produce(30_000);
        let moment = stage.next_moment(1).await;
        process.settles(&stage.client, moment).await;
        server.stop("fast");
        server.start_again();
        stage.finish(process).await;
        stage.assert_complete().await;
    } else {
        // This broker came back empty. What was written stays, and nothing is begun anew in silence.
        let text = process.ends_with(1).await;
        assert!(
            text.contains("there is no topic") || text.contains("the next record to write has offset"),
            "{text}"
        );
        let after = positions(&stage.client, stage.topic.name()).await;
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?} {after:?}");
        stage.assert_consistent().await;
    }
}

#[tokio::test]
async fn a_postgres_that_is_down_at_start_is_waited_for() {
    let _alone = alone().await;
    let server = OwnServer::start("postgres", "down");
    let database = Database::create_on(server.port()).await;
    let topic = Topic::create(MIXED.partitions).await;
    let log = Generator::new(Random::new("down at start"), MIXED).records(2_000);
    topic.produce(&log);
    server.stop("fast");

    let connector = Connector::restless(&topic, &database, &MIXED);
    let mut process = connector.start();
    process.logs(3, "trying again").await;
    server.start_again();
    let client = database.connect().await;
    process.settles(&client, log.len()).await;
    process.stop().await;
    assert_fold_of_all(&client, &MIXED, topic.name(), &log).await;
}

#[tokio::test]
async fn a_table_locked_for_longer_than_any_timeout_does_not_cost_the_group_membership() {
    /// Longer than the session, than max.poll.interval.ms, and than a write waits for a lock.
    const LOCKED: Duration = Duration::from_secs(15);
    let _alone = alone().await;
    let mut stage = Stage::new("locked table", 30_000).await;
    stage.connector.kafka = stage.connector.kafka.replace(
        "properties: {session.timeout.ms: 1500,",
        "properties: {session.timeout.ms: 6000, max.poll.interval.ms: 10000,",
    );
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;

    let locker = stage.database.connect().await;
    postgres::run(&locker, "begin; lock table embeddings in exclusive mode").await;
    let since = Instant::now();
    // That nothing happens for some time can only be seen by letting that time pass.
    until("the timeouts to pass", async || (since.elapsed() > LOCKED).then_some(())).await;
    assert!(stage.settled().await < stage.log.len(), "the lock held it up");
    process.logs(1, "a lock was not free in time").await;
    postgres::run(&locker, "commit").await;

    let text = stage.finish(process).await;
    assert_eq!(text.matches("assigned by the group").count(), 1, "{text}");
    assert_eq!(text.matches("revoked by the group").count(), 0, "{text}");
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_broker_that_is_down_at_start_is_waited_for() {
    let _alone = alone().await;
    let server = OwnServer::start("kafka", "down");
    let database = Database::create().await;
    let topic = Topic::create_on(server.port(), MIXED.partitions).await;
    let log = Generator::new(Random::new("broker down at start"), MIXED).records(2_000);
    topic.produce(&log);
    server.stop("fast");

    let connector = Connector::restless(&topic, &database, &MIXED);
    let mut process: Process = connector.start();
    process.logs(1, "librdkafka").await;
    server.start_again();
    if server.is_durable() {
        let client = database.connect().await;
        process.settles(&client, log.len()).await;
        process.stop().await;
        assert_fold_of_all(&client, &MIXED, topic.name(), &log).await;
    } else {
        assert!(process.ends_with(1).await.contains("there is no topic"));
        assert_eq!(settled(&database.connect().await).await, 0);
    }
}

#[tokio::test]
async fn writing_resumes_within_the_longest_pause_and_two_seconds_after_postgres_is_back() {
    /// The longest pause between two attempts.
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);
    /// By then the pauses of two lanes have grown to the longest.
    const FAILURES: usize = 20;
    let _alone = alone().await;
    let server = OwnServer::start("postgres", "back");
    let mut stage = Stage::on(server.port(), servers::kafka_port(), "Postgres is back", 60_000).await;
    let mut process = stage.connector.start();
    let moment = stage.next_moment(2).await;
    process.settles(&stage.client, moment).await;
    let stopped = process.logged();
    server.stop("immediate");
    process.logs_behind(stopped, FAILURES, "trying again").await;

    server.start_again();
    let since = Instant::now();
    stage.client = stage.database.connect().await;
    let settled = stage.settled().await;
    assert!(settled < stage.log.len(), "it was stopped under load");
    process.settles(&stage.client, settled + 1).await;
    let took = since.elapsed();
    println!("writing resumed after {took:?}");
    assert!(took < LONGEST_PAUSE + Duration::from_secs(2), "writing resumed after {took:?}");
    stage.finish(process).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn another_instance_resumes_within_the_session_timeout_and_two_seconds_after_kill_nine() {
    /// That of `SHORT_SESSION`.
    const SESSION: Duration = Duration::from_millis(1_500);
    let _alone = alone().await;
    let mut stage = Stage::new("another instance", 20_000).await;
    let a = stage.connector.start();
    let mut b = stage.connector.start();
    b.logs(1, "partition begins").await;
    b.settles(&stage.client, stage.log.len()).await;
    let before = positions(&stage.client, stage.topic.name()).await;
    a.kill();
    let since = Instant::now();
    stage.produce(2_000);
    // Those of the other one move at once.
    b.until("every partition to go on", async |_| {
        let now = positions(&stage.client, stage.topic.name()).await;
        now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
    })
    .await;
    let took = since.elapsed();
    println!("every partition went on after {took:?}");
    assert!(took < SESSION + Duration::from_secs(2), "every partition went on after {took:?}");
    stage.finish(b).await;
    stage.assert_complete().await;
}

#[tokio::test]
async fn a_commit_that_fails_for_now_is_tried_again_until_it_goes_through() {
    for (sqlstate, when) in [("40001", When::AtCommit), ("55P03", When::AtOnce), ("53100", When::AtCommit)] {
        let stage = Stage::new("a fault that passes", 4_000).await;
        fault::refuse(&stage.client, "embeddings", "doc-", sqlstate, when).await;
        let mut process = stage.connector.start();
        process.logs(3, "trying again").await;
        assert_eq!(stage.settled().await, 0, "nothing moves before");
        fault::lift(&stage.client, "embeddings").await;
        let text = stage.finish(process).await;
        assert!(text.contains(sqlstate), "{text}");
        stage.assert_complete().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_slow_or_cut_after_any_number_of_bytes_loses_nothing() {
    const CUTS: usize = 12;
    let _alone = alone().await;
    let mut stage = Stage::new("cut after some bytes", 40_000).await;
    let proxy = Proxy::before(servers::postgres_port()).await;
    stage.connector.postgres = stage
        .connector
        .postgres
        .replace(&format!(":{}/", servers::postgres_port()), &format!(":{}/", proxy.port()));
    let mut process = stage.connector.start();
    for left in (1..=CUTS).rev() {
        let moment = stage.next_moment(left).await;
        process.settles(&stage.client, moment).await;
        proxy.set_delay(Duration::from_millis(stage.generator.random.below(3) as u64));
        proxy.cut_after(1 + stage.generator.random.below(200_000));
        process.until("the cut", async |_| proxy.has_lost().then_some(())).await;
    }
    proxy.set_delay(Duration::ZERO);
    stage.finish(process).await;
    stage.assert_complete().await;
}

/// Whether reading is held, by what was logged last of it.
fn is_held(process: &Process) -> bool {
    let log = process.log();
    let last = |text: &str| log.rfind(text);
    last("partitions are paused") > last("partitions are read again")
}

#[tokio::test]
async fn a_broker_that_crashes_while_the_database_is_away_and_reading_is_held_is_read_on() {
    let _alone = alone().await;
    let (postgres, kafka) = (OwnServer::start("postgres", "both"), OwnServer::start("kafka", "both"));
    let mut stage = Stage::on(postgres.port(), kafka.port(), "both away", 60_000).await;
    // A budget that is used up at once.
    stage.connector.more = "batch: {max-rows: 500, max-wait: 20ms, max-bytes: 256KiB}".to_owned();
    stage.connector.log = "info,embedsink=debug";
    let mut process = stage.connector.start();
    for round in 1..=2 {
        let moment = stage.next_moment(3 - round).await;
        process.settles(&stage.client, moment).await;
        postgres.stop("immediate");
        let stopped = process.logged();
        // More than the budget, and nothing of it can be settled.
        stage.produce(20_000);
        process.logs_behind(stopped, 1, "trying again").await;
        // With this budget reading is held and goes on all the time.
        process.until("reading to be held", async |process| is_held(process).then_some(())).await;
        let crashed = process.logged();
        kafka.stop("kill");
        process.logs_behind(crashed, 1, "lost=true").await;
        assert!(is_held(&process), "nothing was read since");
        kafka.start_again();
        postgres.start_again();
        stage.client = stage.database.connect().await;
    }
    if kafka.is_durable() {
        stage.finish(process).await;
        stage.assert_complete().await;
    }
}
