//! Where records come from. First stop on a record's way.
//!
//! A source knows topics, partitions and offsets, and nothing of rows or tables. It hands out
//! [`Fetched`] runs of raw records and is told, once they are durable, how far it may forget.
//!
//! Invariant: a partition delivers nothing until [`Source::begin`] names the offset to start at,
//! and every run carries the [`Tenure`] of the `begin` that caused it. A run of an older tenure
//! can therefore always be told from a current one and dropped.

mod budget;
mod fetched;
pub mod file;
#[cfg(feature = "fluvio")]
pub mod fluvio;
pub mod kafka;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::commit::CommitPoint;
use crate::framework::config::StartAt;

pub use budget::Budget;
pub use fetched::{Fetched, FetchedBuilder, Headers, HeadersBuilder, SourceRecord};

/// One partition of one topic: the unit of order. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    topic: Arc<str>,
    number: i32,
}

impl Partition {
    /// Names partition `number` (0-based, as the broker counts) of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, number: i32) -> Self {
        Self { topic: topic.into(), number }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number within its topic.
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One holding of one partition: the epoch under which the ledger gave it to this process.
///
/// A later tenure of the same partition has a larger number, whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenure(pub i64);

/// The offsets a broker can still serve of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The first offset that still exists.
    pub earliest: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

impl Retained {
    /// Whether reading can go on at `offset` without a gap: it exists, or is the very next to come.
    pub fn covers(self, offset: i64) -> bool {
        (self.earliest..=self.end).contains(&offset)
    }

    /// The offset that `start` means here. Only an absolute one can be outside of what is retained.
    pub fn resolve(self, start: StartAt) -> i64 {
        match start {
            StartAt::Beginning => self.earliest,
            StartAt::End => self.end,
            StartAt::Absolute(offset) => offset,
            StartAt::FromBeginning(records) => self.end.min(self.earliest + i64::from(records)),
            StartAt::FromEnd(records) => self.earliest.max(self.end - i64::from(records)),
        }
    }
}

/// What a source has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// This process was given these partitions. Each is announced with [`SourceEvent::Assigned`] as soon as the broker says
    /// what it holds of it, which can take as long as its leader is away.
    Given(Vec<Partition>),
    /// This process was given a partition. It delivers nothing until [`Source::begin`].
    Assigned {
        /// Which one.
        partition: Partition,
        /// What the broker holds of it at this moment.
        retained: Retained,
    },
    /// A run of consecutive records of one partition.
    Fetched(Fetched),
    /// These partitions go to somebody else. The source holds the hand-over back, for a bounded
    /// time, until `done` is dropped or used; what is written by then need not be written again.
    Revoked {
        /// Which ones.
        partitions: Vec<Partition>,
        /// Dropping or answering it lets the hand-over go on.
        done: HandOver,
    },
    /// What the broker holds by now: for each partition, the offset that its next record will get. For lag
    /// only; it may be some seconds old.
    Ends(Vec<(Partition, i64)>),
    /// Whether reading is held because the budget is used up. Sent when that changes.
    Paused(bool),
    /// Why nothing can be read at the moment, or that it can again. The source waits that out by itself.
    Trouble(Option<String>),
}

