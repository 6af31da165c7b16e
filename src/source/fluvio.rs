//! Records from a Fluvio topic.
//!
//! One task reads each partition (`fluvio/reader.rs`), from the offset that it was told and on its own stream; a
//! fault of one is none of the others'. One more finds partitions (`fluvio/watch.rs`), one tells Fluvio how far
//! the consumer is. There is no group: a partition is never taken away, only given.
//!
//! Invariant: a partition has at most one reader, the one of its latest `begin`.
//!
//! Transforms run here, on each record alone, so every record keeps the offset that Fluvio shows for it.

mod reader;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::Batch;
use futures_util::stream::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Budget, Partition, Retained, Source, SourceError, SourceEvent, Tenure};
use crate::commit::CommitPoint;
use crate::framework::config::{FluvioSettings, TopicSettings};
use crate::framework::consumer::{Batches, Consumer, Fault, MAX_BYTES};
use crate::framework::smartmodule::Chain;
use reader::Reader;

/// What the tasks say.
type Event = Result<SourceEvent, SourceError>;

/// When a partition is announced again, it is because what the cluster said did not fit what is stored, or
/// because somebody else took it. A leader that has just started needs a while to know how much of its log is
/// committed.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// How long a question that could not be answered rests, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the source asks of a cluster: the framework's [`Consumer`], and in tests a double that shows
/// the faults which a real cluster cannot be made to show.
pub trait Cluster: Clone + Send + Sync + 'static {
    /// The client's own stream of batches.
    type Batches: Stream<Item = Result<Batch, ErrorCode>> + Send + Unpin;

    /// As [`Consumer::partition_count`].
    fn partition_count(&self) -> impl Future<Output = Result<Option<u32>, Fault>> + Send;
    /// As [`Consumer::create_topic`].
    fn create_topic(&self, topic: &TopicSettings) -> impl Future<Output = Result<(), Fault>> + Send;
    /// As [`Consumer::retained`].
    fn retained(&self, partition: u32) -> impl Future<Output = Result<Retained, Fault>> + Send;
    /// As [`Consumer::read`].
    fn read(
        &self,
        partition: u32,
        offset: i64,
        max_bytes: u32,
    ) -> impl Future<Output = Result<Self::Batches, Fault>> + Send;
    /// As [`Consumer::chain`].
    fn chain(&self) -> impl Future<Output = Result<Option<Chain>, Fault>> + Send;
    /// As [`Consumer::report`].
    fn report(&self, partition: u32, next_offset: i64) -> impl Future<Output = Result<(), Fault>> + Send;
}

impl Cluster for Consumer {
    type Batches = Batches;

    async fn partition_count(&self) -> Result<Option<u32>, Fault> {
        self.partition_count().await
    }

    async fn create_topic(&self, topic: &TopicSettings) -> Result<(), Fault> {
        self.create_topic(topic).await
    }

    async fn retained(&self, partition: u32) -> Result<Retained, Fault> {
        self.retained(partition).await
    }

    async fn read(&self, partition: u32, offset: i64, max_bytes: u32) -> Result<Batches, Fault> {
        self.read(partition, offset, max_bytes).await
    }

    async fn chain(&self) -> Result<Option<Chain>, Fault> {
        self.chain().await
    }

    async fn report(&self, partition: u32, next_offset: i64) -> Result<(), Fault> {
        self.report(partition, next_offset).await
    }
}

/// The partitions of a Fluvio topic as a [`Source`].
pub struct FluvioSource<C: Cluster = Consumer> {
    desk: Arc<Desk<C>>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Whoever is at work for a partition: its reader, or the task that asks what the cluster retains.
    at_work: HashMap<Partition, AbortOnDropHandle<()>>,
    others: Vec<AbortOnDropHandle<()>>,
}

/// What all tasks of a source share.
struct Desk<C> {
    cluster: C,
    settings: FluvioSettings,
    /// The bytes of one answer, unless a batch needs more.
    max_bytes: u32,
    budget: Budget,
    events: mpsc::UnboundedSender<Event>,
    /// How many readers wait for room.
    waiting: AtomicUsize,
    /// What cannot be read: the topic (`None`), or one of its partitions.
    troubles: Mutex<BTreeMap<Option<u32>, String>>,
    /// How far each partition is durable, and not reported yet.
    points: Mutex<BTreeMap<u32, i64>>,
}

impl<C: Cluster> fmt::Debug for FluvioSource<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluvioSource").field("topic", &self.desk.settings.topic.name).finish_non_exhaustive()
    }
}

