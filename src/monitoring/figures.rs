//! What the connector has done, in numbers.
//!
//! Everything here is updated once for each batch or run of records, and takes bounded memory: two
//! histograms of 17 KB at most for each [`Summary`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::dataset::DatasetFigures;
use super::health::Moment;
use super::index::IndexFigures;
use crate::reject::RejectReason;
use crate::source::Partition;
use crate::write::Effect;

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
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<RejectReason, u64>,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// The same by SQLSTATE; `connection` where the server did not give one.
    pub retries_by_state: BTreeMap<String, u64>,
    /// For each partition written, the offset of the next record.
    pub next_offsets: BTreeMap<Partition, i64>,
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// How many records.
    pub records: u64,
    /// Bytes of their keys and payloads.
    pub bytes: u64,
}

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Inserted or changed.
    pub upserted: u64,
    /// As they should be already, and left alone.
    pub unchanged: u64,
    /// Deleted.
    pub deleted: u64,
    /// Changes left out because the row they meet is newer (`stale-writes: skip`).
    pub stale: u64,
}

/// Records that are kept because they cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// All of them.
    pub total: u64,
    /// By the words of [`RejectReason`]; only those that occurred.
    pub by_reason: BTreeMap<String, u64>,
}

/// Attempts that failed and were made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// All of them.
    pub total: u64,
    /// By SQLSTATE; `connection` where the server did not give one.
    pub by_sqlstate: BTreeMap<String, u64>,
}

/// How a quantity is distributed.
///
/// `count` and `sum` are since the start. The quantiles and the maximum are over the last 5 to 10 minutes,
/// and `None` if nothing happened in that time. The quantiles are exact to 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How often it was measured.
    pub count: u64,
    /// All values together.
    pub sum: f64,
    /// The median.
    pub p50: Option<f64>,
    /// One in a hundred is larger.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// Bytes of records that were read and not taken into batches yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Taken now.
    pub used_bytes: u64,
    /// The budget.
    pub limit_bytes: u64,
}

/// One partition that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFigures {
    /// The topic.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: i32,
    /// The epoch under which it is held.
    pub epoch: i64,
    /// The offset of the next record to write; all before it is durable.
    pub next_offset: i64,
    /// The offset that the next record of the topic will get, as the source told it last.
    pub end_offset: Option<i64>,
    /// See [`Lag::records`](super::Lag::records).
    pub lag: Option<u64>,
}

/// What the connector is, and has done since it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Its name: `meta.name`.
    pub connector: String,
    /// The version of embedsink.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: Moment,
    /// What the source delivered. Includes records that are read again after a retake or as witness.
    pub received: Flow,
    /// What is durable: as row, deletion or dead letter, or overtaken within its batch.
    pub settled: Flow,
    /// What became of rows.
    pub rows: Rows,
    /// Records that cannot be used.
    pub dead_letters: DeadLetters,
    /// Attempts that failed.
    pub retries: Retries,
    /// Transactions.
    pub batches: u64,
    /// Records of a batch. The limit is `batch.max-rows`.
    pub batch_records: Summary,
    /// Bytes that a batch took in memory. The limit is `batch.max-bytes`.
    pub batch_bytes: Summary,
    /// Seconds of the attempt that made a batch durable. Attempts that failed, and pauses, do not count.
    pub write_seconds: Summary,
    /// Seconds from a record's timestamp to its being durable, for every record that has a timestamp.
    /// A timestamp of the future counts as 0.
    pub record_age_seconds: Summary,
    /// The byte budget between source and batches.
    pub buffer: Buffer,
    /// The partitions that are held, by topic and number.
    pub partitions: Vec<PartitionFigures>,
    /// The vector indexes, by table in the order of the configuration. Empty until the tables are checked.
    #[serde(default)]
    pub indexes: Vec<IndexFigures>,
    /// The tables of the LanceDB dataset, by name. Empty where the target is another, and until they are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dataset: Vec<DatasetFigures>,
}

/// What is known of a partition that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) epoch: i64,
    pub(super) next_offset: i64,
    pub(super) end: Option<i64>,
}

impl Held {
    pub(super) fn lag(self) -> Option<u64> {
        // The end may be older than the last write.
        self.end.map(|end| u64::try_from(end - self.next_offset).unwrap_or(0))
    }
}