/// Permission for a revoked partition to leave. Dropping it grants the permission too, so that no
/// code path can hold a rebalance for ever.
#[derive(Debug)]
#[must_use = "dropping it at once lets the partition go before its last write is finished"]
pub struct HandOver(#[allow(dead_code, reason = "held only to be dropped")] oneshot::Sender<()>);

impl HandOver {
    /// The permission, and what the source waits on.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

/// Where positions are stored. A source does not know the target.
const STORED: &str = "embedsink.offsets (with LanceDB, in its table embedsink_offsets)";

/// Why a source cannot go on. Passing faults (a broker that is away) are not errors: the source
/// waits them out by itself.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The client could not be made from its settings.
    #[error(
        "librdkafka refuses its settings: {reason}. Look at source.kafka.properties in the configuration"
    )]
    Settings {
        /// What librdkafka said. It names properties, never the values of secret ones.
        reason: String,
    },
    /// Something that asking again will not mend.
    #[error("the source cannot be read: {reason}. {remedy}")]
    Refused {
        /// What was refused.
        reason: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The position to read from is outside of what the broker holds.
    #[error(
        "{partition}: the next record to write has offset {wanted}, but the broker holds {earliest} to {end}. \
         {cause} To go on from what is there, set this partition's row in {stored} to an offset in \
         that range (next_offset = {earliest} takes all of it), or delete the row to begin anew as \
         the configured start says",
        stored = STORED
    )]
    OutOfRange {
        /// Which partition.
        partition: Partition,
        /// The stored offset.
        wanted: i64,
        /// First offset held by the broker.
        earliest: i64,
        /// End offset of the broker.
        end: i64,
        /// What has probably happened.
        cause: &'static str,
    },
    /// The record before the stored offset is not the one that was written.
    #[error(
        "{partition}: the record at offset {offset} is not the one that was written from there: the topic was \
         deleted and created again. Nothing was written. To read the new topic from its beginning, delete this \
         topic's rows in {stored}; to go on behind the stored offset all the same, set last_offset to null \
         there",
        stored = STORED
    )]
    Recreated {
        /// Which partition.
        partition: Partition,
        /// The offset of the last record written.
        offset: i64,
    },
    /// The source's own thread is gone.
    #[error("the source stopped unexpectedly: {0}")]
    Gone(String),
}

impl SourceError {
    pub(crate) fn refused(reason: impl Into<String>, remedy: &'static str) -> Self {
        Self::Refused { reason: reason.into(), remedy }
    }

    /// The error for a stored offset that `retained` does not cover.
    pub fn out_of_range(partition: Partition, wanted: i64, retained: Retained) -> Self {
        let cause = if wanted < retained.earliest {
            "Retention has deleted what stood between the two before it was written."
        } else {
            "The topic was probably deleted and created again."
        };
        Self::OutOfRange { partition, wanted, earliest: retained.earliest, end: retained.end, cause }
    }
}

/// A stream of records in partitions, from Kafka, Fluvio or a file. One of the two seams of the house.
///
/// Contract: within one tenure a partition's records arrive in offset order, each at most once,
/// starting at the offset given to [`begin`](Source::begin), with no gap other than offsets the
/// broker itself does not serve (compaction, transaction markers) or a transform drops.
pub trait Source: Send + 'static {
    /// Waits for the next event. Cancel-safe: a dropped call loses no event.
    ///
    /// # Errors
    /// When the source cannot go on; see [`SourceError`]. It must not be called again then.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, SourceError>> + Send;

    /// Starts, or starts anew, delivery of an assigned partition at `offset`. Returns at once.
    /// Naming a partition that has been revoked or announced anew meanwhile does nothing.
    fn begin(&mut self, partition: &Partition, tenure: Tenure, offset: i64);

    /// Asks for [`SourceEvent::Assigned`] once more, with what the broker retains by then. Delivery
    /// of the partition stops until the next `begin`. Naming a revoked partition does nothing.
    fn announce(&mut self, partition: &Partition);

    /// Tells the broker how far this consumer is. Advice for lag tools only: where to go on is
    /// known by the database alone. Returns at once; a failure is logged and forgotten.
    fn commit(&mut self, point: &CommitPoint);

    /// Leaves the group and closes, within `deadline`. What had been fetched is dropped.
    fn close(self, deadline: Duration) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_to_change_a_stored_position_is_told_where_it_is_with_each_target() {
        let partition = Partition::new("t", 0);
        let retained = Retained { earliest: 5, end: 9 };
        for error in [
            SourceError::out_of_range(partition.clone(), 3, retained),
            SourceError::Recreated { partition, offset: 3 },
        ] {
            let text = error.to_string();
            assert!(text.contains("embedsink.offsets") && text.contains("embedsink_offsets"), "{text}");
        }
    }
}
