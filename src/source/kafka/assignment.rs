//! From the group's assignment to a partition that is read, and back.
//!
//! Invariant: what the group assigns is accepted at once, but librdkafka is given a partition only at
//! its `Begin`, with the offset that stands there, so there is no other position that it could read
//! from. What the group revokes is held back until the last write of it is done, but no longer than
//! [`HAND_OVER`]; polling goes on meanwhile.

use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer, RebalanceProtocol};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::context::unassign;
use super::poll::{ASK, End, Poller, gone};
use crate::source::{HandOver, Partition, Retained, SourceEvent, Tenure};

/// How long a revoked partition is held back for its last write.
const HAND_OVER: Duration = Duration::from_secs(5);
/// When a question that was not answered is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A partition that the group has assigned to us.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// What the broker retains of it is not known yet; it is asked from `due` on.
    Unannounced { due: Instant },
    /// Announced; waits for its `Begin`.
    Waiting,
    /// Told where to begin; librdkafka does not have it yet.
    Beginning { tenure: Tenure, offset: i64 },
    /// Being read; `next` is one more than the last offset delivered.
    Reading { tenure: Tenure, next: i64 },
}

pub(super) struct Departure {
    /// Those of them that librdkafka was given.
    reading: Vec<Partition>,
    granted: oneshot::Receiver<()>,
    deadline: Instant,
}

impl Poller {
    /// Accepts an assignment, without giving librdkafka anything to read yet.
    pub(super) fn take_over(&mut self, partitions: Vec<Partition>) -> Result<(), End> {
        tracing::info!(?partitions, "assigned by the group");
        self.watch.settle();
        let nothing = TopicPartitionList::new();
        if self.is_cooperative() {
            self.consumer.incremental_assign(&nothing).map_err(gone)?;
        } else {
            self.states.clear();
            self.consumer.assign(&nothing).map_err(gone)?;
        }
        let due = Instant::now();
        let new = partitions.iter().map(|partition| (partition.clone(), State::Unannounced { due }));
        self.states.extend(new);
        self.say(Ok(SourceEvent::Given(partitions)));
        Ok(())
    }

    pub(super) fn depart(&mut self, partitions: Vec<Partition>, lost: bool) {
        tracing::info!(?partitions, lost, "revoked by the group");
        self.hand_on();
        if !lost {
            self.advise(true);
        }
        // Only what librdkafka was given can be taken back from it.
        let reading: Vec<Partition> =
            partitions.iter().filter(|partition| self.is_reading(partition)).cloned().collect();
        for partition in &partitions {
            self.states.remove(partition);
        }
        let (done, granted) = HandOver::new();
        self.say(Ok(SourceEvent::Revoked { partitions, done }));
        let patience = if lost { Duration::ZERO } else { HAND_OVER };
        self.departures.push(Departure { reading, granted, deadline: Instant::now() + patience });
    }

    /// Lets revoked partitions go whose last write is done, or whose time is up.
    pub(super) fn let_go(&mut self) {
        let now = Instant::now();
        self.departures.retain_mut(|departure| {
            let waits = matches!(departure.granted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
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

    /// Asks for what new partitions retain, and announces them. The questions go over connections of
    /// their own: on those of the consumer they would wait behind fetches that wait for records.
    pub(super) fn announce(&mut self) {
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

    pub(super) fn ask_retained(&self, partition: &Partition) -> Option<Retained> {
        match self.asker.fetch_watermarks(partition.topic(), partition.number(), ASK) {
            Ok((earliest, end)) => Some(Retained { earliest, end }),
            Err(error) => {
                tracing::debug!(%partition, %error, "the broker did not say what it retains");
                None
            }
        }
    }

    /// Gives librdkafka the partitions that were told where to begin. Not during a departure, whose
    /// answer an assignment could be taken for; and not while paused, since new ones would not be.
    pub(super) fn start(&mut self) -> Result<(), End> {
        let beginning = self.states.values().any(|state| matches!(state, State::Beginning { .. }));
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
            list.add_partition_offset(partition.topic(), partition.number(), offset).map_err(gone)?;
        }
        let assigned =
            if cooperative { self.consumer.incremental_assign(&list) } else { self.consumer.assign(&list) };
        // librdkafka remembers a pause beyond the assignment in which it was made.
        assigned.and_then(|()| self.consumer.resume(&list)).map_err(gone)?;
        Ok(())
    }

    /// Puts an assigned partition into a state in which it is not read, and takes it back from
    /// librdkafka if that has it: what was fetched ahead is of the tenure before.
    pub(super) fn halt(&mut self, partition: &Partition, state: State) -> Result<(), End> {
        self.hand_on();
        let was_reading = self.is_reading(partition);
        if was_reading && !self.departures.is_empty() {
            // librdkafka would take this for the answer to the revocation that is under way.
            self.departures.iter_mut().for_each(|departure| departure.deadline = Instant::now());
            self.let_go();
        }
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
                list.add_partition_offset(partition.topic(), partition.number(), offset).map_err(gone)?;
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

    /// The partitions that are being read, with the offset each goes on at.
    pub(super) fn reading(&self) -> Vec<(Partition, Tenure, i64)> {
        let reading = self.states.iter().filter_map(|(partition, state)| match state {
            State::Reading { tenure, next } => Some((partition.clone(), *tenure, *next)),
            _ => None,
        });
        reading.collect()
    }
}

pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a Partition>,
    offset: Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        // Refused only for an offset that cannot be represented; the logical ones all can.
        drop(list.add_partition_offset(partition.topic(), partition.number(), offset));
    }
    list
}
