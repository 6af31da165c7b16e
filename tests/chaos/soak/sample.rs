//! What is looked at every second.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Config, NoTls};

use super::load::{Load, Shared};
use crate::support::postgres::Database;

/// One second of the connector's life.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) second: u64,
    /// Resident, in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
    /// Records written into the topic that are not settled.
    pub(crate) lag: u64,
    /// Records settled per second.
    pub(crate) rate: u64,
}

/// A task that samples.
pub(crate) struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins to sample the process.
    pub(crate) async fn start(process: u32, database: &Database, topic: &str, load: &Load) -> Self {
        let (samples, shared, stop) = (Arc::default(), load.shared(), Arc::default());
        let mut eye = Eye {
            process,
            url: database.url(),
            topic: topic.to_owned(),
            client: Some(database.connect().await),
            positions: Vec::new(),
        };
        let (own_samples, own_shared, own_stop) =
            (Arc::clone(&samples), Arc::clone(&shared), Arc::clone(&stop));
        let task = tokio::spawn(async move { eye.watch(&own_samples, &own_shared, &own_stop).await });
        Self { samples, shared, stop, task }
    }

    /// How many records are settled.
    pub(crate) fn settled(&self) -> u64 {
        assert!(!self.task.is_finished(), "the sampler looks on");
        self.shared.settled.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Eye {
    process: u32,
    url: String,
    topic: String,
    client: Option<Client>,
    positions: Vec<(i32, i64)>,
}

impl Eye {
    async fn watch(&mut self, samples: &Mutex<Vec<Sample>>, shared: &Shared, stop: &AtomicBool) {
        let since = Instant::now();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut last_at) = (0, since);
        loop {
            second.tick().await;
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.look().await;
            let settled: u64 = self.positions.iter().map(|(_, next)| *next as u64).sum();
            shared.settled.store(settled, Ordering::Relaxed);
            let took = last_at.elapsed().as_secs_f64().max(0.001);
            let sample = Sample {
                second: since.elapsed().as_secs(),
                memory: self.memory(),
                descriptors: fs::read_dir(format!("/proc/{}/fd", self.process)).unwrap().count() as u64,
                lag: shared.produced.load(Ordering::Relaxed).saturating_sub(settled),
                rate: ((settled - last) as f64 / took) as u64,
            };
            (last, last_at) = (settled, Instant::now());
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
    }

    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("the connector runs");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Reads the positions, if Postgres answers at once.
    async fn look(&mut self) {
        let Ok(found) = tokio::time::timeout(Duration::from_millis(900), self.read()).await else {
            self.client = None;
            return;
        };
        let Some(found) = found else {
            self.client = None;
            return;
        };
        for (partition, next) in &self.positions {
            let now = found.iter().find(|(number, _)| number == partition);
            assert!(now.is_some_and(|(_, now)| now >= next), "partition {partition} went back from {next}");
        }
        self.positions = found;
    }

    async fn read(&mut self) -> Option<Vec<(i32, i64)>> {
        if self.client.is_none() {
            let (client, connection) = self.url.parse::<Config>().unwrap().connect(NoTls).await.ok()?;
            tokio::spawn(connection);
            self.client = Some(client);
        }
        let sql = "select partition, next_offset from embedsink.offsets where topic = $1 order by partition";
        let rows = self.client.as_ref()?.query(sql, &[&self.topic]).await.ok()?;
        Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
