//! How the connector is: its phase, the reason, and what it has done so far. At the edge.
//!
//! All parts report to one [`Monitor`]; `health.rs` makes one phase of it, `figures.rs` the numbers. Who
//! wants to publish them reads a [`Report`], as [`framework::monitoring`](crate::framework::monitoring)
//! does.
//!
//! Invariant: nothing in here holds a payload, a key, a vector or a secret.

mod dataset;
mod figures;
mod health;
mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::commit::CommitPoint;
use crate::error::{ConnectorError, WriteError};
use crate::index::Look;
use crate::source::{Budget, Fetched, Partition, Tenure};
use crate::write::Receipt;

pub use dataset::{DatasetFigures, StoredTable, UpkeepFigures};
pub use figures::{Buffer, DeadLetters, Figures, Flow, PartitionFigures, Retries, Rows, Summary, Totals};
pub use health::{Health, Lag, LastError, Moment, Phase};
pub use index::{IndexFigures, IndexProgress, IndexState};

use dataset::Kept;
use figures::{Distribution, Held};
use health::{Course, Mark};

/// Health and figures of the same moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How the connector is.
    pub health: Health,
    /// What it has done.
    pub sink: Figures,
}

#[derive(Debug)]
struct State {
    course: Course,
    last_write: Option<Mark>,
    last_error: Option<(String, Mark)>,
    received: Flow,
    totals: Totals,
    batch_records: Distribution,
    batch_bytes: Distribution,
    write_time: Distribution,
    record_age: Distribution,
    held: BTreeMap<Partition, Held>,
    /// Given to this process, and not read yet or not any more.
    awaited: BTreeSet<Partition>,
    /// By table, in the order of the configuration.
    indexes: Vec<IndexFigures>,
    /// The tables of a LanceDB dataset, by name.
    dataset: BTreeMap<String, Kept>,
}

/// Where all parts report to: once for each batch, run or event, never for each record.
#[derive(Debug)]
pub struct Monitor {
    connector: String,
    budget: Budget,
    started: Mark,
    state: Mutex<State>,
}

/// More than any batch holds; `batch.max-rows` ends at 100,000.
const MOST_RECORDS: u64 = 1_000_000;
/// More than any batch takes: `batch.max-bytes` ends at 256 MiB, and one larger record passes alone.
const MOST_BYTES: u64 = 1 << 32;
/// An hour, in microseconds.
const MOST_MICROS: u64 = 3_600_000_000;
/// Some ten years, in milliseconds.
const MOST_MILLIS: u64 = 316_000_000_000;

impl Monitor {
    /// For the connector of this name, which reads within `budget`. It is starting.
    pub fn new(connector: impl Into<String>, budget: Budget) -> Self {
        let state = State {
            course: Course::new(),
            last_write: None,
            last_error: None,
            received: Flow::default(),
            totals: Totals::default(),
            batch_records: Distribution::new(MOST_RECORDS, 1.0),
            batch_bytes: Distribution::new(MOST_BYTES, 1.0),
            write_time: Distribution::new(MOST_MICROS, 1e6),
            record_age: Distribution::new(MOST_MILLIS, 1e3),
            held: BTreeMap::new(),
            awaited: BTreeSet::new(),
            indexes: Vec::new(),
            dataset: BTreeMap::new(),
        };
        Self { connector: connector.into(), budget, started: Mark::now(), state: Mutex::new(state) }
    }

    /// The health now.
    pub fn health(&self) -> Health {
        self.lock().health()
    }

    /// Health and figures now.
    pub fn report(&self) -> Report {
        let mut state = self.lock();
        let state = &mut *state;
        state.turn(Instant::now());
        let totals = &state.totals;
        let sink = Figures {
            connector: self.connector.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.moment(),
            received: state.received,
            settled: Flow { records: totals.records, bytes: totals.bytes },
            rows: Rows {
                upserted: totals.effect.upserted,
                unchanged: totals.effect.unchanged,
                deleted: totals.effect.deleted,
                stale: totals.effect.stale,
            },
            dead_letters: DeadLetters {
                total: totals.effect.dead_lettered,
                by_reason: totals
                    .dead_letters
                    .iter()
                    .map(|(reason, count)| (reason.to_string(), *count))
                    .collect(),
            },
            retries: Retries { total: totals.retries, by_sqlstate: totals.retries_by_state.clone() },
            batches: totals.batches,
            batch_records: state.batch_records.summary(),
            batch_bytes: state.batch_bytes.summary(),
            write_seconds: state.write_time.summary(),
            record_age_seconds: state.record_age.summary(),
            buffer: Buffer { used_bytes: self.budget.used() as u64, limit_bytes: self.budget.bytes() as u64 },
            partitions: state.held.iter().map(partition_figures).collect(),
            indexes: state.indexes.clone(),
            dataset: state.dataset.values().map(Kept::figures).collect(),
        };
        Report { health: state.health(), sink }
    }

