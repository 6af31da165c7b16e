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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// More rejected records than this in a thousand are too many, 1 to 1000. 1000 never are.
    pub max_ratio_permille: u32,
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
        let is_too_much = rejected * 1_000 > self.settings.max_ratio_permille as usize * records;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Place;
    use crate::reject::Reject;
    use crate::route::{Router, TableLimits};
    use crate::source::{Headers, Partition, SourceRecord, Tenure};

    /// A batch of `records`, of which the first `rejected` cannot be used.
    fn batch(records: usize, rejected: usize) -> Batch {
        let limits = TableLimits {
            name: "t".to_owned(),
            dimensions: 1,
            max_id_chars: None,
            max_source_chars: None,
            skip_stale: false,
        };
        let mut batch = Batch::new(0, &Router::new(vec![limits]));
        let partition = Partition::new("topic", 0);
        for offset in 0..records {
            let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
            let offset = offset as i64;
            let record = SourceRecord {
                offset,
                timestamp: None,
                key: Some(b"a"),
                payload: None,
                headers: Headers::default(),
                omitted: 0,
            };
            if (offset as usize) < rejected {
                let reject = Reject::new(RejectReason::WrongDimension, "3, not 1");
                batch.reject(&place, &record, None, reject);
            } else {
                batch.delete(&place, &record, "a");
            }
        }
        batch
    }

    fn breaker(max_ratio_permille: u32) -> Breaker {
        Breaker::new(BreakerSettings { max_ratio_permille, window: 100 })
    }

    #[test]
    fn it_opens_when_more_than_the_ratio_of_the_window_is_rejected() {
        let breaker = breaker(900);
        breaker.count(&batch(50, 50));
        assert_eq!(breaker.judge(&batch(49, 49)), Ok(()), "too few to tell");
        assert_eq!(breaker.judge(&batch(50, 40)), Ok(()), "exactly the ratio");
        let opened = Opened { records: 100, rejected: 91, mostly: RejectReason::WrongDimension };
        assert_eq!(breaker.judge(&batch(50, 41)), Err(opened));
        assert_eq!(breaker.judge(&batch(50, 40)), Ok(()), "what was not written does not count");
    }

    #[test]
    fn what_lies_before_the_window_no_longer_counts() {
        let breaker = breaker(900);
        for _ in 0..20 {
            breaker.count(&batch(10, 0));
        }
        let mut opened = 0;
        for _ in 0..20 {
            match breaker.judge(&batch(10, 10)) {
                Ok(()) => breaker.count(&batch(10, 10)),
                Err(_) => opened += 1,
            }
        }
        assert!(opened > 0, "the good records of long ago do not hide the bad ones of now");
    }

    #[test]
    fn a_ratio_of_one_never_opens_and_a_good_batch_always_passes() {
        let never = breaker(1_000);
        never.count(&batch(500, 500));
        assert_eq!(never.judge(&batch(500, 500)), Ok(()));
        let breaker = breaker(1);
        breaker.count(&batch(200, 0));
        assert!(breaker.judge(&batch(10, 10)).is_err());
        assert_eq!(breaker.judge(&batch(10, 0)), Ok(()));
    }
}
