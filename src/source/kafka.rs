//! Records from Kafka, through librdkafka.
//!
//! One thread owns the consumer ([`poll`]); librdkafka's callbacks only leave notes for it
//! ([`context`]). It talks with the rest by two channels: events out, commands in. What it has
//! fetched and nobody has taken yet is bounded in bytes; while that budget is used up it goes on
//! polling with all partitions paused, so that a slow database never costs the group membership.

mod assignment;
mod context;
mod header;
mod poll;
pub(crate) mod property;
mod rejoin;
mod said;
mod statistics;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use tokio::sync::{mpsc, watch};

use super::{Budget, Partition, Source, SourceError, SourceEvent, Tenure};
use crate::commit::CommitPoint;
use crate::config::KafkaSettings;
use context::Clients;
use poll::{Command, Ends, Poller};
pub(crate) use said::Said;
use said::Secrets;

/// librdkafka's own queue of fetched records, in KiB, unless the user sets another.
const QUEUE_KIB: &str = "16384";
/// How long a partition is not fetched once that queue is full. The queue is small, and drained within
/// some 70 ms; librdkafka's own second would leave us waiting most of the time.
const BACKOFF_MS: &str = "10";
/// The largest answer to one fetch, unless the user sets another.
const FETCH_BYTES: &str = "8388608";

/// How often librdkafka says where partitions end, unless the user sets another interval.
const STATISTICS_MS: &str = "5000";

/// How long the answer to a goodbye is waited for once a connection was lost: librdkafka may wait for a broker that is gone for as
/// long as a session. With all connections the caller's deadline is the only limit, for in a rebalance the group answers late.
const CUT_OFF: Duration = Duration::from_secs(3);

/// What the thread says.
type Event = Result<SourceEvent, SourceError>;

/// A consumer group's member as a [`Source`].
#[derive(Debug)]
pub struct KafkaSource {
    events: mpsc::UnboundedReceiver<Event>,
    commands: std::sync::mpsc::Sender<Command>,
    /// Whether a connection was lost, or no broker can be reached, as far as is known.
    cut_off: watch::Receiver<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl KafkaSource {
    /// Makes the consumer and starts its thread, which subscribes and joins the group. At most
    /// `budget` bytes of fetched records wait outside of librdkafka's queue (one larger record
    /// passes alone).
    ///
    /// Of a payload no more than `most` bytes are taken over from librdkafka: what is longer is no record, and not even a
    /// dead letter keeps more. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SourceError::Settings`] when librdkafka refuses a property.
    pub fn start(settings: &KafkaSettings, most: usize, budget: Budget) -> Result<Self, SourceError> {
        let (cut_off_sender, cut_off) = watch::channel(false);
        let clients = clients(settings, cut_off_sender.clone())?;
        let (events, event_receiver) = event_channel();
        let (command_sender, commands) = command_channel();
        let ends = Ends { events, commands };
        let runtime = tokio::runtime::Handle::current();
        let poller = Poller::new(clients, settings.clone(), most, ends, budget, runtime, cut_off_sender);
        let thread = std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poller.run())
            .map_err(|fault| SourceError::Gone(fault.to_string()))?;
        Ok(Self { events: event_receiver, commands: command_sender, cut_off, thread: Some(thread) })
    }

    fn command(&self, command: Command) {
        // The thread ends only after it has said why through `events`, so nothing is lost here.
        drop(self.commands.send(command));
    }
}