impl FluvioSource {
    /// Starts to look for the topic's partitions. At most the bytes of `budget` wait between readers and
    /// lanes; each reader holds at most two answers of the cluster more.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when the client's profile cannot be used.
    pub fn start(settings: &FluvioSettings, connector: &str, budget: Budget) -> Result<Self, SourceError> {
        let consumer = Consumer::new(settings, connector).map_err(|reason| {
            SourceError::refused(
                reason,
                "Look at `fluvio profile`, and at source.fluvio.profile in the configuration",
            )
        })?;
        tracing::info!(cluster = consumer.endpoint(), topic = settings.topic.name, "reading from Fluvio");
        Ok(Self::over(consumer, settings, budget))
    }
}

impl<C: Cluster> FluvioSource<C> {
    fn over(cluster: C, settings: &FluvioSettings, budget: Budget) -> Self {
        let (events, receiver) = event_channel();
        let desk = Arc::new(Desk {
            cluster,
            settings: settings.clone(),
            max_bytes: settings.consumer.max_bytes.unwrap_or(MAX_BYTES),
            budget,
            events,
            waiting: AtomicUsize::new(0),
            troubles: Mutex::default(),
            points: Mutex::default(),
        });
        let mut others = vec![spawn(watch::partitions(Arc::clone(&desk)))];
        if let Some(period) = settings.consumer.report_every {
            others.push(spawn(report(Arc::clone(&desk), period)));
        }
        Self { desk, events: receiver, at_work: HashMap::new(), others }
    }
}

impl<C: Cluster> Source for FluvioSource<C> {
    async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        match self.events.recv().await {
            Some(event) => event,
            None => Err(SourceError::Gone("its tasks have ended".to_owned())),
        }
    }

    fn begin(&mut self, partition: &Partition, tenure: Tenure, offset: i64) {
        let reader = Reader::new(Arc::clone(&self.desk), partition.clone(), tenure, offset);
        self.at_work.insert(partition.clone(), spawn(reader.run()));
    }

    fn announce(&mut self, partition: &Partition) {
        let asking = watch::announce(Arc::clone(&self.desk), partition.clone(), SECOND_LOOK);
        self.at_work.insert(partition.clone(), spawn(asking));
    }

    fn commit(&mut self, point: &CommitPoint) {
        if self.desk.settings.consumer.report_every.is_none() {
            return;
        }
        let mut points = self.desk.points();
        for (partition, next) in point.next_offsets() {
            points.insert(number_of(partition), *next);
        }
    }

    async fn close(self, deadline: Duration) {
        drop(self.at_work);
        drop(self.others);
        if tokio::time::timeout(deadline, self.desk.report()).await.is_err() {
            tracing::debug!("Fluvio did not take the last offsets in time");
        }
    }
}

impl<C: Cluster> Desk<C> {
    fn say(&self, event: Event) {
        // A receiver that is gone belongs to a source that was dropped, and its tasks with it.
        drop(self.events.send(event));
    }

    fn points(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, i64>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why something cannot be read, or that it can again, and tells it. Returns whether that is new.
    fn note(&self, what: Option<u32>, trouble: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let before = troubles.values().next().cloned();
        let is_new = match trouble {
            Some(text) => troubles.insert(what, text).is_none(),
            None => troubles.remove(&what).is_some(),
        };
        let now = troubles.values().next();
        if is_new && before.as_ref() != now {
            let shown = now.map(|text| format!("Fluvio cannot be read: {text}"));
            self.say(Ok(SourceEvent::Trouble(shown)));
        }
        is_new
    }

    /// Tells Fluvio the offsets that it does not know yet. What it does not take is told with the next.
    async fn report(&self) {
        let points = std::mem::take(&mut *self.points());
        for (partition, next_offset) in points {
            if let Err(fault) = self.cluster.report(partition, next_offset).await {
                tracing::debug!(partition, ?fault, "Fluvio did not take the consumer's offset");
                self.points().entry(partition).or_insert(next_offset);
            }
        }
    }

    /// Says that reading is held as long as the returned value lives.
    fn hold(&self) -> Held<'_, C> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.say(Ok(SourceEvent::Paused(true)));
        }
        Held(self)
    }
}

struct Held<'a, C: Cluster>(&'a Desk<C>);

impl<C: Cluster> Drop for Held<'_, C> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.say(Ok(SourceEvent::Paused(false)));
        }
    }
}

async fn report<C: Cluster>(desk: Arc<Desk<C>>, period: Duration) {
    let mut due = tokio::time::interval(period.max(Duration::from_millis(1)));
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        desk.report().await;
    }
}

/// The partition's number as Fluvio counts.
fn number_of(partition: &Partition) -> u32 {
    partition.number().unsigned_abs()
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Pauses between questions: from 100 ms, doubled up to 5 s, each lengthened by a random part of itself.
/// They never end.
fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[expect(clippy::disallowed_methods, reason = "bounded in bytes by the budget that every run is charged to")]
fn event_channel() -> (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>) {
    mpsc::unbounded_channel()
}

#[cfg(test)]
mod tests;
