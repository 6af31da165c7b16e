//! The phases, and what is told about the connector's health.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the connector is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Connecting, migrating, checking, waiting for partitions.
    Starting,
    /// Reading and writing.
    Running,
    /// The target cannot be written at the moment, or the source not be read; what failed is tried again.
    Retrying,
    /// Reading is held: the byte budget is used up, since the target is slower than the source.
    Paused,
    /// Finishing what was taken.
    Draining,
    /// Ended well.
    Stopped,
    /// Ended with an error.
    Failed,
}

impl Phase {
    /// Every phase, in the order of a connector's life.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Running,
        Self::Retrying,
        Self::Paused,
        Self::Draining,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word that stands in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether records are being written: running, paused (the target is slow, not away) or draining.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Draining)
    }
}

/// A moment of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock: RFC 3339, UTC, to the millisecond.
    pub at: String,
    /// How long ago that was, in seconds, by a clock that nobody sets.
    pub age_seconds: f64,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// What it was, as the log says it. Holds no payload, key, vector or secret.
    pub text: String,
    /// When.
    #[serde(flatten)]
    pub when: Moment,
}

/// How far one partition is behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: i32,
    /// The end that the source told last, less the next offset to write. `None` while no end is known.
    /// The end may be some seconds old. Offsets that hold no record (transaction markers) count too.
    pub records: Option<u64>,
}

/// The connector's health at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// What it is doing.
    pub phase: Phase,
    /// Why, in words.
    pub reason: String,
    /// Since when it has been in this phase.
    pub since: Moment,
    /// When the last batch became durable.
    pub last_write: Option<Moment>,
    /// What went wrong last, also when it is over.
    pub last_error: Option<LastError>,
    /// The partitions that are held, by topic and number.
    pub lag: Vec<Lag>,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    wall: Timestamp,
    steady: Instant,
}

impl Mark {
    pub(super) fn now() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }

    pub(super) fn moment(self) -> Moment {
        let millis = self.steady.elapsed().as_millis() as f64;
        Moment { at: format!("{:.3}", self.wall), age_seconds: millis / 1e3 }
    }
}

/// How long a batch may take before the target counts as not answering. Waiting for a lock ends sooner, with an
/// error. A batch into a large HNSW index takes many seconds and is no stall; the default `statement-timeout` of 2
/// minutes is later than an operator wants to know.
const STALL: Duration = Duration::from_secs(30);

/// The words for a target.
#[derive(Debug)]
struct Words {
    name: &'static str,
    starting: &'static str,
    slower: &'static str,
}

const DATABASE: &Words = &Words {
    name: "the database",
    starting: "connecting to the database",
    slower: "reading is held: the database is slower than the source",
};

#[cfg(feature = "lancedb")]
const DATASET: &Words = &Words {
    name: "the dataset",
    starting: "opening the dataset",
    slower: "reading is held: the dataset is slower than the source",
};

/// From what is known of the parts to the one phase that is shown.
#[derive(Debug)]
pub(super) struct Course {
    target: &'static Words,
    stage: Phase,
    reason: String,
    /// Lanes whose last attempt failed, with the error.
    retrying: BTreeMap<usize, String>,
    /// Lanes that wait for the target, and since when.
    waiting: BTreeMap<usize, Mark>,
    /// Why the source cannot be read, while it cannot.
    trouble: Option<String>,
    paused: bool,
    shown: Phase,
    since: Mark,
}

impl Course {
    pub(super) fn new() -> Self {
        Self {
            target: DATABASE,
            stage: Phase::Starting,
            reason: DATABASE.starting.to_owned(),
            retrying: BTreeMap::new(),
            waiting: BTreeMap::new(),
            trouble: None,
            paused: false,
            shown: Phase::Starting,
            since: Mark::now(),
        }
    }

    /// The target is a dataset. Said before anything else.
    #[cfg(feature = "lancedb")]
    pub(super) fn writes_to_a_dataset(&mut self) {
        (self.target, self.reason) = (DATASET, DATASET.starting.to_owned());
    }

    /// What the target is called.
    pub(super) fn target(&self) -> &'static str {
        self.target.name
    }

    /// Enters a stage of life. Stopped and failed are final.
    pub(super) fn enter(&mut self, stage: Phase, reason: String) {
        if !matches!(self.stage, Phase::Stopped | Phase::Failed) {
            (self.stage, self.reason) = (stage, reason);
            self.show();
        }
    }

    pub(super) fn attempt_begins(&mut self, lane: usize) {
        // A batch that is written again without what was refused of it has waited since its first attempt.
        self.waiting.entry(lane).or_insert_with(Mark::now);
    }

    pub(super) fn attempt_failed(&mut self, lane: usize, error: String) {
        self.waiting.remove(&lane);
        self.retrying.insert(lane, error);
        self.show();
    }

    /// Whether an attempt of this lane had failed before.
    pub(super) fn attempt_succeeded(&mut self, lane: usize) -> bool {
        self.waiting.remove(&lane);
        let had_failed = self.retrying.remove(&lane).is_some();
        self.show();
        had_failed
    }

    /// The source cannot be read, or can again.
    pub(super) fn trouble(&mut self, trouble: Option<String>) {
        self.trouble = trouble;
        self.show();
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.show();
    }

    /// The phase, the reason, and since when. A target that does not answer is told of before its time is up.
    pub(super) fn shown(&self, now: Instant) -> (Phase, String, Mark) {
        let (phase, reason) = self.current();
        let longest = self.waiting.values().min_by_key(|since| since.steady);
        match longest {
            Some(since)
                if matches!(phase, Phase::Running | Phase::Paused)
                    && now.saturating_duration_since(since.steady) > STALL =>
            {
                let seconds = now.saturating_duration_since(since.steady).as_secs();
                let reason = format!("{} has not answered a batch for {seconds} s", self.target());
                (Phase::Retrying, reason, *since)
            }
            _ => (phase, reason.to_owned(), self.since),
        }
    }

    fn current(&self) -> (Phase, &str) {
        match (self.stage, self.retrying.values().next().or(self.trouble.as_ref())) {
            (Phase::Starting | Phase::Running, Some(error)) => (Phase::Retrying, error),
            (Phase::Running, None) if self.paused => (Phase::Paused, self.target.slower),
            (stage, _) => (stage, &self.reason),
        }
    }

    fn show(&mut self) {
        let phase = self.current().0;
        if phase != self.shown {
            (self.shown, self.since) = (phase, Mark::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_does_not_answer_is_told_of_before_its_time_is_up() {
        let mut course = Course::new();
        course.enter(Phase::Running, "reading and writing".to_owned());
        let now = Instant::now();
        course.attempt_begins(1);
        assert_eq!(course.shown(now).0, Phase::Running);
        assert_eq!(
            course.shown(now + Duration::from_secs(29)).0,
            Phase::Running,
            "a large index takes its time"
        );
        let later = now + Duration::from_secs(32);
        let (phase, reason, since) = course.shown(later);
        assert_eq!(phase, Phase::Retrying);
        assert!(reason.contains("has not answered a batch for 3"), "{reason}");
        assert!(since.steady >= now, "since the batch was sent");
        course.attempt_succeeded(1);
        assert_eq!(course.shown(later).0, Phase::Running);

        course.attempt_begins(0);
        course.attempt_failed(0, "the connection is closed".to_owned());
        assert_eq!(course.shown(later).1, "the connection is closed", "what is known is told");
    }
}
