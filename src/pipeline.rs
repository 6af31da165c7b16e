//! Joins the stops of a record's way: source, lanes, commit.
//!
//! Invariant: a partition reads only between its `Begin` and its release or loss, and the offset it
//! begins at is the one that the ledger gave with its tenure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::Gate;
use crate::breaker::{Breaker, BreakerSettings};
use crate::config::{BatchSettings, StartAt, Tolerance};
use crate::error::ConnectorError;
use crate::lane::{self, Gatherer, Homes, LaneInput, LaneOutput, Scribe};
use crate::monitoring::Monitor;
use crate::route::Router;
use crate::source::{HandOver, Partition, Retained, Source, SourceError, SourceEvent, Tenure};
use crate::write::topic::LetterTopic;
use crate::write::{First, Taken, Writer};

/// How long a partition that was fenced off, and yet is still assigned, is left alone before it is
/// taken again. By then a rebalance that is under way has come through.
const RETAKE: Duration = Duration::from_secs(5);
/// The least and the most that the source may take to leave. Nothing is lost without a goodbye.
const GOODBYE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What a pipeline needs to know.
#[derive(Debug, Clone)]
pub(crate) struct PipelineSettings {
    pub(crate) batch: BatchSettings,
    pub(crate) tolerance: Tolerance,
    pub(crate) start: StartAt,
    /// When too many records are rejected.
    pub(crate) breaker: BreakerSettings,
    /// Where a copy of each dead letter goes.
    pub(crate) letters: Option<LetterTopic>,
}

/// A running pipeline.
pub(crate) struct Pipeline<S> {
    source: S,
    /// What people call the target.
    target: &'static str,
    settings: PipelineSettings,
    lanes: Vec<mpsc::UnboundedSender<LaneInput>>,
    homes: Homes,
    outputs: mpsc::UnboundedReceiver<LaneOutput>,
    tasks: JoinSet<Result<(), ConnectorError>>,
    stop_gathering: CancellationToken,
    monitor: Arc<Monitor>,
    assigned: HashMap<Partition, Assignment>,
    retakes: Vec<(Instant, Partition)>,
}

/// A partition that the source has assigned to us.
#[derive(Clone, Copy)]
struct Assignment {
    retained: Retained,
    /// Taken, but at an offset that `retained` does not cover: what the broker retained may have
    /// been asked before the former owner's last write. It is being asked again.
    doubtful: Option<Doubt>,
    /// The tenure it is read under.
    tenure: Option<Tenure>,
}

/// A partition that was taken at an offset which the broker does not seem to hold.
#[derive(Clone, Copy)]
struct Doubt {
    taken: Taken,
    /// Whether an answer that came since says the same. That one may have been under way before the question.
    confirmed: bool,
}

impl<S: Source> Pipeline<S> {
    /// Starts one lane per writer.
    pub(crate) fn new<W: Writer>(
        source: S,
        writers: Vec<W>,
        router: Arc<Router>,
        settings: PipelineSettings,
        monitor: &Arc<Monitor>,
    ) -> Self {
        let (output_sender, outputs) = output_channel();
        let batch_ids = Arc::new(AtomicU64::new(1));
        let stop_gathering = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::new();
        let gate = Gate {
            tolerance: settings.tolerance,
            breaker: Arc::new(Breaker::new(settings.breaker)),
            letters: settings.letters.clone(),
        };
        for (lane, writer) in writers.into_iter().enumerate() {
            let (input_sender, inputs) = input_channel();
            let (desk, tray) = lane::halves();
            let gatherer = Gatherer::new(
                Arc::clone(&router),
                settings.batch,
                settings.tolerance,
                desk,
                Arc::clone(&batch_ids),
                stop_gathering.clone(),
            );
            tasks.spawn(gatherer.run(inputs));
            let scribe = Scribe {
                lane,
                writer,
                gate: gate.clone(),
                outputs: output_sender.clone(),
                monitor: Arc::clone(monitor),
                stop: stop_gathering.clone(),
            };
            tasks.spawn(scribe.run(tray));
            lanes.push(input_sender);
        }
        Self {
            source,
            target: W::NAME,
            settings,
            homes: Homes::new(lanes.len()),
            lanes,
            outputs,
            tasks,
            stop_gathering,
            monitor: Arc::clone(monitor),
            assigned: HashMap::new(),
            retakes: Vec::new(),
        }
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// Why it could not go on. What was gathered has not been drained yet.
    pub(crate) async fn run(&mut self, stop: &CancellationToken) -> Result<(), ConnectorError> {
        loop {
            let retake = self.retakes.iter().map(|(due, _)| *due).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(output) = self.outputs.recv() => self.on_output(output)?,
                Some(ended) = self.tasks.join_next() => flatten(ended)?,
                event = self.source.next() => self.on_event(event?)?,
                () = tokio::time::sleep_until(retake.unwrap_or_else(Instant::now)), if retake.is_some() => {
                    self.retake();
                }
            }
        }
    }

