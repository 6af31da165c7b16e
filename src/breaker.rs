//! Stops the connector when nearly everything is rejected. It stands before the writer.
//!
//! A topic in which hardly a record fits the table is not a topic with some bad records: somebody has
//! changed the embedding model, or named the wrong topic. Dead letters would only copy it.
//!
//! Invariant: it counts what is durable, and judges a batch before that is written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::reject::RejectReason;

/// When it opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// The share of rejected records from which on it is too much, over 0 and up to 1. 1 never is.
    pub max_ratio: f64,
    /// Over how many records that is counted. With fewer so far it does not open.
    pub window: usize,
}

/// Counts the records of all lanes, the last `window` of them.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    counts: Mutex<Counts>,
}

/// Why it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How many records were counted.
    pub records: usize,
    /// How many of them could not be used.
    pub rejected: usize,
    /// What most of those in the last batch were rejected for.
    pub mostly: RejectReason,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of each batch, the oldest first: its records, and how many of them were rejected.
    batches: VecDeque<(usize, usize)>,
    records: usize,
    rejected: usize,
}

impl Breaker {
    /// One that has counted nothing yet.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, counts: Mutex::new(Counts::default()) }
    }

    /// Whether `batch` may be written.
    ///
    /// # Errors
    /// When with it too many of the last records would be rejected.
    pub fn judge(&self, batch: &Batch) -> Result<(), Opened> {
        let Some(mostly) = most_frequent(batch) else { return Ok(()) };
        let counts = self.lock();
        let records = counts.records + batch.records();
        let rejected = counts.rejected + batch.rejected().count();
        let is_too_much = rejected as f64 > self.settings.max_ratio * records as f64;
        if records < self.settings.window || !is_too_much {
            return Ok(());
        }
        Err(Opened { records, rejected, mostly })
    }

    /// `batch` is durable.
    pub fn count(&self, batch: &Batch) {
        let mut counts = self.lock();
        let (records, rejected) = (batch.records(), batch.rejected().count());
        counts.batches.push_back((records, rejected));
        counts.records += records;
        counts.rejected += rejected;
        while let Some((records, rejected)) = counts.batches.front().copied()
            && counts.records - records >= self.settings.window
        {
            counts.batches.pop_front();
            counts.records -= records;
            counts.rejected -= rejected;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn most_frequent(batch: &Batch) -> Option<RejectReason> {
    let mut counts: BTreeMap<RejectReason, usize> = BTreeMap::new();
    for rejected in batch.rejected() {
        *counts.entry(rejected.reject.reason).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason)
}
