//! Where partitions end, and whether a broker is there, from librdkafka's statistics.
//!
//! librdkafka learns the end with every answer to a fetch, also when a partition has nothing new, and
//! tells it in a JSON document at each `statistics.interval.ms`. While everything is paused nothing is fetched,
//! and the broker is asked instead.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::assignment::State;
use super::poll::Poller;
use crate::source::{Partition, SourceEvent};

/// How often the broker is asked for the ends with `statistics.interval.ms: 0`.
const ASK_ENDS: Duration = Duration::from_secs(5);

/// The few members that are read; all others are skipped.
#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow, default)]
    brokers: HashMap<Cow<'a, str>, Broker<'a>>,
    #[serde(borrow, default)]
    topics: HashMap<Cow<'a, str>, Topic<'a>>,
    #[serde(borrow, default)]
    cgrp: Option<Group<'a>>,
}

#[derive(Deserialize)]
struct Group<'a> {
    #[serde(borrow, default)]
    join_state: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Broker<'a> {
    #[serde(borrow, default)]
    state: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Topic<'a> {
    #[serde(borrow, default)]
    partitions: HashMap<&'a str, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i32,
    /// The end for readers of committed records, which is ours. Negative while unknown.
    #[serde(default = "unknown")]
    ls_offset: i64,
    /// The end of the log. Negative while unknown.
    #[serde(default = "unknown")]
    hi_offset: i64,
}

fn unknown() -> i64 {
    -1001
}

/// What a document tells.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    /// The ends that are known.
    pub(super) ends: Vec<(Partition, i64)>,
    /// Whether a broker is connected; `None` where the document names none.
    pub(super) connected: Option<bool>,
    /// Whether librdkafka stands between two memberships, and not because it waits for the group.
    pub(super) stands: bool,
}

/// Where a member waits for nobody but itself and the coordinator, by the end of the name.
const STANDING: [&str; 3] = ["init", "wait-metadata", "unassign-to-complete"];

/// Nothing from a document that is not as expected: it is not worth an error.
pub(super) fn read(statistics: &[u8]) -> News {
    let statistics: Statistics<'_> = match serde_json::from_slice(statistics) {
        Ok(statistics) => statistics,
        Err(error) => {
            tracing::debug!(%error, "the statistics of librdkafka cannot be read");
            return News::default();
        }
    };
    let mut ends = Vec::new();
    for (topic, of_topic) in &statistics.topics {
        for found in of_topic.partitions.values() {
            let end = if found.ls_offset >= 0 { found.ls_offset } else { found.hi_offset };
            // There is a partition -1 too, for records without one.
            if found.partition >= 0 && end >= 0 {
                ends.push((Partition::new(&**topic, found.partition), end));
            }
        }
    }
    let connected = statistics.brokers.values().any(|broker| broker.state == "UP");
    let stands =
        statistics.cgrp.is_some_and(|group| STANDING.iter().any(|state| group.join_state.ends_with(state)));
    News { ends, connected: (!statistics.brokers.is_empty()).then_some(connected), stands }
}

impl Poller {
    /// Tells when no broker is connected any more, and when one is again.
    pub(super) fn tell_trouble(&mut self, connected: Option<bool>) {
        let trouble = connected == Some(false);
        if connected.is_some() && std::mem::replace(&mut self.troubled, trouble) != trouble {
            let reason = trouble.then(|| "no Kafka broker answers; librdkafka goes on asking".to_owned());
            self.say(Ok(SourceEvent::Trouble(reason)));
        }
    }

    /// Asks for the ends where librdkafka was told not to say them.
    pub(super) fn ask_ends(&mut self) {
        let now = Instant::now();
        if self.ends_due.is_some_and(|due| due <= now) {
            self.tell_ends(self.asked_ends());
            self.ends_due = Some(Instant::now() + ASK_ENDS);
        }
    }

    /// Of every partition that was announced: one that begins while all are paused is read only afterwards, and
    /// its end moves meanwhile.
    fn asked_ends(&self) -> Vec<(Partition, i64)> {
        let announced = |state: &State| !matches!(state, State::Unannounced { .. });
        let ours = self.states.iter().filter(|(_, state)| announced(state)).map(|(partition, _)| partition);
        let asked = ours.map_while(|partition| {
            // A broker that is away costs one question.
            self.ask_retained(partition).map(|retained| (partition.clone(), retained.end))
        });
        asked.collect()
    }

    /// Tells where our partitions end.
    pub(super) fn tell_ends(&self, mut ends: Vec<(Partition, i64)>) {
        if self.paused {
            ends = self.asked_ends();
        } else {
            ends.retain(|(partition, _)| self.states.contains_key(partition));
        }
        if !ends.is_empty() {
            self.say(Ok(SourceEvent::Ends(ends)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_end_counts_and_unknown_ones_are_left_out() {
        let statistics =
            br#"{"name": "rdkafka#consumer-1", "ts": 5016483227792, "brokers": {"b:9092/1": {"tx": 3, "state": "CONNECT"}},
            "topics": {
                "to\"pic": {"topic": "to\"pic", "age": 1, "partitions": {
                    "0": {"partition": 0, "ls_offset": 7, "hi_offset": 9, "eof_offset": -1001},
                    "1": {"partition": 1, "ls_offset": -1001, "hi_offset": 5},
                    "2": {"partition": 2, "ls_offset": -1001, "hi_offset": -1001},
                    "3": {"partition": 3, "hi_offset": 0},
                    "-1": {"partition": -1, "ls_offset": 3, "hi_offset": 3}}},
                "empty": {"topic": "empty"}},
            "cgrp": {"state": "up"}}"#;
        let mut found = read(statistics);
        found.ends.sort_unstable();
        let at = |number| Partition::new("to\"pic", number);
        assert_eq!(
            found,
            News { ends: vec![(at(0), 7), (at(1), 5), (at(3), 0)], connected: Some(false), stands: false }
        );
        let up = br#"{"brokers": {"b:9092/bootstrap": {"state": "DOWN"}, "b:9092/1": {"state": "UP"}}}"#;
        assert_eq!(read(up), News { ends: Vec::new(), connected: Some(true), stands: false });
    }

    #[test]
    fn a_document_that_is_not_as_expected_tells_nothing() {
        for text in ["", "{", "[]", r#"{"topics": 3}"#, r#"{"topics": {"t": {"partitions": {"0": {}}}}}"#] {
            assert_eq!(read(text.as_bytes()), News::default(), "{text}");
        }
        assert_eq!(read(b"{}"), News::default());
    }

    #[test]
    fn a_member_stands_while_it_is_between_two_groups_and_does_not_wait_for_others() {
        let stands = |join_state: &str| {
            read(format!(r#"{{"cgrp": {{"join_state": "{join_state}", "stateage": 7}}}}"#).as_bytes()).stands
        };
        for state in ["init", "wait-metadata", "wait-unassign-to-complete", "wait-incr-unassign-to-complete"]
        {
            assert!(stands(state), "{state}");
        }
        for state in ["steady", "wait-join", "wait-sync", "wait-assign-call", "wait-unassign-call"] {
            assert!(!stands(state), "{state}");
        }
    }
}
