//! Hours of full load with a fault every 20 seconds: memory, file descriptors, lag and rate stay as they were.
//!
//! One instance lives from the beginning to the end, so that a leak would show. What is killed and stopped is a
//! second one, which takes half of the partitions before.

mod load;
mod plot;
mod sample;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::connector::{Connector, Process};
use crate::support::kafka::Topic;
use crate::support::postgres::{Database, one};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::record::Shape;
use crate::support::servers::OwnServer;
use crate::support::wait::{pass, until};

use load::Load;
use sample::{Sample, Sampler};

/// What the load is of. Ids come again and again, so that the table stays as large as it is.
const SHAPE: Shape =
    Shape { tables: &[("embeddings", 384)], partitions: 4, ids: 20_000, tombstones: 5, damaged: 0 };

/// From one fault to the next.
const EVERY: Duration = Duration::from_secs(20);

/// How long the connection to Postgres is silent, and how long a second instance runs.
const STALL: Duration = Duration::from_secs(5);

/// The faults, in turn.
const FAULTS: [&str; 7] = [
    "kill -9",
    "sessions terminated",
    "Postgres crash",
    "broker crash",
    "5 s of silence",
    "rebalance",
    "poisoned records",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_full_load_and_a_fault_every_20_seconds_nothing_grows_and_nothing_is_lost() {
    let minutes: f64 = std::env::var("MINUTES").map_or(30.0, |minutes| minutes.parse().unwrap());
    let length = Duration::from_secs_f64(minutes * 60.0);
    let (postgres, kafka) = (OwnServer::start("postgres", "soak"), OwnServer::start("kafka", "soak"));
    let database = Database::create_on(postgres.port()).await;
    let topic = Topic::create_on(kafka.port(), SHAPE.partitions).await;
    let proxy = Proxy::before(postgres.port()).await;
    let mut connector = Connector::new(&topic, &database, &SHAPE);
    connector.migrate().await;
    let url = database.url().replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.port()));
    connector.postgres = format!("url: {url}\n");
    connector.kafka.push_str("properties: {session.timeout.ms: 3000, heartbeat.interval.ms: 500}");

    let load = Load::start(&topic, Random::new("soak"));
    let process = connector.start();
    let sampler = Sampler::start(process.id(), &database, topic.name(), &load).await;
    let mut stand = Stand {
        connector,
        database: &database,
        proxy: &proxy,
        postgres: &postgres,
        kafka: &kafka,
        load: &load,
    };
    let since = Instant::now();
    let mut faults = Vec::new();
    for (number, fault) in FAULTS.into_iter().cycle().enumerate() {
        let due = EVERY * (number as u32 + 1);
        if due + EVERY > length {
            break;
        }
        pass(due.saturating_sub(since.elapsed())).await;
        faults.push((since.elapsed().as_secs(), fault));
        println!("{:>5} s: {fault}, {} records settled", since.elapsed().as_secs(), sampler.settled());
        stand.strike(fault).await;
    }
    pass(length.saturating_sub(since.elapsed())).await;
    let mut expected = load.finish();
    until("everything to be settled", async || (sampler.settled() == expected.records).then_some(())).await;
    let samples = sampler.finish();
    process.stop().await;

    write_table(&samples, &faults);
    let figure = plot::draw(&samples, &faults);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/soak.svg"), figure).unwrap();
    expected.compare(&database.connect().await).await;
    println!(
        "soak: {minutes} minutes, {} faults, {} records, {} dead letters, 0 lost, 0 regressions",
        faults.len(),
        expected.records,
        expected.dead
    );
    assert_flat(&samples);
}

/// What the faults happen to.
struct Stand<'a> {
    connector: Connector,
    database: &'a Database,
    proxy: &'a Proxy,
    postgres: &'a OwnServer,
    kafka: &'a OwnServer,
    load: &'a Load,
}

impl Stand<'_> {
    async fn strike(&mut self, fault: &str) {
        match fault {
            "kill -9" => drop(self.second().await.kill()),
            "rebalance" => drop(self.second().await.stop().await),
            "sessions terminated" => {
                let client = self.database.connect().await;
                let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                           where application_name like 'embedsink %' and application_name <> 'embedsink tests'";
                assert!(one::<i64>(&client, sql).await > 0, "the connector has sessions");
            }
            "Postgres crash" => restart(self.postgres, "immediate"),
            "broker crash" => restart(self.kafka, "kill"),
            "poisoned records" => self.load.poison(),
            _ => {
                self.proxy.set_stalled(true);
                pass(STALL).await;
                self.proxy.set_stalled(false);
            }
        }
    }

    /// A second instance, which has had its share for a while.
    async fn second(&mut self) -> Process {
        let mut process = self.connector.start();
        process.logs(1, "partition begins").await;
        pass(STALL).await;
        process
    }
}

fn restart(server: &OwnServer, mode: &str) {
    tokio::task::block_in_place(|| {
        server.stop(mode);
        server.start_again();
    });
}

fn write_table(samples: &[Sample], faults: &[(u64, &str)]) {
    let mut table = String::from("second,rss_kib,file_descriptors,lag_records,settled_per_second,fault\n");
    for sample in samples {
        let Sample { second, memory, descriptors, lag, rate } = sample;
        let fault = faults.iter().find(|(at, _)| at == second).map_or("", |(_, fault)| fault);
        table.push_str(&format!("{second},{memory},{descriptors},{lag},{rate},{fault}\n"));
    }
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("soak.csv"), table).unwrap();
}

/// Nothing grows from the first third of the time to the last.
fn assert_flat(samples: &[Sample]) {
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let mean =
        |part: &[Sample], of: fn(&Sample) -> u64| part.iter().map(of).sum::<u64>() as f64 / part.len() as f64;
    let memory = [first, last].map(|part| mean(part, |sample| sample.memory) / 1024.0);
    let descriptors = [first, last].map(|part| mean(part, |sample| sample.descriptors));
    let rate = [first, last].map(|part| mean(part, |sample| sample.rate));
    let lag = samples.iter().map(|sample| sample.lag).max().unwrap_or(0);
    println!(
        "first and last third: {memory:.1?} MiB, {descriptors:.1?} descriptors, {rate:.0?} records/s; \
         lag up to {lag}"
    );
    assert!(memory[1] <= memory[0] * 1.15, "memory grew: {memory:?} MiB");
    assert!(descriptors[1] <= descriptors[0] + 2.0, "file descriptors grew: {descriptors:?}");
    assert!(lag <= load::MOST + load::POISON, "the backlog is bounded: {lag}");
    assert!(rate[1] >= rate[0] * 0.7, "it became slower: {rate:?} records/s");
}