    fn on_event(&mut self, event: SourceEvent) -> Result<(), ConnectorError> {
        match event {
            SourceEvent::Given(partitions) => self.monitor.awaits(&partitions),
            SourceEvent::Assigned { partition, retained } => self.on_assigned(partition, retained)?,
            SourceEvent::Fetched(run) => {
                self.monitor.received(&run);
                let partition = run.partition().clone();
                self.send(&partition, LaneInput::Fetched(run));
            }
            SourceEvent::Revoked { partitions, done } => {
                let done = Arc::new(done);
                self.monitor.released(&partitions);
                for partition in &partitions {
                    self.assigned.remove(partition);
                }
                self.release(&partitions, &done);
            }
            SourceEvent::Ends(ends) => self.monitor.ends(&ends),
            SourceEvent::Paused(paused) => self.monitor.paused(paused),
            SourceEvent::Trouble(trouble) => self.monitor.trouble(trouble),
        }
        Ok(())
    }

    fn on_assigned(&mut self, partition: Partition, retained: Retained) -> Result<(), ConnectorError> {
        self.monitor.awaits(std::slice::from_ref(&partition));
        self.homes.settle(&partition, self.assigned.keys());
        let doubtful = self.assigned.get(&partition).and_then(|assignment| assignment.doubtful);
        self.assigned.insert(partition.clone(), Assignment { retained, doubtful: None, tenure: None });
        match doubtful {
            Some(Doubt { taken, .. }) if retained.covers(taken.next_offset) => self.begin(&partition, taken),
            Some(Doubt { taken, confirmed: true }) => {
                return Err(SourceError::out_of_range(partition, taken.next_offset, retained).into());
            }
            Some(Doubt { taken, confirmed: false }) => {
                self.doubt(&partition, Doubt { taken, confirmed: true });
            }
            None => {
                let first = First {
                    offset: retained.resolve(self.settings.start),
                    late: retained.earliest,
                    end: Some(retained.end),
                };
                self.send(&partition, LaneInput::Take { partition: partition.clone(), first });
            }
        }
        Ok(())
    }

