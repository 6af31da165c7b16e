//! The thread that owns the consumer.
//!
//! Invariant: it never waits for the database. A partition that the group assigns is taken over
//! paused; it is asked for what it retains, announced, and reads only when a `Begin` names the
//! offset. A partition that the group revokes is held back until its last write is done, but no
//! longer than [`HAND_OVER`]; polling goes on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::context::{Context, Note, Notes, is_refusal, unassign};
use crate::commit::CommitPoint;
use crate::source::{
    Fetched, FetchedBuilder, HandOver, Partition, Retained, SourceError, SourceEvent, SourceRecord, Tenure,
};

/// How long one poll waits for a record; commands wait no longer than this.
const POLL: Duration = Duration::from_millis(20);
/// How long a question to the broker may hold the thread up.
const ASK: Duration = Duration::from_secs(2);
/// How long librdkafka may refuse a seek before the consumer counts as broken.
const SEEK: Duration = Duration::from_secs(60);
/// How long a revoked partition is held back for its last write.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long the thread waits for room before it pauses all partitions. A pause throws away what
/// librdkafka has fetched ahead, so a short wait is not worth one.
const PATIENCE: Duration = Duration::from_secs(1);
/// A run of records is handed on at this size, though more of the partition may be at hand.
const RUN_BYTES: usize = 512 * 1024;
/// The same in records.
const RUN_RECORDS: usize = 1024;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Read this partition from here.
    Begin { partition: Partition, tenure: Tenure, offset: i64 },
    /// Stop reading this partition, and say again what the broker retains of it.
    Announce(Partition),
    /// Tell the broker how far we are.
    Commit(CommitPoint),
    /// Leave the group and end.
    Close,
}

#[derive(Debug)]
enum State {
    /// Ours, paused, not announced: what it retains is not known yet.
    Unannounced,
    /// Announced; waits for its `Begin`.
    Waiting,
    /// Told where to begin; the seek has not gone through yet.
    Seeking { tenure: Tenure, offset: i64, since: Instant },
    /// Reading; `next` is one more than the last offset delivered.
    Reading { tenure: Tenure, next: i64 },
}

struct Departure {
    partitions: Vec<Partition>,
    granted: oneshot::Receiver<()>,
    deadline: Instant,
}

pub(super) struct Poller {
    consumer: BaseConsumer<Context>,
    notes: Arc<Notes>,
    topics: Vec<String>,
    events: mpsc::UnboundedSender<Result<SourceEvent, SourceError>>,
    commands: Receiver<Command>,
    room: Arc<Semaphore>,
    budget: usize,
    runtime: Handle,
    states: HashMap<Partition, State>,
    departures: Vec<Departure>,
    /// The run that is being packed.
    run: Option<FetchedBuilder>,
    /// Runs that wait for room in the budget, oldest first.
    outbox: VecDeque<Fetched>,
    paused: bool,
}

