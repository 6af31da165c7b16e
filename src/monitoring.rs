//! How the connector is: its phase, the reason, and what it has done so far. At the edge.
//!
//! Invariant: nothing in here holds a payload, a vector or a secret.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::commit::CommitPoint;
use crate::error::WriteError;
use crate::source::Partition;
use crate::write::Effect;

/// What the connector is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, migrating, checking.
    Starting,
    /// Reading and writing.
    Running,
    /// The target cannot be written at the moment; what failed is tried again.
    Retrying,
    /// Finishing what was taken.
    Draining,
    /// Ended well.
    Stopped,
    /// Ended with an error.
    Failed,
}

/// The connector's health at one moment.
#[derive(Clone, Debug)]
pub struct Health {
    /// What it is doing.
    pub phase: Phase,
    /// Why, in words.
    pub reason: String,
    /// How long it has been in this phase.
    pub phase_age: Duration,
    /// How long ago the last batch became durable.
    pub last_write_age: Option<Duration>,
    /// What it has done since it started.
    pub totals: Totals,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that are durable as row, deletion or dead letter, or were overtaken within a batch.
    pub records: u64,
    /// Bytes of keys and payloads of these records.
    pub bytes: u64,
    /// Transactions.
    pub batches: u64,
    /// What the transactions did.
    pub effect: Effect,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// For each partition written, the offset of the next record.
    pub next_offsets: BTreeMap<Partition, i64>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    reason: String,
    since: Instant,
    last_write: Option<Instant>,
    totals: Totals,
    /// Lanes whose last attempt failed, with the reason.
    retrying: BTreeMap<usize, String>,
    ended: bool,
}

/// Where all parts report to.
#[derive(Debug)]
pub struct Monitor {
    state: Mutex<State>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Starting,
                reason: "starting".to_owned(),
                since: Instant::now(),
                last_write: None,
                totals: Totals::default(),
                retrying: BTreeMap::new(),
                ended: false,
            }),
        }
    }
}

impl Monitor {
    /// The health now.
    pub fn health(&self) -> Health {
        let state = self.lock();
        Health {
            phase: state.phase,
            reason: state.reason.clone(),
            phase_age: state.since.elapsed(),
            last_write_age: state.last_write.map(|at| at.elapsed()),
            totals: state.totals.clone(),
        }
    }

    /// Enters a phase. Stopped and failed are final.
    pub(crate) fn enter(&self, phase: Phase, reason: impl Into<String>) {
        let mut state = self.lock();
        if !state.ended {
            state.ended = matches!(phase, Phase::Stopped | Phase::Failed);
            state.enter(phase, reason.into());
        }
    }

    /// A batch became durable.
    pub(crate) fn written(&self, batch: &Batch, effect: Effect, point: &CommitPoint) {
        let mut state = self.lock();
        state.last_write = Some(Instant::now());
        let totals = &mut state.totals;
        totals.batches += 1;
        totals.records += batch.records() as u64;
        totals.bytes += batch.source_bytes() as u64;
        totals.effect.upserted += effect.upserted;
        totals.effect.unchanged += effect.unchanged;
        totals.effect.deleted += effect.deleted;
        totals.effect.dead_lettered += effect.dead_lettered;
        for (partition, next) in point.next_offsets() {
            totals.next_offsets.insert(partition.clone(), *next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase, reason: String) {
        if self.phase != phase {
            self.since = Instant::now();
        }
        self.phase = phase;
        self.reason = reason;
    }
}

/// Reports the attempts of one lane (or of the start, which is lane 0) to the monitor and the log.
#[derive(Debug)]
pub(crate) struct LaneMonitor<'a> {
    pub(crate) monitor: &'a Monitor,
    pub(crate) lane: usize,
}

impl LaneMonitor<'_> {
    /// An attempt failed; the next comes after a pause.
    pub(crate) fn failed(&self, error: &WriteError) {
        let text = error.with_remedy();
        tracing::warn!(lane = self.lane, error = %text, "the database cannot be written; trying again");
        let mut state = self.monitor.lock();
        state.totals.retries += 1;
        if matches!(state.phase, Phase::Starting | Phase::Running) {
            state.enter(Phase::Retrying, text.clone());
        }
        state.retrying.insert(self.lane, text);
    }

    /// An attempt went through.
    pub(crate) fn recovered(&self) {
        let mut state = self.monitor.lock();
        if state.retrying.remove(&self.lane).is_none() {
            return;
        }
        tracing::info!(lane = self.lane, "the database can be written again");
        if state.phase == Phase::Retrying && state.retrying.is_empty() {
            state.enter(Phase::Running, "reading and writing".to_owned());
        }
    }
}
