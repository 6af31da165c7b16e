//! A member's source: what the group tells it, and records in runs of random length.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::log::{Fate, Log};
use super::random::Random;
use super::target::{Happening, Shared, lock, number};
use crate::commit::CommitPoint;
use crate::source::{
    Fetched, FetchedBuilder, HandOver, Partition, Retained, Source, SourceError, SourceEvent, SourceRecord,
    Tenure,
};

/// The topic's name.
const TOPIC: &str = "topic";

/// What the group tells a member.
pub(super) enum Notice {
    Assigned {
        partition: usize,
        retained: Retained,
    },
    Revoked {
        partition: usize,
        done: HandOver,
    },
    /// There are more records.
    More,
}

/// How far the log has been written.
pub(super) struct Ends(Mutex<Vec<i64>>);

/// One member's way to the log.
pub(super) struct SimulatedSource {
    pub(super) log: Arc<Log>,
    pub(super) ends: Arc<Ends>,
    pub(super) target: Shared,
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
    pub(super) random: Random,
    assigned: BTreeSet<usize>,
    /// When to tell again what is retained.
    announced: Vec<(Instant, usize)>,
    reading: BTreeMap<usize, (Tenure, i64)>,
    /// Tenures that are over, and where they were: what was fetched may come late.
    over: Vec<(usize, Tenure, i64)>,
}

impl Ends {
    /// These offsets come next.
    pub(super) fn at(ends: Vec<i64>) -> Self {
        Self(Mutex::new(ends))
    }

    /// The offset behind the last record that is there by now.
    pub(super) fn of(&self, partition: usize) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[partition]
    }

    /// More records are there.
    pub(super) fn extend(&self, partition: usize, to: i64) {
        let end = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[partition];
        *end = to.max(*end);
    }
}

impl SimulatedSource {
    /// A source that listens to the group.
    pub(super) fn new(
        log: &Arc<Log>,
        ends: &Arc<Ends>,
        target: &Shared,
        notices: mpsc::UnboundedReceiver<Notice>,
        random: Random,
    ) -> Self {
        Self {
            log: Arc::clone(log),
            ends: Arc::clone(ends),
            target: Arc::clone(target),
            notices,
            random,
            assigned: BTreeSet::new(),
            announced: Vec::new(),
            reading: BTreeMap::new(),
            over: Vec::new(),
        }
    }

    fn heed(&mut self, notice: Notice) -> Option<SourceEvent> {
        match notice {
            Notice::Assigned { partition, retained } => {
                self.stop_reading(partition);
                self.assigned.insert(partition);
                Some(SourceEvent::Assigned { partition: name(partition), retained })
            }
            Notice::Revoked { partition, done } => {
                self.stop_reading(partition);
                self.assigned.remove(&partition);
                Some(SourceEvent::Revoked { partitions: vec![name(partition)], done })
            }
            Notice::More => None,
        }
    }

    fn stop_reading(&mut self, partition: usize) {
        self.announced.retain(|(_, waiting)| *waiting != partition);
        if let Some((tenure, offset)) = self.reading.remove(&partition) {
            self.over.push((partition, tenure, offset));
        }
    }

    fn tell_again(&mut self) -> Option<SourceEvent> {
        let due = self.announced.iter().position(|(due, _)| *due <= Instant::now())?;
        let (_, partition) = self.announced.remove(due);
        let retained = Retained { earliest: self.log.earliest, end: self.ends.of(partition) };
        Some(SourceEvent::Assigned { partition: name(partition), retained })
    }

    /// How long until there is something to tell or to deliver.
    fn pause(&mut self) -> Option<Duration> {
        let can_read = self.reading.iter().any(|(partition, (_, next))| *next < self.ends.of(*partition));
        let reading = can_read.then(|| Duration::from_millis(self.random.below(4) as u64));
        let due = self.announced.iter().map(|(due, _)| due.saturating_duration_since(Instant::now())).min();
        reading.into_iter().chain(due).min()
    }

    fn fetch(&mut self) -> Option<Fetched> {
        if !self.over.is_empty() && self.random.chance(20) {
            let late = self.random.below(self.over.len());
            let (partition, tenure, offset) = self.over.swap_remove(late);
            lock(&self.target).note(Happening::FetchedLate, &[]);
            return self.run(partition, tenure, offset).0;
        }
        let readable = |(partition, (tenure, next)): (&usize, &(Tenure, i64))| {
            (*next < self.ends.of(*partition)).then_some((*partition, *tenure, *next))
        };
        let choices: Vec<_> = self.reading.iter().filter_map(readable).collect();
        if choices.is_empty() {
            return None;
        }
        let (partition, tenure, offset) = self.random.pick(&choices);
        let (run, next) = self.run(partition, tenure, offset);
        self.reading.insert(partition, (tenure, next));
        run
    }

    /// Some records from `offset` on, if the broker serves any of them, and where it goes on.
    fn run(&mut self, partition: usize, tenure: Tenure, offset: i64) -> (Option<Fetched>, i64) {
        let mut builder = FetchedBuilder::new(name(partition), tenure);
        let to = self.ends.of(partition).min(offset + 1 + self.random.below(6) as i64);
        for offset in offset..to {
            let Some(entry) = self.log.at(partition, offset) else { continue };
            match entry.fate {
                Fate::Gap => {}
                Fate::Passed => builder.pass(offset, Some(entry.timestamp)),
                _ => builder.push(SourceRecord {
                    offset,
                    timestamp: Some(entry.timestamp),
                    key: entry.key.as_deref(),
                    payload: entry.payload.as_deref(),
                    headers: Default::default(),
                    omitted: 0,
                }),
            }
        }
        lock(&self.target).note(Happening::Fetched, &[partition as i64, tenure.0, offset, to]);
        ((!builder.is_empty()).then(|| builder.finish()), to)
    }
}

fn name(partition: usize) -> Partition {
    Partition::new(TOPIC, partition as i32)
}

impl Source for SimulatedSource {
    async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        loop {
            let pause = self.pause();
            tokio::select! {
                biased;
                Some(notice) = self.notices.recv() => {
                    if let Some(event) = self.heed(notice) {
                        return Ok(event);
                    }
                }
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    if let Some(event) = self.tell_again() {
                        return Ok(event);
                    }
                    if let Some(run) = self.fetch() {
                        return Ok(SourceEvent::Fetched(run));
                    }
                }
                else => return Err(SourceError::Gone("the group has ended".to_owned())),
            }
        }
    }

    fn begin(&mut self, partition: &Partition, tenure: Tenure, offset: i64) {
        let partition = number(partition);
        let is_waiting = self.announced.iter().any(|(_, waiting)| *waiting == partition);
        if !self.assigned.contains(&partition) || is_waiting {
            return;
        }
        self.stop_reading(partition);
        // A batch of the broker's may begin before the offset that was asked for.
        let before = if self.random.chance(30) { self.random.below(4) as i64 } else { 0 };
        self.reading.insert(partition, (tenure, (offset - before).max(self.log.earliest)));
    }

    fn announce(&mut self, partition: &Partition) {
        let partition = number(partition);
        if self.assigned.contains(&partition) {
            self.stop_reading(partition);
            let due = Instant::now() + Duration::from_millis(self.random.below(50) as u64);
            self.announced.push((due, partition));
        }
    }

    fn commit(&mut self, point: &CommitPoint) {
        let target = lock(&self.target);
        for (partition, next) in point.next_offsets() {
            let stored = target.position(number(partition));
            assert!(stored >= *next, "{partition}: {next} is committed, but {stored} is stored");
        }
    }

    async fn close(self, _deadline: Duration) {}
}