/// Ends the loop: with an error for the other side, or because there is no other side any more.
enum End {
    Failed(SourceError),
    Closed,
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl Poller {
    #[expect(clippy::too_many_arguments, reason = "called once; the parts have nothing else in common")]
    pub(super) fn new(
        consumer: BaseConsumer<Context>,
        notes: Arc<Notes>,
        topics: Vec<String>,
        events: mpsc::UnboundedSender<Result<SourceEvent, SourceError>>,
        commands: Receiver<Command>,
        room: Arc<Semaphore>,
        budget: usize,
        runtime: Handle,
    ) -> Self {
        Self {
            consumer,
            notes,
            topics,
            events,
            commands,
            room,
            budget,
            runtime,
            states: HashMap::new(),
            departures: Vec::new(),
            run: None,
            outbox: VecDeque::new(),
            paused: false,
        }
    }

    /// Runs until `Close`, or until the consumer cannot go on. Then leaves the group.
    pub(super) fn run(mut self) {
        let end = self.join().and_then(|()| self.poll_until_end());
        if let Err(End::Failed(error)) = end {
            self.say(Err(error));
        }
        // Dropping the consumer leaves the group; its last callbacks must not wait for anybody.
        self.departures.clear();
        self.notes.close();
        drop(self.consumer);
    }

    /// Waits until every topic exists, then subscribes. A broker that is away is waited for.
    fn join(&mut self) -> Result<(), End> {
        let topics = self.topics.clone();
        for topic in &topics {
            while !self.topic_exists(topic)? {
                self.obey()?;
            }
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&names)
            .map_err(|fault| SourceError::Settings { reason: fault.to_string() })?;
        Ok(())
    }

    /// Whether the topic is there; `false` when the broker did not say.
    fn topic_exists(&mut self, topic: &str) -> Result<bool, End> {
        let answer = self.consumer.fetch_metadata(Some(topic), ASK);
        // Serves the callbacks, which report a broker that refuses us.
        self.poll_once(Duration::ZERO)?;
        self.heed_notes()?;
        let code = match answer {
            Ok(metadata) => metadata.topics().first().and_then(|topic| topic.error()).map(Into::into),
            Err(error) => error.rdkafka_error_code(),
        };
        match code {
            None => Ok(true),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Err(SourceError::Refused {
                reason: format!("there is no topic {topic}"),
                remedy: "Create it (kafka-topics.sh --create --topic ...), or mend meta.topic or \
                         source.kafka.topics in the configuration",
            }
            .into()),
            Some(code) if is_refusal(code) => Err(refused(code).into()),
            Some(code) => {
                tracing::debug!(%code, topic, "the broker did not answer for the topic; asking again");
                Ok(false)
            }
        }
    }

    fn poll_until_end(&mut self) -> Result<(), End> {
        loop {
            self.obey()?;
            self.heed_notes()?;
            self.let_go();
            self.announce();
            self.seek()?;
            self.deliver()?;
            // With a run at hand only what is there already is added: freshness goes first.
            let wait = if self.run.is_some() { Duration::ZERO } else { POLL };
            if !self.poll_once(wait)? {
                self.hand_on();
            }
        }
    }

    /// Takes one record, or none. Returns whether there was one.
    fn poll_once(&mut self, wait: Duration) -> Result<bool, End> {
        match self.consumer.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                if let Some(full) = pack(&mut self.states, &mut self.run, &message) {
                    self.outbox.push_back(full.finish());
                }
                Ok(true)
            }
            Some(Err(error)) => self.judge(&error).map(|()| true),
        }
    }

    /// Errors of the consumer: passing ones are librdkafka's to mend, the others end the loop.
    fn judge(&mut self, error: &KafkaError) -> Result<(), End> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(SourceError::Gone(format!("librdkafka cannot go on: {code}")).into());
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.find_out_of_range()
            }
            Some(code) if is_refusal(code) => Err(refused(code).into()),
            _ => {
                tracing::debug!(%error, "the consumer reports a passing fault");
                Ok(())
            }
        }
    }

    /// The broker refused a position, but the report does not say which: ask for all.
    fn find_out_of_range(&mut self) -> Result<(), End> {
        for (partition, tenure, next) in self.reading() {
            match self.ask_retained(&partition) {
                Some(retained) if !retained.covers(next) => {
                    return Err(SourceError::out_of_range(partition, next, retained).into());
                }
                // Not this one, or the broker does not say: go on where it was.
                _ => {
                    let state = State::Seeking { tenure, offset: next, since: Instant::now() };
                    self.states.insert(partition, state);
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self) -> Result<(), End> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin { partition, tenure, offset }) => {
                    // Records at hand belong to the tenure before this one.
                    self.hand_on();
                    if let Some(state) = self.states.get_mut(&partition) {
                        *state = State::Seeking { tenure, offset, since: Instant::now() };
                    }
                }
                Ok(Command::Announce(partition)) => {
                    self.hand_on();
                    if let Some(state) = self.states.get_mut(&partition) {
                        *state = State::Unannounced;
                        self.consumer.pause(&list_of([&partition], Offset::Invalid)).map_err(gone)?;
                    }
                }
                Ok(Command::Commit(point)) => self.commit(&point),
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => return Err(End::Closed),
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    fn commit(&self, point: &CommitPoint) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in point.next_offsets() {
            if self.states.contains_key(partition) {
                drop(list.add_partition_offset(partition.topic(), partition.number(), Offset::Offset(*next)));
            }
        }
        if list.count() > 0 {
            if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
                tracing::debug!(%error, "the broker did not take the offsets");
            }
        }
    }

    fn heed_notes(&mut self) -> Result<(), End> {
        for note in self.notes.take() {
            match note {
                Note::Assigned(partitions) => self.take_over(partitions)?,
                Note::Revoked { partitions, lost } => self.depart(partitions, lost),
                Note::Refused(code) => return Err(refused(code).into()),
            }
        }
        Ok(())
    }

    /// Answers the group at once, with every new partition paused.
    fn take_over(&mut self, partitions: Vec<Partition>) -> Result<(), End> {
        tracing::info!(?partitions, "assigned by the group");
        // A logical offset, so that librdkafka does not ask for a committed one. Nothing is read
        // there: the pause is queued behind the assignment, and a seek comes before the resume.
        let list = list_of(&partitions, Offset::End);
        let assigned = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => {
                self.states.clear();
                self.consumer.assign(&list)
            }
        };
        assigned.and_then(|()| self.consumer.pause(&list)).map_err(gone)?;
        self.states.extend(partitions.into_iter().map(|partition| (partition, State::Unannounced)));
        Ok(())
    }

    fn depart(&mut self, partitions: Vec<Partition>, lost: bool) {
        tracing::info!(?partitions, lost, "revoked by the group");
        self.hand_on();
        for partition in &partitions {
            self.states.remove(partition);
        }
        // Nothing more of them may reach the lanes while their last write is finished.
        drop(self.consumer.pause(&list_of(&partitions, Offset::Invalid)));
        let (done, granted) = HandOver::new();
        self.say(Ok(SourceEvent::Revoked { partitions: partitions.clone(), done }));
        let patience = if lost { Duration::ZERO } else { HAND_OVER };
        self.departures.push(Departure { partitions, granted, deadline: Instant::now() + patience });
    }

    /// Lets revoked partitions go whose last write is done, or whose time is up.
    fn let_go(&mut self) {
        let now = Instant::now();
        self.departures.retain_mut(|departure| {
            let waits = matches!(departure.granted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
            if waits && now < departure.deadline {
                return true;
            }
            let list = list_of(&departure.partitions, Offset::Invalid);
            if let Err(error) = unassign(&self.consumer, &list) {
                tracing::warn!(%error, "could not give partitions back");
            }
            false
        });
    }

    /// Asks for what new partitions retain, and announces them.
    fn announce(&mut self) {
        let new = self.states.iter().filter(|(_, state)| matches!(state, State::Unannounced));
        let Some(partition) = new.map(|(partition, _)| partition.clone()).min() else { return };
        if let Some(retained) = self.ask_retained(&partition) {
            self.states.insert(partition.clone(), State::Waiting);
            self.say(Ok(SourceEvent::Assigned { partition, retained }));
        }
    }

    fn ask_retained(&self, partition: &Partition) -> Option<Retained> {
        match self.consumer.fetch_watermarks(partition.topic(), partition.number(), ASK) {
            Ok((earliest, end)) => Some(Retained { earliest, end }),
            Err(error) => {
                tracing::debug!(%partition, %error, "the broker did not say what it retains");
                None
            }
        }
    }

    /// Starts partitions that were told where to begin.
    fn seek(&mut self) -> Result<(), End> {
        for (partition, state) in &mut self.states {
            let State::Seeking { tenure, offset, since } = state else { continue };
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(partition.topic(), partition.number(), Offset::Offset(*offset))
                .map_err(gone)?;
            let sought = self.consumer.seek_partitions(list, ASK).and_then(|list| {
                list.elements().iter().try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)
            });
            match sought {
                Ok(()) => {
                    if !self.paused {
                        self.consumer.resume(&list_of([&*partition], Offset::Invalid)).map_err(gone)?;
                    }
                    *state = State::Reading { tenure: *tenure, next: *offset };
                }
                Err(error) if since.elapsed() > SEEK => {
                    let reason = format!("{partition} cannot be moved to offset {offset}: {error}");
                    return Err(SourceError::Gone(reason).into());
                }
                // Just assigned: librdkafka refuses a seek until the partition has started.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Puts the run at hand into the outbox, if there is one.
    fn hand_on(&mut self) {
        self.outbox.extend(self.run.take().map(FetchedBuilder::finish));
    }

    /// Sends runs as far as the budget has room. When it has none for a while, pauses everything,
    /// so that polling goes on and the group keeps this member however long the database takes.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(run) = self.outbox.front() {
            let wanted = run.bytes().clamp(1, self.budget) as u32;
            let acquire = Arc::clone(&self.room).acquire_many_owned(wanted);
            let patience = if self.paused { Duration::ZERO } else { PATIENCE };
            let Ok(permit) = self.runtime.block_on(async { tokio::time::timeout(patience, acquire).await })
            else {
                return self.pause();
            };
            let permit = permit.map_err(|_| End::Closed)?;
            if let Some(run) = self.outbox.pop_front() {
                self.say(Ok(SourceEvent::Fetched(run.charged(permit))));
            }
        }
        self.resume()
    }

    fn pause(&mut self) -> Result<(), End> {
        if !std::mem::replace(&mut self.paused, true) {
            tracing::debug!("the writer is behind; partitions are paused");
            self.consumer.pause(&list_of(self.states.keys(), Offset::Invalid)).map_err(gone)?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), End> {
        if std::mem::replace(&mut self.paused, false) {
            let reading = self.reading();
            let list = list_of(reading.iter().map(|(partition, ..)| partition), Offset::Invalid);
            self.consumer.resume(&list).map_err(gone)?;
        }
        Ok(())
    }

    /// The partitions that are being read, with the offset each goes on at.
    fn reading(&self) -> Vec<(Partition, Tenure, i64)> {
        let reading = self.states.iter().filter_map(|(partition, state)| match state {
            State::Reading { tenure, next } => Some((partition.clone(), *tenure, *next)),
            _ => None,
        });
        reading.collect()
    }

    fn say(&self, event: Result<SourceEvent, SourceError>) {
        // A receiver that is gone has sent `Close` before, which ends the loop.
        drop(self.events.send(event));
    }
}

/// Copies a message into the run, if its partition is being read. Returns a run that must go: the
/// one at hand because it is full, or because the message is of another partition or tenure.
fn pack(
    states: &mut HashMap<Partition, State>,
    run: &mut Option<FetchedBuilder>,
    message: &BorrowedMessage<'_>,
) -> Option<FetchedBuilder> {
    let partition = match run {
        Some(run) if is_of(run.partition(), message) => run.partition().clone(),
        _ => states.keys().find(|known| is_of(known, message))?.clone(),
    };
    let State::Reading { tenure, next } = states.get_mut(&partition)? else { return None };
    if message.offset() < *next {
        return None;
    }
    *next = message.offset() + 1;
    let goes_on = run.as_ref().is_some_and(|run| *run.partition() == partition && run.tenure() == *tenure);
    let other = if goes_on { None } else { run.replace(FetchedBuilder::new(partition, *tenure)) };
    let current = run.as_mut()?;
    current.push(SourceRecord {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        payload: message.payload(),
    });
    let full = current.bytes() >= RUN_BYTES || current.len() >= RUN_RECORDS;
    if other.is_none() && full { run.take() } else { other }
}

fn is_of(partition: &Partition, message: &BorrowedMessage<'_>) -> bool {
    partition.number() == message.partition() && partition.topic() == message.topic()
}

fn list_of<'a>(partitions: impl IntoIterator<Item = &'a Partition>, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        // Refused only for an offset that cannot be represented; the logical ones all can.
        drop(list.add_partition_offset(partition.topic(), partition.number(), offset));
    }
    list
}

fn gone(error: KafkaError) -> SourceError {
    SourceError::Gone(error.to_string())
}

fn refused(code: RDKafkaErrorCode) -> SourceError {
    SourceError::Refused {
        reason: code.to_string(),
        remedy: "Look at security.protocol and sasl.* under source.kafka.properties, and at the broker's ACLs: \
                 the connector needs Read on its topics and on its group",
    }
}

