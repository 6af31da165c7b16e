//! The members that share the partitions, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::History;
use super::log::Log;
use super::random::Random;
use super::source::{Ends, Notice, SimulatedSource};
use super::target::{Happening, Shared, SimulatedWriter, lock};
use crate::breaker::BreakerSettings;
use crate::config::{BatchSettings, StartAt, Tolerance};
use crate::error::ConnectorError;
use crate::monitoring::Monitor;
use crate::pipeline::{Pipeline, PipelineSettings};
use crate::source::{Budget, HandOver, Retained};

/// Whoever is not done by then, without a fault, is stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// The most members there are.
const MEMBERS: usize = 3;

/// A process that reads its share of the partitions.
struct Member {
    number: u64,
    notices: mpsc::UnboundedSender<Notice>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ConnectorError>>,
    is_leaving: bool,
    /// Partitions that the group has given to others, which it does not know yet.
    untold: BTreeSet<usize>,
}

/// What is to come.
enum Event {
    /// The next fault.
    Fault,
    /// More records of a partition.
    Produce(usize),
    /// A partition that nobody has is given to somebody.
    Assign(usize),
    /// A member hears that it has lost a partition.
    Tell { member: u64, partition: usize },
    /// A member that was asked to hand a partition over may have done so.
    HandOver { partition: usize, done: oneshot::Receiver<()>, until: Instant },
}

/// A history in the making.
pub(super) struct Group {
    random: Random,
    log: Arc<Log>,
    ends: Arc<Ends>,
    target: Shared,
    members: Vec<Member>,
    next_member: u64,
    owners: Vec<Option<u64>>,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    faults: usize,
    settings: PipelineSettings,
}

