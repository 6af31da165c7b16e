//! A new member in place of one that has got stuck.
//!
//! librdkafka was seen to stand still for good after a broker had crashed: the session had timed out, the partitions
//! were given up, and it never asked to join again, though the broker was back. Restarting the process helps, so a
//! new consumer does too.
//!
//! Invariant: nothing depends on which member has read a record. A partition begins where the database has it.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::clients;
use super::poll::{ASK, End, Poller};
use crate::source::{HandOver, Partition, SourceEvent};

/// How long librdkafka may stand between two memberships while a broker answers. Giving partitions back and looking for
/// the coordinator take seconds; waiting for the other members of the group does not count.
const STANDING: Duration = Duration::from_secs(30);
/// Longer than this is not waited before a further attempt.
const LONGEST: Duration = Duration::from_secs(480);

/// The watch over a member.
#[derive(Debug)]
pub(super) struct Watch {
    /// Since when it has been standing.
    since: Option<Instant>,
    /// How long it may.
    limit: Duration,
    /// Whether it has been told to join.
    armed: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self { since: None, limit: STANDING, armed: false }
    }
}

impl Watch {
    /// Takes note of whether the member stands between two memberships, and says whether it has for too long.
    fn is_over(&mut self, stands: bool, now: Instant) -> bool {
        let stands = stands && self.armed;
        let since = self.since.filter(|_| stands);
        self.since = stands.then(|| since.unwrap_or(now));
        since.is_some_and(|since| now.saturating_duration_since(since) > self.limit)
    }

    /// A new member has been made: it gets twice the time.
    fn begin_anew(&mut self) {
        *self = Self { since: None, limit: (self.limit * 2).min(LONGEST), ..*self };
    }

    /// The member has been given partitions.
    pub(super) fn settle(&mut self) {
        *self = Self { armed: self.armed, ..Self::default() };
    }

    /// It is told to join.
    pub(super) fn arm(&mut self) {
        self.armed = true;
    }
}

impl Poller {
    /// Joins the group with a new consumer when the one at hand has stood still for too long, though a broker answers.
    /// Says whether it did.
    pub(super) fn rejoin_if_stuck(&mut self, stands: bool) -> Result<bool, End> {
        if !self.watch.is_over(stands, Instant::now()) {
            return Ok(false);
        }
        let answers =
            self.topics.first().is_some_and(|topic| self.asker.fetch_metadata(Some(topic), ASK).is_ok());
        if !answers {
            self.watch.since = None;
            return Ok(false);
        }
        tracing::warn!("librdkafka stands still between two memberships; joining the group anew");
        self.rejoin().map(|()| true)
    }

    fn rejoin(&mut self) -> Result<(), End> {
        self.hand_on();
        let new = clients(&self.settings, self.cut_off.clone())?;
        // The callbacks of the old one answer themselves from now on.
        self.notes.close();
        self.departures.clear();
        let old = std::mem::replace(&mut self.consumer, new.consumer);
        let old = (old, std::mem::replace(&mut self.asker, new.asker));
        self.notes = new.notes;
        // It is stuck, so it may not even come to its end.
        drop(std::thread::Builder::new().name("kafka-goodbye".to_owned()).spawn(move || drop(old)));

        let partitions: Vec<Partition> = self.states.drain().map(|(partition, _)| partition).collect();
        if !partitions.is_empty() {
            // They may be another member's by now, so nobody waits for their last write.
            let (done, _) = HandOver::new();
            self.say(Ok(SourceEvent::Revoked { partitions, done }));
        }
        if std::mem::replace(&mut self.paused, false) {
            self.say(Ok(SourceEvent::Paused(false)));
        }
        self.advice.clear();
        self.watch.begin_anew();
        self.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_stands_still_is_given_up_once_and_the_next_one_gets_longer() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!watch.is_over(true, at(0)) && !watch.is_over(true, at(90)), "it was not told to join");
        watch.arm();
        assert!(!watch.is_over(true, at(0)));
        assert!(!watch.is_over(true, at(30)));
        assert!(!watch.is_over(false, at(31)), "it went on");
        assert!(!watch.is_over(true, at(40)));
        assert!(watch.is_over(true, at(71)));
        watch.begin_anew();
        assert!(!watch.is_over(true, at(72)));
        assert!(!watch.is_over(true, at(132)));
        assert!(watch.is_over(true, at(133)));
        for _ in 0..10 {
            watch.begin_anew();
        }
        assert_eq!(watch.limit, LONGEST);
        watch.settle();
        assert_eq!(watch.limit, STANDING);
    }
}
