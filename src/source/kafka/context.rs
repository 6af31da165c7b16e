//! librdkafka's callbacks. They run inside of `poll` on the polling thread, and only leave notes
//! for it: the thread reads them when `poll` has returned, and acts with all it knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::watch;

use super::said::Said;
use super::statistics;
use crate::source::Partition;

/// What a callback saw.
#[derive(Debug)]
pub(super) enum Note {
    /// The group gave these partitions to this member.
    Assigned(Vec<Partition>),
    /// The group takes these partitions away.
    Revoked {
        partitions: Vec<Partition>,
        /// They are lost already (the session has ended); there is nothing to hold back.
        lost: bool,
    },
    /// What the statistics tell.
    News(statistics::News),
    /// Something that only the operator can mend.
    Refused(RDKafkaErrorCode),
}

/// Notes in the order of the callbacks.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Mutex<Vec<Note>>,
    closing: AtomicBool,
}

impl Notes {
    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on callbacks answer librdkafka themselves, since nobody reads their notes.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn leave(&self, note: Note) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }
}

/// The two clients of a source: the group's member, and one outside of the group for questions.
pub(super) struct Clients {
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) asker: BaseConsumer<Context>,
    pub(super) notes: Arc<Notes>,
}

impl Clients {
    /// Makes them. librdkafka connects when it is first asked for something.
    ///
    /// `cut_off` is set when the member loses a connection, or finds no way to a broker. It never unsets it.
    pub(super) fn new(
        mut config: ClientConfig,
        said: &Said,
        cut_off: watch::Sender<bool>,
    ) -> KafkaResult<Self> {
        let notes = Arc::new(Notes::default());
        let context = |cut_off| Context { notes: Arc::clone(&notes), said: said.clone(), cut_off };
        let consumer = config.create_with_context(context(cut_off))?;
        config.remove("group.id");
        // Nobody polls the asker, so that statistics of its own would pile up.
        config.set("statistics.interval.ms", "0");
        // Whether it is cut off is nobody's concern: it has connections of its own.
        let asker = config.create_with_context(context(watch::Sender::new(false)))?;
        Ok(Self { consumer, asker, notes })
    }
}

pub(super) struct Context {
    notes: Arc<Notes>,
    said: Said,
    cut_off: watch::Sender<bool>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.said.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if !self.notes.closing.load(Ordering::Acquire) {
            self.notes.leave(Note::News(statistics::read(statistics)));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code().filter(|code| is_refusal(*code)) {
            self.notes.leave(Note::Refused(code));
        }
        if error.rdkafka_error_code().is_some_and(is_cut_off) {
            self.cut_off.send_replace(true);
        }
        self.said.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.notes.closing.load(Ordering::Acquire) {
            drop(unassign(consumer, list));
        } else if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.notes.leave(Note::Assigned(partitions_of(list)));
        } else {
            let lost = consumer.assignment_lost();
            self.notes.leave(Note::Revoked { partitions: partitions_of(list), lost });
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Advice only: during a rebalance the broker refuses it, and the next one will do.
            tracing::debug!(%error, "the broker did not take the offsets");
        }
    }
}

/// Errors that asking again does not mend.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// Errors that tell of a broker to which there is no connection.
fn is_cut_off(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
    )
}

/// Gives partitions back, in the words of the protocol that the group uses.
pub(super) fn unassign(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| Partition::new(element.topic(), element.partition())).collect()
}
