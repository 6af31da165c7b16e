//! The thread that owns the consumer.
//!
//! Invariant: it never waits for the database. What the group assigns is accepted at once, but
//! librdkafka is given a partition only at its `Begin`, with the offset that stands there, so there
//! is no other position that it could read from. What the group revokes is held back until the last
//! write of it is done, but no longer than [`HAND_OVER`]; polling goes on meanwhile.

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

use super::Event;
use super::context::{Context, Note, Notes, is_refusal, unassign};
use crate::commit::CommitPoint;
use crate::source::{
    Fetched, FetchedBuilder, HandOver, Partition, Retained, SourceError, SourceEvent, SourceRecord, Tenure,
};

/// How long one poll waits for a record; commands wait no longer than this.
const POLL: Duration = Duration::from_millis(20);
/// How long a question to the broker may hold the thread up.
const ASK: Duration = Duration::from_secs(2);
/// When a question that was not answered is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
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
    Begin {
        partition: Partition,
        tenure: Tenure,
        offset: i64,
    },
    /// Stop reading this partition, and say again what the broker retains of it.
    Announce(Partition),
    /// Tell the broker how far we are.
    Commit(CommitPoint),
    /// Leave the group and end.
    Close,
}

/// A partition that the group has assigned to us.
#[derive(Clone, Copy, Debug)]
enum State {
    /// What the broker retains of it is not known yet; it is asked from `due` on.
    Unannounced { due: Instant },
    /// Announced; waits for its `Begin`.
    Waiting,
    /// Told where to begin; librdkafka does not have it yet.
    Beginning { tenure: Tenure, offset: i64 },
    /// Being read; `next` is one more than the last offset delivered.
    Reading { tenure: Tenure, next: i64 },
}

struct Departure {
    /// Those of them that librdkafka was given.
    reading: Vec<Partition>,
    granted: oneshot::Receiver<()>,
    deadline: Instant,
}