impl Group {
    /// The beginning of a seed's history.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let log = Arc::new(Log::draw(&mut random));
        let partitions = log.partitions.len();
        let max_wait = 1 + random.below(20);
        let batch = BatchSettings {
            max_rows: 1 + random.below(12),
            max_bytes: 300 + random.below(5_000),
            max_wait: Duration::from_millis(max_wait as u64),
            linger: Duration::from_millis(random.below(max_wait + 1) as u64),
        };
        let settings = PipelineSettings {
            batch,
            tolerance: Tolerance::Data,
            start: StartAt::Beginning,
            breaker: BreakerSettings { max_ratio_permille: 1_000, window: 1_000 },
            letters: None,
        };
        let faults = random.below(16);
        Self {
            ends: Arc::new(Ends::at(vec![log.earliest; partitions])),
            log,
            target: Shared::default(),
            members: Vec::new(),
            next_member: 0,
            owners: vec![None; partitions],
            events: BTreeMap::new(),
            next_event: 0,
            faults,
            settings,
            random,
        }
    }

    /// Plays it to the end. Returns what it came to, or what is wrong.
    pub(super) async fn play(mut self) -> Result<History, String> {
        self.join();
        for partition in 0..self.owners.len() {
            self.after(100, Event::Assign(partition));
            self.after(50, Event::Produce(partition));
        }
        self.after(300, Event::Fault);
        while let Some(((due, _), event)) = self.events.pop_first() {
            tokio::time::sleep_until(due).await;
            self.check_members().await?;
            self.happen(event).await?;
        }
        lock(&self.target).is_calm = true;
        self.finish().await?;
        self.check()?;
        let target = lock(&self.target);
        Ok(History { trace: target.trace, counts: target.counts.clone() })
    }

    async fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Fault => {
                if self.faults > 0 {
                    self.faults -= 1;
                    self.fault().await?;
                    let within = if self.random.chance(15) { 12_000 } else { 300 };
                    self.after(within, Event::Fault);
                }
            }
            Event::Produce(partition) => {
                let to = self.ends.of(partition) + 1 + self.random.below(25) as i64;
                let end = self.log.end(partition);
                self.ends.extend(partition, to.min(end));
                for member in &self.members {
                    drop(member.notices.send(Notice::More));
                }
                if to < end {
                    self.after(400, Event::Produce(partition));
                }
            }
            Event::Assign(partition) => self.assign(partition),
            Event::Tell { member, partition } => self.tell(member, partition),
            Event::HandOver { partition, mut done, until } => {
                let is_done = done.try_recv() != Err(oneshot::error::TryRecvError::Empty);
                if is_done || until <= Instant::now() {
                    self.assign(partition);
                } else {
                    self.after(40, Event::HandOver { partition, done, until });
                }
            }
        }
        Ok(())
    }

    async fn fault(&mut self) -> Result<(), String> {
        let kind = self.random.below(100);
        let partition = self.random.below(self.owners.len());
        let owner = self.owners[partition];
        match (kind, owner) {
            (0..=24, _) if !self.members.is_empty() => self.crash().await?,
            (25..=39, _) if self.members.len() < MEMBERS => {
                self.join();
                self.hand_over(partition);
            }
            (40..=49, _) => self.leave(),
            (50..=64, Some(_)) => self.hand_over(partition),
            (65..=79, Some(owner)) => self.take_away(partition, owner),
            (80..=99, Some(owner)) => {
                let retained = Retained { earliest: self.log.earliest, end: self.ends.of(partition) };
                lock(&self.target).note(Happening::AnnouncedAgain, &[partition as i64, retained.end]);
                if let Some(member) = self.member(owner) {
                    drop(member.notices.send(Notice::Assigned { partition, retained }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A new member, which has nothing yet.
    fn join(&mut self) {
        let (sender, notices) = notices();
        let source = SimulatedSource::new(&self.log, &self.ends, &self.target, notices, self.random.split());
        let lanes = 1 + self.random.below(3);
        let writers = (0..lanes).map(|_| SimulatedWriter::new(&self.target, self.random.split())).collect();
        let monitor = Arc::new(Monitor::new("simulated", Budget::new(1 << 20)));
        let router = Arc::new(Log::router());
        let pipeline = Pipeline::new(source, writers, router, self.settings.clone(), &monitor);
        let grace = Duration::from_millis(self.random.below(5_000) as u64);
        let stop = CancellationToken::new();
        let task = tokio::spawn(live(pipeline, stop.clone(), grace));
        self.members.push(Member {
            number: self.next_member,
            notices: sender,
            stop,
            task,
            is_leaving: false,
            untold: BTreeSet::new(),
        });
        self.next_member += 1;
    }

    /// A member is gone, in the middle of whatever it was doing.
    async fn crash(&mut self) -> Result<(), String> {
        let member = self.members.swap_remove(self.random.below(self.members.len()));
        lock(&self.target).note(Happening::Crash, &[member.number as i64]);
        self.release_all(member.number);
        member.task.abort();
        drop(member.task.await);
        self.check()
    }

    /// A member is asked to stop, and leaves when it has drained.
    fn leave(&mut self) {
        let which = self.random.below(self.members.len().max(1));
        let Some(member) = self.members.get_mut(which) else { return };
        member.is_leaving = true;
        member.stop.cancel();
        let number = member.number;
        lock(&self.target).note(Happening::Leave, &[number as i64]);
        self.release_all(number);
    }

    /// Nobody has what this member had; somebody else gets it when the group has noticed.
    fn release_all(&mut self, number: u64) {
        for partition in 0..self.owners.len() {
            if self.owners[partition] == Some(number) {
                self.owners[partition] = None;
                self.after(2_500, Event::Assign(partition));
            }
        }
    }

    /// The group asks the owner to finish what it has, and waits for that, but not for ever.
    fn hand_over(&mut self, partition: usize) {
        let Some(owner) = self.owners[partition].take() else { return };
        lock(&self.target).note(Happening::HandOver, &[partition as i64]);
        let (handover, done) = HandOver::new();
        if let Some(member) = self.member(owner) {
            drop(member.notices.send(Notice::Revoked { partition, done: handover }));
        }
        let until = Instant::now() + Duration::from_millis(self.random.below(3_000) as u64);
        self.after(40, Event::HandOver { partition, done, until });
    }

    /// The group gives a partition away whose owner does not answer. It hears of that later, and writes on.
    fn take_away(&mut self, partition: usize, owner: u64) {
        lock(&self.target).note(Happening::TakenAway, &[partition as i64]);
        self.owners[partition] = None;
        if let Some(member) = self.member(owner) {
            member.untold.insert(partition);
        }
        self.after(50, Event::Assign(partition));
        let within = if self.random.chance(30) { 15_000 } else { 500 };
        self.after(within, Event::Tell { member: owner, partition });
    }

    fn tell(&mut self, number: u64, partition: usize) {
        let Some(member) = self.member(number) else { return };
        if member.untold.remove(&partition) {
            drop(member.notices.send(Notice::Revoked { partition, done: HandOver::new().0 }));
        }
    }

    fn assign(&mut self, partition: usize) {
        if self.owners[partition].is_some() {
            return;
        }
        if self.members.iter().all(|member| member.is_leaving) {
            self.join();
        }
        let staying = self.members.iter().filter(|member| !member.is_leaving);
        let choices: Vec<u64> = staying.map(|member| member.number).collect();
        let owner = self.random.pick(&choices);
        // It learns that it has lost the partition before it learns that it has it again.
        self.tell(owner, partition);
        self.owners[partition] = Some(owner);
        let retained = self.retained(partition);
        if let Some(member) = self.member(owner) {
            drop(member.notices.send(Notice::Assigned { partition, retained }));
        }
    }

    /// What the broker holds, or what it held a moment ago.
    fn retained(&mut self, partition: usize) -> Retained {
        let (earliest, end) = (self.log.earliest, self.ends.of(partition));
        let ago = if self.random.chance(20) { self.random.below(10) as i64 } else { 0 };
        Retained { earliest, end: earliest.max(end - ago) }
    }

    fn member(&mut self, number: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.number == number)
    }

    /// A member that ends without being asked to has failed.
    async fn check_members(&mut self) -> Result<(), String> {
        while let Some(ended) = self.members.iter().position(|member| member.task.is_finished()) {
            let member = self.members.swap_remove(ended);
            match member.task.await {
                Ok(Ok(())) if member.is_leaving => {}
                ended => return Err(format!("member {} ended: {ended:?}", member.number)),
            }
        }
        Ok(())
    }

    /// The invariant.
    fn check(&self) -> Result<(), String> {
        let target = lock(&self.target);
        self.log.judge(|partition| target.position(partition), &target.tables, &target.letters)
    }

    /// Lets them read to the end, and stops them.
    async fn finish(&mut self) -> Result<(), String> {
        let by = Instant::now() + PATIENCE;
        let is_left = |partition: usize| {
            let position = lock(&self.target).position(partition);
            (position != self.log.end(partition)).then_some((partition, position))
        };
        while let Some((partition, position)) = (0..self.owners.len()).find_map(is_left) {
            if by <= Instant::now() {
                let end = self.log.end(partition);
                return Err(format!("partition {partition} stands still at {position}, before {end}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(ended) = self.members.iter().find(|one| one.task.is_finished() && !one.is_leaving) {
                return Err(format!("member {} has ended", ended.number));
            }
        }
        for member in self.members.drain(..) {
            member.stop.cancel();
            match member.task.await {
                Ok(Ok(())) => {}
                ended => return Err(format!("member {} ended: {ended:?}", member.number)),
            }
        }
        Ok(())
    }

    fn after(&mut self, within: usize, event: Event) {
        let due = Instant::now() + Duration::from_millis(1 + self.random.below(within) as u64);
        self.events.insert((due, self.next_event), event);
        self.next_event += 1;
    }
}

/// A process, from its start to its end.
async fn live(
    mut pipeline: Pipeline<SimulatedSource>,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), ConnectorError> {
    let ended = pipeline.run(&stop).await;
    let (_, finished) = pipeline.drain(Instant::now() + grace).await;
    ended.and(finished)
}

#[expect(clippy::disallowed_methods, reason = "a history has few notices")]
fn notices() -> (mpsc::UnboundedSender<Notice>, mpsc::UnboundedReceiver<Notice>) {
    mpsc::unbounded_channel()
}
