//! The thread that owns the consumer: polls, packs what comes into runs, and obeys commands.
//!
//! Invariant: it never waits for the database. When nobody takes the runs, it pauses all partitions
//! and polls on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::Event;
use super::assignment::{Departure, State, list_of};
use super::context::{Clients, Context, Note, Notes, is_refusal};
use super::header::pack_headers;
use super::rejoin::Watch;
use crate::commit::CommitPoint;
use crate::config::{KafkaSettings, Secret};
use crate::source::{
    Budget, Fetched, FetchedBuilder, HeadersBuilder, Partition, SourceError, SourceEvent, SourceRecord,
    Tenure,
};

/// How long one poll waits for a record; commands wait no longer than this.
const POLL: Duration = Duration::from_millis(20);
/// How long a question to the broker may hold the thread up.
pub(super) const ASK: Duration = Duration::from_secs(2);
/// How long the thread waits for room before it pauses all partitions. A pause throws away what
/// librdkafka has fetched ahead, so a short wait is not worth one.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the broker is told how far we are.
const ADVISE: Duration = Duration::from_secs(1);
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

pub(super) struct Poller {
    pub(super) consumer: BaseConsumer<Context>,
    /// A client outside of the group, for questions.
    pub(super) asker: BaseConsumer<Context>,
    pub(super) notes: Arc<Notes>,
    pub(super) settings: KafkaSettings,
    /// Of a payload no more bytes are packed.
    pub(super) most: usize,
    pub(super) topics: Vec<String>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) commands: Receiver<Command>,
    pub(super) budget: Budget,
    pub(super) runtime: Handle,
    pub(super) states: HashMap<Partition, State>,
    pub(super) departures: Vec<Departure>,
    /// The run that is being packed.
    pub(super) run: Option<FetchedBuilder>,
    /// The bytes of the run before it: records of a backlog come in runs of much the same size.
    pub(super) room: usize,
    /// Room for the headers of one record.
    pub(super) packed: HeadersBuilder,
    /// Runs that wait for room in the budget, oldest first.
    pub(super) outbox: VecDeque<Fetched>,
    pub(super) paused: bool,
    /// Nothing can be read, and that was told.
    pub(super) troubled: bool,
    /// How far partitions are, which the broker is not told yet.
    pub(super) advice: HashMap<Partition, i64>,
    /// When it was told last.
    pub(super) advised: Option<Instant>,
    pub(super) watch: Watch,
    /// Set by the member when it loses a connection, unset when statistics tell of one.
    pub(super) cut_off: watch::Sender<bool>,
    /// When to ask for the ends of partitions; `None` where librdkafka tells them.
    pub(super) ends_due: Option<Instant>,
}

/// The thread's ends of the two channels.
pub(super) struct Ends {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) commands: Receiver<Command>,
}