impl Source for KafkaSource {
    async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        match self.events.recv().await {
            Some(event) => event,
            None => Err(SourceError::Gone("its thread has ended".to_owned())),
        }
    }

    fn begin(&mut self, partition: &Partition, tenure: Tenure, offset: i64) {
        self.command(Command::Begin { partition: partition.clone(), tenure, offset });
    }

    fn announce(&mut self, partition: &Partition) {
        self.command(Command::Announce(partition.clone()));
    }

    fn commit(&mut self, point: &CommitPoint) {
        self.command(Command::Commit(point.clone()));
    }

    async fn close(mut self, deadline: Duration) {
        self.command(Command::Close);
        // What still comes is dropped, which lets every hand-over in it go. The thread holds its end of the channel until
        // the group is left; nothing else waits for it, so that one which hangs holds up nobody's end.
        let silence = async { while self.events.recv().await.is_some() {} };
        let cut_off = async {
            // The thread ends otherwise.
            if self.cut_off.wait_for(|is_cut_off| *is_cut_off).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CUT_OFF).await;
        };
        let is_over = tokio::select! {
            () = silence => true,
            () = cut_off => false,
            () = tokio::time::sleep(deadline) => false,
        };
        let Some(thread) = self.thread.take().filter(|_| is_over) else {
            tracing::warn!(
                "Kafka did not answer the goodbye in time; the group notices by its session timeout"
            );
            return;
        };
        match thread.join() {
            Ok(()) => tracing::debug!("left the consumer group"),
            Err(_) => tracing::warn!("the Kafka thread ended with a panic"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "bounded in bytes by the budget that every run is charged to")]
fn event_channel() -> (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>) {
    mpsc::unbounded_channel()
}

#[expect(
    clippy::disallowed_methods,
    reason = "at most a few small commands for each batch; the thread is prompt"
)]
fn command_channel() -> (std::sync::mpsc::Sender<Command>, std::sync::mpsc::Receiver<Command>) {
    std::sync::mpsc::channel()
}

/// Asks librdkafka whether it takes these settings, all together. It makes the clients and drops
/// them; they would connect only when asked for something.
///
/// # Errors
/// [`SourceError::Settings`] says what librdkafka does not take.
pub fn check_settings(settings: &KafkaSettings) -> Result<(), SourceError> {
    clients(settings, watch::Sender::new(false)).map(drop)
}

fn clients(settings: &KafkaSettings, cut_off: watch::Sender<bool>) -> Result<Clients, SourceError> {
    Clients::new(client_config(settings), &Said::new(settings), cut_off).map_err(|fault| {
        let reason = match &fault {
            // Its own text quotes the value, which may be a secret.
            KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
                format!("it has no property {name}")
            }
            KafkaError::ClientConfig(_, _, name, _) => format!("it does not take the value of {name}"),
            other => {
                let text = Secrets::of(settings).taken_out_of(&other.to_string());
                settings.properties.values().fold(text, |text, value| without_word(&text, value.expose()))
            }
        };
        SourceError::Settings { reason }
    })
}

/// `text` without `word` where it stands alone. A value can be as short as a part of other words.
fn without_word(text: &str, word: &str) -> String {
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !word.is_empty()
        && let Some((before, behind)) = rest.split_once(word)
    {
        kept.push_str(before);
        let is_alone = !kept.ends_with(is_of_word) && !behind.starts_with(is_of_word);
        kept.push_str(if is_alone { "****" } else { word });
        rest = behind;
    }
    kept.push_str(rest);
    kept
}

/// The properties for librdkafka: the user's, and over them those that the connector must own.
fn client_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "embedsink")
        .set("queued.max.messages.kbytes", QUEUE_KIB)
        .set("fetch.max.bytes", FETCH_BYTES)
        .set("fetch.queue.backoff.ms", BACKOFF_MS)
        .set("statistics.interval.ms", STATISTICS_MS)
        .set("partition.assignment.strategy", "cooperative-sticky");
    for (name, value) in &settings.properties {
        config.set(name, value.expose());
    }
    config
        .set("bootstrap.servers", settings.bootstrap_servers.join(","))
        .set("group.id", &settings.group_id)
        // Where to go on is stored in Postgres; what the broker holds is for lag tools.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position outside of the log must stop the connector, never move it silently.
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

#[cfg(test)]
mod tests;