    /// The counts so far.
    pub(crate) fn totals(&self) -> Totals {
        self.lock().totals.clone()
    }

    /// Enters a stage of life. Stopped and failed are final.
    pub(crate) fn enter(&self, phase: Phase, reason: impl Into<String>) {
        self.lock().course.enter(phase, reason.into());
    }

    /// The connector ended with this error.
    pub(crate) fn failed(&self, error: &ConnectorError) {
        let text = match error.remedy() {
            Some(remedy) => format!("{error}. {remedy}"),
            None => error.to_string(),
        };
        let mut state = self.lock();
        state.last_error = Some((text.clone(), Mark::now()));
        state.course.enter(Phase::Failed, text);
    }

    /// A run of records came from the source.
    pub(crate) fn received(&self, run: &Fetched) {
        let mut state = self.lock();
        state.received.records += run.len() as u64;
        state.received.bytes += run.bytes() as u64;
    }

    /// These partitions are ours, and have still to begin.
    pub(crate) fn awaits(&self, partitions: &[Partition]) {
        self.lock().awaited.extend(partitions.iter().cloned());
    }

    /// Reading of a partition begins at `next_offset`; the source said that it ends at `end`.
    pub(crate) fn begins(&self, partition: &Partition, tenure: Tenure, next_offset: i64, end: i64) {
        let held = Held { epoch: tenure.0, next_offset, end: Some(end) };
        let mut state = self.lock();
        state.held.insert(partition.clone(), held);
        state.awaited.remove(partition);
        state.course.enter(Phase::Running, "reading and writing".to_owned());
    }

    /// These partitions are no longer ours.
    pub(crate) fn released(&self, partitions: &[Partition]) {
        let mut state = self.lock();
        for partition in partitions {
            state.held.remove(partition);
            state.awaited.remove(partition);
        }
    }

    /// The source told where partitions end.
    pub(crate) fn ends(&self, ends: &[(Partition, i64)]) {
        let mut state = self.lock();
        for (partition, end) in ends {
            if let Some(held) = state.held.get_mut(partition) {
                held.end = Some(*end);
            }
        }
    }

    /// Why the source cannot be read, or that it can again.
    pub(crate) fn trouble(&self, trouble: Option<String>) {
        let mut state = self.lock();
        if let Some(text) = &trouble {
            state.last_error = Some((text.clone(), Mark::now()));
        }
        state.course.trouble(trouble);
    }

    /// The source holds reading, or goes on with it.
    pub(crate) fn paused(&self, paused: bool) {
        self.lock().course.pause(paused);
    }

    /// A batch became durable, by an attempt that took `took`.
    pub(crate) fn written(&self, batch: &Batch, receipt: &Receipt, point: &CommitPoint, took: Duration) {
        let (mark, now, effect) = (Mark::now(), Timestamp::now().as_millisecond(), receipt.effect());
        let mut state = self.lock();
        let state = &mut *state;
        state.last_write = Some(mark);
        let totals = &mut state.totals;
        totals.batches += 1;
        totals.records += batch.records() as u64;
        totals.bytes += batch.source_bytes() as u64;
        totals.effect.add(effect);
        for rejected in batch.rejected() {
            *totals.dead_letters.entry(rejected.reject.reason).or_default() += 1;
        }
        for (partition, next) in point.next_offsets() {
            totals.next_offsets.insert(partition.clone(), *next);
            // One that was released meanwhile is somebody else's to tell about.
            if let Some(held) = state.held.get_mut(partition) {
                held.next_offset = *next;
            }
        }
        state.turn(Instant::now());
        state.batch_records.record(batch.records() as u64);
        state.batch_bytes.record(batch.bytes() as u64);
        state.write_time.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        for timestamp in batch.timestamps() {
            // 6 ns each, measured; taking a record in and writing it costs some 25 µs.
            state.record_age.record(u64::try_from(now.saturating_sub(timestamp)).unwrap_or(0));
        }
    }

    /// How far a table's index is.
    pub(crate) fn index(&self, table: &str, progress: IndexProgress) {
        let mut state = self.lock();
        match state.indexes.iter_mut().find(|known| known.table == table) {
            Some(known) => known.progress = progress,
            None => state.indexes.push(IndexFigures { table: table.to_owned(), progress }),
        }
    }

    /// Whether a table's index could not be built.
    #[cfg(feature = "lancedb")]
    pub(crate) fn index_has_failed(&self, table: &str) -> bool {
        let has_failed =
            |index: &IndexFigures| index.table == table && index.progress.state == IndexState::Failed;
        self.lock().indexes.iter().any(has_failed)
    }