/// How long one half of a distribution collects.
const HALF: Duration = Duration::from_secs(5 * 60);

/// The values of one half.
#[derive(Debug)]
struct Half {
    values: Histogram<u32>,
    largest: u64,
}

/// Values since the start, and their distribution over the last one to two halves.
#[derive(Debug)]
pub(super) struct Distribution {
    /// How many of the recorded unit make one of the told unit.
    scale: f64,
    count: u64,
    sum: u64,
    current: Half,
    previous: Half,
    turned: Instant,
}

impl Half {
    fn clear(&mut self) {
        self.values.reset();
        self.largest = 0;
    }
}

impl Distribution {
    /// For values from 0 to `most`; larger ones count as `most`. `scale` of them make one of the unit that is told.
    pub(super) fn new(most: u64, scale: f64) -> Self {
        let empty = || {
            let values = Histogram::new_with_bounds(1, most, 2);
            Half { values: values.expect("the bounds are constants that a histogram can have"), largest: 0 }
        };
        Self { scale, count: 0, sum: 0, current: empty(), previous: empty(), turned: Instant::now() }
    }

    pub(super) fn record(&mut self, value: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.current.values.saturating_record(value);
        self.current.largest = self.current.largest.max(value.min(self.current.values.high()));
    }

    /// Forgets what is too old. Called before values are recorded, and before they are told.
    pub(super) fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.turned);
        if age < HALF {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if age >= 2 * HALF {
            self.previous.clear();
        }
        self.turned = now;
    }

    pub(super) fn summary(&self) -> Summary {
        let mut recent = self.previous.values.clone();
        recent.add(&self.current.values).expect("both halves have the same bounds");
        let largest = self.previous.largest.max(self.current.largest);
        // A quantile is rounded up, and must not pass the maximum.
        let told = |value: u64| (!recent.is_empty()).then_some(value.min(largest) as f64 / self.scale);
        Summary {
            count: self.count,
            sum: self.sum as f64 / self.scale,
            p50: told(recent.value_at_quantile(0.5)),
            p99: told(recent.value_at_quantile(0.99)),
            max: told(largest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_one_percent_and_come_in_base_units() {
        let mut times = Distribution::new(3_600_000_000, 1e6);
        assert_eq!(times.summary(), Summary::default());
        for millis in 1..=1_000_u64 {
            times.record(millis * 1_000);
        }
        let summary = times.summary();
        let near = |value: Option<f64>, wanted: f64| {
            let value = value.expect("a value");
            assert!((value / wanted - 1.0).abs() < 0.01, "{value} is not {wanted}");
        };
        assert_eq!(summary.count, 1_000);
        assert!((summary.sum - 500.5).abs() < 1e-9, "{}", summary.sum);
        near(summary.p50, 0.5);
        near(summary.p99, 0.99);
        assert_eq!(summary.max, Some(1.0), "the maximum is exact");
    }

    #[test]
    fn a_value_beyond_the_bounds_counts_as_the_largest() {
        let mut sizes = Distribution::new(1_000, 1.0);
        sizes.record(u64::MAX);
        sizes.record(0);
        assert_eq!(sizes.summary().count, 2);
        assert_eq!(sizes.summary().max, Some(1_000.0));
    }

    #[test]
    fn quantiles_forget_what_is_older_than_ten_minutes_and_counts_do_not() {
        let mut sizes = Distribution::new(1_000, 1.0);
        let start = sizes.turned;
        sizes.record(900);
        sizes.turn(start + HALF);
        sizes.record(10);
        assert!(sizes.summary().max.is_some_and(|max| max >= 900.0), "one half is kept");
        sizes.turn(start + 2 * HALF);
        assert_eq!(sizes.summary().max, Some(10.0), "and then goes");
        sizes.turn(start + 4 * HALF);
        assert_eq!(sizes.summary(), Summary { count: 2, sum: 910.0, ..Summary::default() });
    }

    #[test]
    fn a_lag_is_never_negative_and_unknown_without_an_end() {
        let held = |next_offset, end| Held { epoch: 1, next_offset, end };
        assert_eq!(held(5, None).lag(), None);
        assert_eq!(held(5, Some(9)).lag(), Some(4));
        assert_eq!(held(9, Some(5)).lag(), Some(0), "an end that is older than the last write");
    }
}
