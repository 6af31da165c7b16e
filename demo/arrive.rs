//! The way into Postgres, seen from outside: positions, rows, and when the last record has arrived.
//!
//! A record counts as arrived when its row is in the table and the connector's stored position has
//! passed it. The second half makes a repeated run count too, where all rows are there beforehand.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;
use tokio_postgres::Client;

use crate::produce::{Deliveries, Place};
use crate::settings::Settings;

/// The time between two looks at Postgres.
const POLL: Duration = Duration::from_millis(25);

/// How long the connector may take to come up and take its partitions.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long the records may take to arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);

/// The connector's stored position in one partition.
pub(crate) struct Stand {
    /// The partition.
    pub(crate) partition: i32,
    /// The offset of the next record to write.
    pub(crate) next_offset: i64,
    /// How often the partition has been taken.
    pub(crate) epoch: i64,
}

/// The figures of one run.
pub(crate) struct Report {
    /// How many records were produced.
    pub(crate) produced: usize,
    /// How many of their rows are in the table.
    pub(crate) rows: usize,
    /// How many rows were not there before.
    pub(crate) new: usize,
    /// How many rows were there and have been written anew.
    pub(crate) changed: usize,
    /// How many rows are still the same version that was there before.
    pub(crate) unchanged: usize,
    /// The time from the first produce to the last row visible.
    pub(crate) took: Duration,
}

/// The version of each row, by id. Postgres writes a new version whenever a row is updated.
type Versions = HashMap<String, String>;

/// The rows that should arrive, and their versions before the run.
pub(crate) struct Expected {
    ids: Vec<String>,
    before: Versions,
}

impl Expected {
    /// Notes the rows that are there already.
    pub(crate) async fn read(postgres: &Client, ids: impl Iterator<Item = String>) -> Result<Self> {
        let ids: Vec<String> = ids.collect();
        let before = versions(postgres, &ids).await?;
        Ok(Self { ids, before })
    }

    /// Compares the rows with what was there before.
    async fn report(&self, postgres: &Client, took: Duration) -> Result<Report> {
        let after = versions(postgres, &self.ids).await?;
        let unchanged = after.iter().filter(|(id, version)| self.before.get(*id) == Some(version)).count();
        let new = after.keys().filter(|id| !self.before.contains_key(*id)).count();
        Ok(Report {
            produced: self.ids.len(),
            rows: after.len(),
            new,
            changed: after.len() - new - unchanged,
            unchanged,
            took,
        })
    }
}

/// Reads the version of each of the rows: the transaction that wrote it and its place on disk.
async fn versions(postgres: &Client, ids: &[String]) -> Result<Versions> {
    let sql = "select id, xmin::text || ' ' || ctid::text from embeddings where id = any($1)";
    let rows = postgres.query(sql, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The connector's positions in the topic.
pub(crate) async fn offsets(postgres: &Client, settings: &Settings) -> Result<Vec<Stand>> {
    let sql = "select partition::int4, next_offset::int8, epoch::int8 from embedsink.offsets \
               where connector = $1 and topic = $2 order by partition";
    let rows = postgres.query(sql, &[&settings.name, &settings.topic]).await?;
    let stands =
        rows.iter().map(|row| Stand { partition: row.get(0), next_offset: row.get(1), epoch: row.get(2) });
    Ok(stands.collect())
}

/// The epoch of each partition. There are none before the connector's first start.
pub(crate) async fn epochs(postgres: &Client, settings: &Settings) -> Result<HashMap<i32, i64>> {
    let sql = "select to_regclass('embedsink.offsets') is not null and to_regclass('embeddings') is not null";
    if !postgres.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return Ok(HashMap::new());
    }
    let stands = offsets(postgres, settings).await?;
    Ok(stands.into_iter().map(|stand| (stand.partition, stand.epoch)).collect())
}

/// Waits until the connector has made its tables and taken every partition: each epoch has risen.
pub(crate) async fn ready(
    postgres: &Client,
    settings: &Settings,
    partitions: usize,
    before: &HashMap<i32, i64>,
) -> Result<()> {
    let started = Instant::now();
    let mut poll = interval(POLL);
    loop {
        poll.tick().await;
        let now = epochs(postgres, settings).await?;
        let taken = now.iter().filter(|(partition, epoch)| before.get(partition) < Some(epoch)).count();
        if taken >= partitions {
            return Ok(());
        }
        if started.elapsed() > READY_DEADLINE {
            bail!(
                "The connector took {taken} of {partitions} partitions within {} s. \
                 Does another connector named {} still run?",
                READY_DEADLINE.as_secs(),
                settings.name
            );
        }
    }
}

/// Counts the records as they arrive, until all are there.
pub(crate) async fn follow(
    postgres: &Client,
    settings: &Settings,
    expected: &Expected,
    deliveries: &Deliveries,
) -> Result<Report> {
    let total = expected.ids.len();
    let started = Instant::now();
    let bar = progress_bar(total)?;
    let mut poll = interval(POLL);
    loop {
        poll.tick().await;
        // The positions come first: whatever they have passed must already be in the table.
        let passed = passed(&offsets(postgres, settings).await?, &deliveries.places());
        let rows = visible(postgres, &expected.ids).await?;
        bar.set_position(passed.min(rows) as u64);
        if passed == total && rows == total {
            let took = started.elapsed();
            bar.finish();
            return expected.report(postgres, took).await;
        }
        if passed == total {
            bar.abandon();
            bail!(
                "The connector has passed all {total} records, but only {rows} rows are there. \
                 Look at embedsink.dead_letters: {}",
                settings.psql()?
            );
        }
        if started.elapsed() > ARRIVAL_DEADLINE {
            bar.abandon();
            bail!(
                "After {} s {rows} of {total} rows are there, and the connector has passed {passed} records.",
                ARRIVAL_DEADLINE.as_secs()
            );
        }
    }
}

/// How many of the delivered records lie before the stored positions.
fn passed(stands: &[Stand], places: &[Place]) -> usize {
    let next: HashMap<i32, i64> = stands.iter().map(|stand| (stand.partition, stand.next_offset)).collect();
    places.iter().filter(|place| next.get(&place.partition) > Some(&place.offset)).count()
}

/// How many of the rows a reader of the table sees now.
async fn visible(postgres: &Client, ids: &[String]) -> Result<usize> {
    let row = postgres.query_one("select count(*) from embeddings where id = any($1)", &[&ids]).await?;
    Ok(usize::try_from(row.get::<_, i64>(0))?)
}

/// The bar that shows the arrivals.
fn progress_bar(total: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("[{bar:40}] {pos:>5} of {len} records visible in Postgres")?;
    Ok(ProgressBar::new(total as u64).with_style(style.progress_chars("=> ")))
}