    /// What is written to is a dataset, and not a database. Said at the start.
    #[cfg(feature = "lancedb")]
    pub(crate) fn writes_to_a_dataset(&self) {
        self.lock().course.writes_to_a_dataset();
    }

    /// What there is of a table of the dataset.
    #[cfg(feature = "lancedb")]
    pub(crate) fn stored(&self, stored: StoredTable) {
        let table = stored.table.clone();
        self.lock().dataset.entry(table).or_default().stored = stored;
    }

    /// A table of the dataset was tidied, which freed so many bytes; or why it was not.
    #[cfg(feature = "lancedb")]
    pub(crate) fn tidied(&self, table: &str, outcome: Result<u64, String>) {
        let mut state = self.lock();
        let kept = state.dataset.entry(table.to_owned()).or_default();
        kept.stored.table = table.to_owned();
        kept.tidied(outcome);
    }

    /// What the connector is doing, for those who wait for a good moment.
    pub(crate) fn look(&self) -> Look {
        let state = self.lock();
        let lags = state.held.values().map(|held| held.lag());
        Look {
            partitions: state.held.len(),
            awaited: state.awaited.len(),
            lag: lags.sum(),
            in_flight: self.budget.used(),
            settled: state.totals.records,
        }
    }

    /// The partitions that it holds, and where each ends as the source told it last.
    pub(crate) fn ends_held(&self) -> Vec<(Partition, Option<i64>)> {
        self.lock().held.iter().map(|(partition, held)| (partition.clone(), held.end)).collect()
    }

    /// Whether a table's index is configured and not there.
    pub(crate) fn lacks_an_index(&self) -> bool {
        let is_there = [IndexState::None, IndexState::ByHand, IndexState::Ready];
        self.lock().indexes.iter().any(|index| !is_there.contains(&index.progress.state))
    }

    /// Whether a table's index is being built.
    pub(crate) fn builds_an_index(&self) -> bool {
        self.lock().indexes.iter().any(|index| index.progress.state == IndexState::Building)
    }

    /// The connector's name.
    pub(crate) fn connector(&self) -> &str {
        &self.connector
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn(&mut self, now: Instant) {
        for distribution in
            [&mut self.batch_records, &mut self.batch_bytes, &mut self.write_time, &mut self.record_age]
        {
            distribution.turn(now);
        }
    }

    fn health(&self) -> Health {
        let (phase, reason, since) = self.course.shown(Instant::now());
        let lag = self.held.iter().map(|(partition, held)| Lag {
            topic: partition.topic().to_owned(),
            partition: partition.number(),
            records: held.lag(),
        });
        Health {
            phase,
            reason,
            since: since.moment(),
            last_write: self.last_write.map(Mark::moment),
            last_error: self
                .last_error
                .as_ref()
                .map(|(text, mark)| LastError { text: text.clone(), when: mark.moment() }),
            lag: lag.collect(),
        }
    }
}

fn partition_figures((partition, held): (&Partition, &Held)) -> PartitionFigures {
    PartitionFigures {
        topic: partition.topic().to_owned(),
        partition: partition.number(),
        epoch: held.epoch,
        next_offset: held.next_offset,
        end_offset: held.end,
        lag: held.lag(),
    }
}

/// Reports the attempts of one lane (or of the start, which is lane 0) to the monitor and the log.
#[derive(Debug)]
pub(crate) struct LaneMonitor<'a> {
    pub(crate) monitor: &'a Monitor,
    pub(crate) lane: usize,
}

impl LaneMonitor<'_> {
    /// An attempt begins.
    pub(crate) fn begins(&self) {
        self.monitor.lock().course.attempt_begins(self.lane);
    }

    /// An attempt failed; the next comes after a pause.
    pub(crate) fn failed(&self, error: &WriteError) {
        let text = error.with_remedy();
        let what = error.what();
        tracing::warn!(lane = self.lane, error = %text, "{what} cannot be written; trying again");
        let mut state = self.monitor.lock();
        state.totals.retries += 1;
        let cause = error.cause().to_owned();
        *state.totals.retries_by_state.entry(cause).or_default() += 1;
        state.last_error = Some((text.clone(), Mark::now()));
        state.course.attempt_failed(self.lane, text);
    }

    /// An attempt went through.
    pub(crate) fn recovered(&self) {
        let mut state = self.monitor.lock();
        if state.course.attempt_succeeded(self.lane) {
            tracing::info!(lane = self.lane, "{} can be written again", state.course.target());
        }
    }
}

#[cfg(test)]
mod tests;
