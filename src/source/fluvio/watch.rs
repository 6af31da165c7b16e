//! Finds the partitions of the topic, now and later, and asks what the cluster holds of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Cluster, Desk, LONGEST_PAUSE, number_of, pauses};
use crate::framework::config::Partitions;
use crate::framework::consumer::Fault;
use crate::source::{Partition, SourceError, SourceEvent};

/// How often new partitions are looked for.
const LOOK: Duration = Duration::from_secs(10);
/// How soon a topic is looked for that has just been created.
const CREATED: Duration = Duration::from_millis(100);

/// Announces every partition that is to be read, as soon as there is one. Ends only with an error, which
/// it leaves with the source.
pub(super) async fn partitions<C: Cluster>(desk: Arc<Desk<C>>) {
    let error = Watch {
        desk: &desk,
        known: BTreeSet::new(),
        asking: JoinSet::new(),
        missed: false,
        unanswered: false,
    }
    .run()
    .await;
    desk.say(Err(error));
}

struct Watch<'a, C> {
    desk: &'a Arc<Desk<C>>,
    known: BTreeSet<u32>,
    asking: JoinSet<()>,
    /// The topic was not there when it was looked for last.
    missed: bool,
    /// The cluster did not answer when it was asked last.
    unanswered: bool,
}

impl<C: Cluster> Watch<'_, C> {
    async fn run(mut self) -> SourceError {
        let mut rests = pauses();
        loop {
            let rest = match self.look().await {
                Ok(rest) => {
                    rests = pauses();
                    self.desk.note(None, None);
                    if std::mem::take(&mut self.unanswered) {
                        tracing::info!("the Fluvio cluster answers again");
                    }
                    rest
                }
                Err(Fault::Refused { reason, remedy }) => return SourceError::refused(reason, remedy),
                Err(Fault::NoTopic) => return self.no_topic(),
                Err(fault) => {
                    let what = fault.to_string();
                    if !std::mem::replace(&mut self.unanswered, true) {
                        tracing::warn!(
                            what,
                            "the Fluvio cluster does not say what the topic is; asking again"
                        );
                    }
                    // The partitions that are known are read all the same.
                    if self.known.is_empty() {
                        self.desk.note(None, Some(what));
                    }
                    rests.next().unwrap_or(LONGEST_PAUSE)
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Announces what is new. Returns when to look again.
    async fn look(&mut self) -> Result<Duration, Fault> {
        let settings = &self.desk.settings;
        let Some(count) = self.desk.cluster.partition_count().await? else {
            if self.known.is_empty() && settings.create_topic {
                tracing::info!(
                    topic = settings.topic.name,
                    partitions = settings.topic.partitions,
                    "creating the topic"
                );
                self.desk.cluster.create_topic(&settings.topic).await?;
                return Ok(CREATED);
            }
            // A controller that has just started may not know its topics yet.
            if !self.known.is_empty() && !std::mem::replace(&mut self.missed, true) {
                return Err(Fault::Passing("the topic is gone".to_owned()));
            }
            return Err(Fault::NoTopic);
        };
        self.missed = false;
        let wanted: Vec<u32> = match &settings.consumer.partitions {
            Partitions::All => (0..count).collect(),
            Partitions::Listed(listed) => {
                if let Some(beyond) = listed.iter().find(|number| **number >= count) {
                    return Err(Fault::Refused {
                        reason: format!(
                            "topic {} has {count} partitions, and so no partition {beyond}",
                            settings.topic.name
                        ),
                        remedy: "Mend meta.consumer.partition, which counts from 0",
                    });
                }
                listed.clone()
            }
        };
        for number in wanted {
            if self.known.insert(number) {
                let partition =
                    Partition::new(settings.topic.name.as_str(), i32::try_from(number).unwrap_or(i32::MAX));
                self.desk.say(Ok(SourceEvent::Given(vec![partition.clone()])));
                self.asking.spawn(announce(Arc::clone(self.desk), partition, Duration::ZERO));
            }
        }
        Ok(LOOK)
    }

    fn no_topic(&self) -> SourceError {
        let topic = &self.desk.settings.topic.name;
        if self.known.is_empty() {
            SourceError::refused(
                format!("there is no topic {topic}"),
                "Create it (fluvio topic create), or set source.fluvio.create-topic: true, or mend meta.topic",
            )
        } else {
            SourceError::refused(
                format!("topic {topic} is gone"),
                "If it was created anew, start the connector again; it then says what to do with the stored positions",
            )
        }
    }
}

/// Asks what the cluster holds of a partition, after a while, until it says so, and announces it.
pub(super) async fn announce<C: Cluster>(desk: Arc<Desk<C>>, partition: Partition, after: Duration) {
    tokio::time::sleep(after).await;
    let mut rests = pauses();
    loop {
        match desk.cluster.retained(number_of(&partition)).await {
            Ok(retained) => {
                desk.note(Some(number_of(&partition)), None);
                return desk.say(Ok(SourceEvent::Assigned { partition, retained }));
            }
            Err(Fault::Refused { reason, remedy }) => {
                return desk.say(Err(SourceError::refused(reason, remedy)));
            }
            // A topic that is gone is the watch's to notice.
            Err(fault) => {
                let what = fault.to_string();
                if desk.note(Some(number_of(&partition)), Some(what.clone())) {
                    tracing::warn!(%partition, what, "the cluster does not say what it holds; asking again");
                }
            }
        }
        tokio::time::sleep(rests.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}