    fn on_output(&mut self, output: LaneOutput) -> Result<(), ConnectorError> {
        match output {
            LaneOutput::Settled(point) => self.source.commit(&point),
            LaneOutput::Taken { partition, taken } => {
                // A partition that was revoked while it was being taken is somebody else's by now.
                let Some(assignment) = self.assigned.get_mut(&partition) else {
                    return Ok(());
                };
                if assignment.retained.covers(taken.next_offset) {
                    self.begin(&partition, taken);
                } else {
                    self.doubt(&partition, Doubt { taken, confirmed: false });
                }
            }
            LaneOutput::Fenced(lost) => {
                for (partition, tenure) in lost {
                    self.send(&partition, LaneInput::Forget { partition: partition.clone(), tenure });
                    let current = self.assigned.get(&partition).and_then(|assignment| assignment.tenure);
                    let known = self.retakes.iter().any(|(_, waiting)| *waiting == partition);
                    if current == Some(tenure) && !known {
                        tracing::warn!(%partition, "another instance has taken this partition");
                        self.monitor.awaits(std::slice::from_ref(&partition));
                        self.retakes.push((Instant::now() + RETAKE, partition));
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the source once more what it holds of a partition.
    fn doubt(&mut self, partition: &Partition, doubt: Doubt) {
        if let Some(assignment) = self.assigned.get_mut(partition) {
            assignment.doubtful = Some(doubt);
            self.source.announce(partition);
        }
    }

    fn begin(&mut self, partition: &Partition, taken: Taken) {
        let Taken { tenure, next_offset, stored, last_timestamp } = taken;
        let Some(assignment) = self.assigned.get_mut(partition) else { return };
        assignment.tenure = Some(tenure);
        let retained = assignment.retained;
        let origin = match stored {
            true => format!("stored in {}", self.target),
            false if next_offset == retained.earliest => "the beginning, as nothing is stored".to_owned(),
            false if next_offset == retained.end => {
                "the end, as nothing is stored and start is end".to_owned()
            }
            false => "the configured start, as nothing is stored".to_owned(),
        };
        tracing::info!(%partition, offset = next_offset, origin, epoch = tenure.0, "partition begins");
        self.monitor.begins(partition, tenure, next_offset, retained.end);
        // The last record that was written is read once more, as long as it exists: it bears witness
        // that this is still the same log.
        let witness = last_timestamp.filter(|_| retained.earliest < next_offset);
        let from = if witness.is_some() { next_offset - 1 } else { next_offset };
        let partition_name = partition.clone();
        self.send(partition, LaneInput::Begin { partition: partition_name, tenure, next_offset, witness });
        self.source.begin(partition, tenure, from);
    }

    /// Takes partitions again that the group still counts as ours. Either we were too slow in an
    /// earlier rebalance, or two connectors share one name; the offsets stay right in both cases.
    fn retake(&mut self) {
        let now = Instant::now();
        let due: Vec<Partition> =
            self.retakes.extract_if(.., |(due, _)| *due <= now).map(|(_, partition)| partition).collect();
        for partition in due {
            if self.assigned.contains_key(&partition) {
                tracing::warn!(
                    %partition,
                    "taking it again; if this goes on, two connectors have the same meta.name"
                );
                self.source.announce(&partition);
            }
        }
    }

    fn release(&self, partitions: &[Partition], done: &Arc<HandOver>) {
        for (lane, input) in self.lanes.iter().enumerate() {
            let share: Vec<Partition> =
                partitions.iter().filter(|partition| self.homes.of(partition) == lane).cloned().collect();
            if !share.is_empty() {
                drop(input.send(LaneInput::Release { partitions: share, done: Arc::clone(done) }));
            }
        }
    }

    fn send(&self, partition: &Partition, input: LaneInput) {
        // A lane that is gone has left its reason with its task, which `run` waits for.
        drop(self.lanes[self.homes.of(partition)].send(input));
    }

    /// Finishes what was gathered, reports it to the source, and closes it. Returns whether all of
    /// it was finished by `deadline`, and the first error of a lane.
    pub(crate) async fn drain(mut self, deadline: Instant) -> (bool, Result<(), ConnectorError>) {
        self.stop_gathering.cancel();
        let mut outcome = Ok(());
        let finish = async {
            while let Some(ended) = self.tasks.join_next().await {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(flatten(ended));
            }
        };
        let drained = tokio::time::timeout_at(deadline, finish).await.is_ok();
        // Cuts the connections of lanes that are still at it; the server rolls back.
        self.tasks.shutdown().await;
        while let Ok(output) = self.outputs.try_recv() {
            if let LaneOutput::Settled(point) = output {
                self.source.commit(&point);
            }
        }
        self.source.close(goodbye(deadline)).await;
        (drained, outcome)
    }
}

/// How long the source may take to leave, if everything is to end by `deadline`.
pub(crate) fn goodbye(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).clamp(GOODBYE.0, GOODBYE.1)
}

#[expect(
    clippy::disallowed_methods,
    reason = "bounded in bytes by the budget that the source charges runs to"
)]
fn input_channel() -> (mpsc::UnboundedSender<LaneInput>, mpsc::UnboundedReceiver<LaneInput>) {
    mpsc::unbounded_channel()
}

#[expect(
    clippy::disallowed_methods,
    reason = "one small report for each batch or partition; never waits for others"
)]
fn output_channel() -> (mpsc::UnboundedSender<LaneOutput>, mpsc::UnboundedReceiver<LaneOutput>) {
    mpsc::unbounded_channel()
}

/// How a task of a lane ended. A gatherer whose writer has failed ends well: the writer says why.
fn flatten(ended: Result<Result<(), ConnectorError>, JoinError>) -> Result<(), ConnectorError> {
    ended.unwrap_or_else(|fault| Err(ConnectorError::Defect(fault.to_string())))
}