/// Ends the loop: with an error for the other side, or because there is no other side any more.
pub(super) enum End {
    Failed(SourceError),
    Closed,
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl Poller {
    pub(super) fn new(
        clients: Clients,
        settings: KafkaSettings,
        most: usize,
        ends: Ends,
        budget: Budget,
        runtime: Handle,
        cut_off: watch::Sender<bool>,
    ) -> Self {
        let is_silent = |value: &Secret| value.expose().trim() == "0";
        let ends_due = settings.properties.get("statistics.interval.ms").filter(|value| is_silent(value));
        Self {
            ends_due: ends_due.map(|_| Instant::now()),
            consumer: clients.consumer,
            asker: clients.asker,
            notes: clients.notes,
            topics: settings.topics.clone(),
            settings,
            most,
            events: ends.events,
            commands: ends.commands,
            budget,
            runtime,
            states: HashMap::new(),
            departures: Vec::new(),
            run: None,
            room: 0,
            packed: HeadersBuilder::default(),
            outbox: VecDeque::new(),
            paused: false,
            troubled: false,
            advice: HashMap::new(),
            advised: None,
            watch: Watch::default(),
            cut_off,
        }
    }

    /// Runs until `Close`, or until the consumer cannot go on. Then leaves the group.
    pub(super) fn run(mut self) {
        let end = self.join().and_then(|()| self.poll_until_end());
        if let Err(End::Failed(error)) = end {
            self.say(Err(error));
        }
        // Whoever closes the source waits for this end of the channel, so it goes last.
        let events = self.events.clone();
        drop(self);
        drop(events);
    }

    /// Waits until every topic exists, then subscribes. A broker that is away is waited for.
    fn join(&mut self) -> Result<(), End> {
        let topics = self.topics.clone();
        for topic in &topics {
            while !self.topic_exists(topic)? {
                self.obey()?;
            }
        }
        self.subscribe()
    }

    pub(super) fn subscribe(&mut self) -> Result<(), End> {
        self.watch.arm();
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.consumer
            .subscribe(&names)
            .map_err(|fault| SourceError::Settings { reason: fault.to_string() })?;
        Ok(())
    }

    /// Whether the topic is there; `false` when the broker did not say.
    fn topic_exists(&mut self, topic: &str) -> Result<bool, End> {
        let answer = self.asker.fetch_metadata(Some(topic), ASK);
        // Serves the callbacks, which report a broker that refuses us.
        self.poll_once(Duration::ZERO)?;
        self.heed_notes()?;
        let code = match answer {
            Ok(metadata) => metadata.topics().first().and_then(|topic| topic.error()).map(Into::into),
            Err(error) => error.rdkafka_error_code(),
        };
        match code {
            None => Ok(true),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Err(SourceError::refused(
                format!("there is no topic {topic}"),
                "Create it (kafka-topics.sh --create --topic ...), or mend meta.topic or \
                 source.kafka.topics in the configuration",
            )
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
            self.advise(false);
            self.heed_notes()?;
            self.let_go();
            self.announce();
            self.ask_ends();
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
                let limits = Limits { room: self.room, most: self.most };
                let full = pack(&mut self.states, &mut self.run, &mut self.packed, limits, &message);
                if let Some(full) = full {
                    self.room = room_behind(&full);
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
                Ok(Command::Begin { partition, tenure, offset }) => {
                    // One that was sent before the partition was given or asked for anew is of the past.
                    if !matches!(self.states.get(&partition), Some(State::Unannounced { .. })) {
                        self.halt(&partition, State::Beginning { tenure, offset })?;
                    }
                }
                Ok(Command::Announce(partition)) => {
                    self.halt(&partition, State::Unannounced { due: Instant::now() })?;
                }
                Ok(Command::Commit(point)) => self.advice.extend(point.next_offsets().iter().cloned()),
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => {
                    self.advise(true);
                    return Err(End::Closed);
                }
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    /// Tells the broker how far we are: once a second at most, and `now` when partitions go. Each commit that is under
    /// way when a broker crashes holds up the rebalance that follows.
    pub(super) fn advise(&mut self, now: bool) {
        let is_due = self.advised.is_none_or(|last| last.elapsed() >= ADVISE);
        if self.advice.is_empty() || !(now || is_due) {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, next) in std::mem::take(&mut self.advice) {
            if self.states.contains_key(&partition) {
                drop(list.add_partition_offset(partition.topic(), partition.number(), Offset::Offset(next)));
            }
        }
        self.advised = Some(Instant::now());
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
                Note::News(news) => {
                    if self.rejoin_if_stuck(news.stands && news.connected != Some(false))? {
                        // What else was noted is of the member that is gone.
                        return Ok(());
                    }
                    if news.connected == Some(true) {
                        self.cut_off.send_replace(false);
                    }
                    self.tell_trouble(news.connected);
                    self.tell_ends(news.ends);
                }
                Note::Refused(code) => return Err(refused(code).into()),
            }
        }
        Ok(())
    }

    /// Puts the run at hand into the outbox, if there is one.
    pub(super) fn hand_on(&mut self) {
        if let Some(run) = self.run.take() {
            self.room = room_behind(&run);
            self.outbox.push_back(run.finish());
        }
    }

    /// Sends runs as far as the budget has room. When it has none for a while, pauses everything,
    /// so that polling goes on and the group keeps this member however long the database takes.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(run) = self.outbox.front() {
            let charge = self.budget.charge(run.memory());
            let patience = if self.paused { Duration::ZERO } else { PATIENCE };
            let Ok(permit) = self.runtime.block_on(async { tokio::time::timeout(patience, charge).await })
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
        let was_paused = std::mem::replace(&mut self.paused, true);
        if !was_paused {
            self.say(Ok(SourceEvent::Paused(true)));
        }
        if !was_paused || leaks {
            tracing::debug!("the writer is behind; partitions are paused");
            let reading = self.reading();
            let list = list_of(reading.iter().map(|(partition, ..)| partition), Offset::Invalid);
            self.consumer.pause(&list).map_err(gone)?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), End> {
        if std::mem::replace(&mut self.paused, false) {
            self.say(Ok(SourceEvent::Paused(false)));
            let reading = self.reading();
            let list = list_of(reading.iter().map(|(partition, ..)| partition), Offset::Invalid);
            self.consumer.resume(&list).map_err(gone)?;
            tracing::debug!("the writer has caught up; partitions are read again");
        }
        Ok(())
    }

    pub(super) fn say(&self, event: Event) {
        // A receiver that is gone has sent `Close` before, which ends the loop.
        drop(self.events.send(event));
    }
}

impl Drop for Poller {
    /// Dropping the consumer leaves the group; its last callbacks must not wait for anybody, after a panic neither.
    fn drop(&mut self) {
        self.departures.clear();
        self.notes.close();
    }
}

/// How much is packed.
#[derive(Clone, Copy)]
struct Limits {
    /// What a new run begins with, in bytes.
    room: usize,
    /// Of a payload, in bytes.
    most: usize,
}

/// The room that the run behind this one begins with: as much, and a little more so that it need not grow.
fn room_behind(run: &FetchedBuilder) -> usize {
    let room = run.bytes() + run.bytes() / 16;
    room.min(RUN_BYTES + RUN_BYTES / 16)
}

/// Copies a message into the run, if its partition is being read. Returns a run that must go: the
/// one at hand because it is full, or because the message is of another partition or tenure.
fn pack(
    states: &mut HashMap<Partition, State>,
    run: &mut Option<FetchedBuilder>,
    packed: &mut HeadersBuilder,
    limits: Limits,
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
    let goes_on = run.as_ref().is_some_and(|run| *run.partition() == partition && run.tenure() == *tenure);
    let other = if goes_on {
        None
    } else {
        run.replace(FetchedBuilder::new(partition, *tenure).with_room(limits.room))
    };
    packed.clear();
    if let Some(headers) = message.headers() {
        pack_headers(headers, packed);
    }
    let omitted = message.payload().map_or(0, |payload| payload.len().saturating_sub(limits.most));
    let current = run.as_mut()?;
    current.push(SourceRecord {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        payload: message.payload().map(|payload| &payload[..payload.len() - omitted]),
        headers: packed.headers(),
        omitted,
    });
    let full = current.bytes() >= RUN_BYTES || current.len() >= RUN_RECORDS;
    if other.is_none() && full { run.take() } else { other }
}

fn is_of(partition: &Partition, message: &BorrowedMessage<'_>) -> bool {
    partition.number() == message.partition() && partition.topic() == message.topic()
}

pub(super) fn gone(error: KafkaError) -> SourceError {
    SourceError::Gone(error.to_string())
}

fn refused(code: RDKafkaErrorCode) -> SourceError {
    let remedy = match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            "Look at security.protocol and sasl.* under source.kafka.properties"
        }
        _ => "Look at the broker's ACLs: the connector needs Read on its topics and on its group",
    };
    SourceError::refused(code.to_string(), remedy)
}
