//! The connector, as it is shipped, over a backlog that stands in a topic.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_postgres::Client;

use crate::cpu;
use crate::stand::Stand;
use crate::support::connector::{Connector, Process};

/// How often is looked. The clock is off by no more than that.
const LOOK: Duration = Duration::from_millis(5);
/// The same where that takes seconds: to look costs the server time, too.
const SELDOM: Duration = Duration::from_millis(50);

/// What taking a backlog took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    records: usize,
    /// From the start of the process to the last record settled.
    pub(crate) took: Duration,
    /// From the start of the process to the first record settled.
    pub(crate) first: Duration,
    /// Records a second from the first settled to the last.
    pub(crate) steady: f64,
    /// CPU seconds of the connector, the broker and Postgres.
    pub(crate) cpu: [f64; 3],
    /// The most memory that the connector had resident, in bytes.
    pub(crate) peak: u64,
}

impl Drain {
    /// Records a second, from the start of the process to the last record settled.
    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64()
    }
}

/// A connector at work on a backlog.
pub(crate) struct Work {
    process: Process,
    connector: String,
    records: usize,
    since: Instant,
    before: [f64; 2],
}

impl Work {
    /// Starts the process.
    pub(crate) fn start(stand: &Stand, connector: &Connector, records: usize) -> Self {
        let before = stand.cpu();
        let since = Instant::now();
        Self { process: connector.start(), connector: connector.name().to_owned(), records, since, before }
    }

    /// Waits until all records are settled, and looks what that took.
    pub(crate) async fn settle(&self, stand: &Stand, client: &Client) -> Result<Drain> {
        let sql = "select coalesce(sum(next_offset), 0)::int8 from embedsink.offsets where connector = $1";
        let sql = client.prepare(sql).await?;
        let mut first = None;
        loop {
            let settled: i64 = client.query_one(&sql, &[&self.connector]).await?.get(0);
            let now = self.since.elapsed();
            if settled > 0 {
                first.get_or_insert((now, settled));
            }
            if settled as usize >= self.records {
                break;
            }
            self.look(LOOK).await?;
        }
        let took = self.since.elapsed();
        let (first, settled) = first.unwrap_or((took, 0));
        let after = stand.cpu();
        Ok(Drain {
            records: self.records,
            took,
            first,
            steady: (self.records - settled as usize) as f64 / (took - first).as_secs_f64(),
            cpu: [cpu::seconds(self.process.id()), after[0] - self.before[0], after[1] - self.before[1]],
            peak: self.process.memory("VmHWM") * 1024,
        })
    }

    /// Waits until `probe` finds something to be so, and returns how long it took from the start of the process.
    pub(crate) async fn until(&self, mut probe: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
        while !probe().await? {
            self.look(SELDOM).await?;
        }
        Ok(self.since.elapsed())
    }

    /// Lets a moment pass.
    async fn look(&self, moment: Duration) -> Result<()> {
        tokio::time::sleep(moment).await;
        if cpu::has_ended(self.process.id()) {
            let log = self.process.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            anyhow::bail!("the connector ended before it had settled {} records:\n{end}", self.records);
        }
        Ok(())
    }

    /// Stops the connector. Its sessions have ended when this returns.
    pub(crate) async fn stop(self, client: &Client) -> Result<()> {
        self.process.stop().await;
        let sql = "select count(*) from pg_stat_activity \
                   where application_name = $1 and datname = current_database()";
        let name = format!("embedsink {}", self.connector);
        let since = Instant::now();
        while client.query_one(sql, &[&name]).await?.get::<_, i64>(0) > 0 {
            ensure!(since.elapsed() < Duration::from_secs(10), "the sessions of {name} do not end");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Takes the whole backlog, and stops the connector.
pub(crate) async fn drain(
    stand: &Stand,
    connector: &Connector,
    client: &Client,
    records: usize,
) -> Result<Drain> {
    let work = Work::start(stand, connector, records);
    let drain = work.settle(stand, client).await?;
    work.stop(client).await?;
    Ok(drain)
}