pub(super) struct Poller {
    consumer: BaseConsumer<Context>,
    notes: Arc<Notes>,
    topics: Vec<String>,
    events: mpsc::UnboundedSender<Event>,
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
    #[expect(
        clippy::too_many_arguments,
        reason = "called once; the parts have nothing else in common"
    )]
    pub(super) fn new(
        consumer: BaseConsumer<Context>,
        notes: Arc<Notes>,
        topics: Vec<String>,
        events: mpsc::UnboundedSender<Event>,
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
            .map_err(|fault| SourceError::Settings {
                reason: fault.to_string(),
            })?;
        Ok(())
    }

    /// Whether the topic is there; `false` when the broker did not say.
    fn topic_exists(&mut self, topic: &str) -> Result<bool, End> {
        let answer = self.consumer.fetch_metadata(Some(topic), ASK);
        // Serves the callbacks, which report a broker that refuses us.
        self.poll_once(Duration::ZERO)?;
        self.heed_notes()?;
        let code = match answer {
            Ok(metadata) => metadata
                .topics()
                .first()
                .and_then(|topic| topic.error())
                .map(Into::into),
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
            self.start()?;
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
                // Not this one, or the broker does not say: librdkafka gets it anew.
                _ => self.halt(&partition, State::Beginning { tenure, offset: next })?,
            }
        }
        Ok(())
    }

    fn obey(&mut self) -> Result<(), End> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin {
                    partition,
                    tenure,
                    offset,
                }) => {
                    // One that was sent before the partition was given or asked for anew is of the past.
                    if !matches!(self.states.get(&partition), Some(State::Unannounced { .. })) {
                        self.halt(&partition, State::Beginning { tenure, offset })?;
                    }
                }
                Ok(Command::Announce(partition)) => {
                    self.halt(&partition, State::Unannounced { due: Instant::now() })?;
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
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the broker did not take the offsets");
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

    /// Accepts an assignment, without giving librdkafka anything to read yet.
    fn take_over(&mut self, partitions: Vec<Partition>) -> Result<(), End> {
        tracing::info!(?partitions, "assigned by the group");
        let nothing = TopicPartitionList::new();
        if self.is_cooperative() {
            self.consumer.incremental_assign(&nothing).map_err(gone)?;
        } else {
            self.states.clear();
            self.consumer.assign(&nothing).map_err(gone)?;
        }
        let due = Instant::now();
        let new = partitions
            .into_iter()
            .map(|partition| (partition, State::Unannounced { due }));
        self.states.extend(new);
        Ok(())
    }

    fn depart(&mut self, partitions: Vec<Partition>, lost: bool) {
        tracing::info!(?partitions, lost, "revoked by the group");
        self.hand_on();
        // Only what librdkafka was given can be taken back from it.
        let reading: Vec<Partition> = partitions
            .iter()
            .filter(|partition| self.is_reading(partition))
            .cloned()
            .collect();
        for partition in &partitions {
            self.states.remove(partition);
        }
        let (done, granted) = HandOver::new();
        self.say(Ok(SourceEvent::Revoked { partitions, done }));
        let patience = if lost { Duration::ZERO } else { HAND_OVER };
        self.departures.push(Departure {
            reading,
            granted,
            deadline: Instant::now() + patience,
        });
    }

    /// Lets revoked partitions go whose last write is done, or whose time is up.
    fn let_go(&mut self) {
        let now = Instant::now();
        self.departures.retain_mut(|departure| {
            let waits = matches!(
                departure.granted.try_recv(),
                Err(oneshot::error::TryRecvError::Empty)
            );
            if waits && now < departure.deadline {
                return true;
            }
            let list = list_of(&departure.reading, Offset::Invalid);
            if let Err(error) = unassign(&self.consumer, &list) {
                tracing::warn!(%error, "could not give partitions back");
            }
            false
        });
    }

    /// Asks for what new partitions retain, and announces them. All are asked before any is read:
    /// a question waits behind a fetch that waits for records.
    fn announce(&mut self) {
        let now = Instant::now();
        let new = self
            .states
            .iter()
            .filter(|(_, state)| matches!(state, State::Unannounced { due } if *due <= now));
        let mut new: Vec<Partition> = new.map(|(partition, _)| partition.clone()).collect();
        new.sort_unstable();
        for partition in new {
            let Some(retained) = self.ask_retained(&partition) else {
                // Its leader is away. The question holds all others up, so it is not asked often.
                let due = Instant::now() + ASK_AGAIN;
                self.states.insert(partition, State::Unannounced { due });
                return;
            };
            self.states.insert(partition.clone(), State::Waiting);
            self.say(Ok(SourceEvent::Assigned { partition, retained }));
        }
    }

    fn ask_retained(&self, partition: &Partition) -> Option<Retained> {
        match self
            .consumer
            .fetch_watermarks(partition.topic(), partition.number(), ASK)
        {
            Ok((earliest, end)) => Some(Retained { earliest, end }),
            Err(error) => {
                tracing::debug!(%partition, %error, "the broker did not say what it retains");
                None
            }
        }
    }

    /// Gives librdkafka the partitions that were told where to begin. Not during a departure, whose
    /// answer an assignment could be taken for; and not while paused, since new ones would not be.
    fn start(&mut self) -> Result<(), End> {
        let beginning = self
            .states
            .values()
            .any(|state| matches!(state, State::Beginning { .. }));
        if !beginning || self.paused || !self.departures.is_empty() {
            return Ok(());
        }
        let cooperative = self.is_cooperative();
        let mut list = TopicPartitionList::new();
        for (partition, state) in &mut self.states {
            let offset = match *state {
                State::Beginning { tenure, offset } => {
                    *state = State::Reading { tenure, next: offset };
                    offset
                }
                // The eager protocol knows only whole assignments.
                State::Reading { next, .. } if !cooperative => next,
                _ => continue,
            };
            let offset = Offset::Offset(offset);
            list.add_partition_offset(partition.topic(), partition.number(), offset)
                .map_err(gone)?;
        }
        let assigned = if cooperative {
            self.consumer.incremental_assign(&list)
        } else {
            self.consumer.assign(&list)
        };
        // librdkafka remembers a pause beyond the assignment in which it was made.
        assigned
            .and_then(|()| self.consumer.resume(&list))
            .map_err(gone)?;
        Ok(())
    }

    /// Puts an assigned partition into a state in which it is not read, and takes it back from
    /// librdkafka if that has it: what was fetched ahead is of the tenure before.
    fn halt(&mut self, partition: &Partition, state: State) -> Result<(), End> {
        self.hand_on();
        let was_reading = self.is_reading(partition);
        let Some(known) = self.states.get_mut(partition) else {
            return Ok(());
        };
        *known = state;
        if was_reading && self.is_cooperative() {
            let list = list_of([partition], Offset::Invalid);
            self.consumer.incremental_unassign(&list).map_err(gone)?;
        } else if was_reading {
            let mut list = TopicPartitionList::new();
            for (partition, _, next) in self.reading() {
                let offset = Offset::Offset(next);
                list.add_partition_offset(partition.topic(), partition.number(), offset)
                    .map_err(gone)?;
            }
            self.consumer.assign(&list).map_err(gone)?;
        }
        Ok(())
    }

    fn is_cooperative(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }

    fn is_reading(&self, partition: &Partition) -> bool {
        matches!(self.states.get(partition), Some(State::Reading { .. }))
    }

    /// Puts the run at hand into the outbox, if there is one.
    fn hand_on(&mut self) {
        self.outbox.extend(self.run.take().map(FetchedBuilder::finish));
    }

    /// Sends runs as far as the budget has room. When it has none for a while, pauses everything,
    /// so that polling goes on and the group keeps this member however long the database takes.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(run) = self.outbox.front() {
            let wanted = run.memory().clamp(1, self.budget) as u32;
            let acquire = Arc::clone(&self.room).acquire_many_owned(wanted);
            let patience = if self.paused { Duration::ZERO } else { PATIENCE };
            let Ok(permit) = self
                .runtime
                .block_on(async { tokio::time::timeout(patience, acquire).await })
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
        // Again if records still come: the eager protocol's assignments may have undone it.
        let leaks = self.outbox.len() > 2;
        if !std::mem::replace(&mut self.paused, true) || leaks {
            tracing::debug!("the writer is behind; partitions are paused");
            let reading = self.reading();
            let list = list_of(reading.iter().map(|(partition, ..)| partition), Offset::Invalid);
            self.consumer.pause(&list).map_err(gone)?;
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

    fn say(&self, event: Event) {
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
    let State::Reading { tenure, next } = states.get_mut(&partition)? else {
        return None;
    };
    if message.offset() < *next {
        return None;
    }
    *next = message.offset() + 1;
    let goes_on = run
        .as_ref()
        .is_some_and(|run| *run.partition() == partition && run.tenure() == *tenure);
    let other = if goes_on {
        None
    } else {
        run.replace(FetchedBuilder::new(partition, *tenure))
    };
    let current = run.as_mut()?;
    current.push(SourceRecord {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        payload: message.payload(),
    });
    let full = current.bytes() >= RUN_BYTES || current.len() >= RUN_RECORDS;
    if other.is_none() && full {
        run.take()
    } else {
        other
    }
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
