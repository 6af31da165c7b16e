//! The target in memory: tables, dead letters and positions, changed in whole transactions.
//!
//! It outlives the processes that write to it. A transaction that was sent goes on without its client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::NoTls;

use super::log::{Letters, Tables, is_poison};
use super::random::Random;
use crate::batch::{Batch, EntryId, Refusal, Span};
use crate::error::WriteError;
use crate::reject::{Reject, RejectReason};
use crate::route::TableId;
use crate::source::{Partition, Tenure};
use crate::write::{First, Receipt, Taken, Writer, Written};

/// A stored position: `embedsink.offsets`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    epoch: i64,
    pub(super) next_offset: i64,
    last_timestamp: Option<i64>,
}

/// What is durable.
#[derive(Default)]
pub(super) struct Target {
    pub(super) tables: Tables,
    pub(super) letters: Letters,
    pub(super) offsets: BTreeMap<usize, Stored>,
    /// Nothing goes wrong any more.
    pub(super) is_calm: bool,
    /// All that has happened, as one number.
    pub(super) trace: u64,
    /// How often what has happened.
    pub(super) counts: BTreeMap<Happening, u64>,
}

/// What can happen. How often each did says whether histories hold what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    Taken,
    Committed,
    FoundInLedger,
    Fenced,
    Refused,
    Fetched,
    FetchedLate,
    Crash,
    Leave,
    HandOver,
    TakenAway,
    AnnouncedAgain,
    AnswerLost,
}

impl Happening {
    /// Everything that can happen.
    pub(super) const ALL: [Self; 13] = [
        Self::Taken,
        Self::Committed,
        Self::FoundInLedger,
        Self::Fenced,
        Self::Refused,
        Self::Fetched,
        Self::FetchedLate,
        Self::Crash,
        Self::Leave,
        Self::HandOver,
        Self::TakenAway,
        Self::AnnouncedAgain,
        Self::AnswerLost,
    ];
}

/// A target that many share.
pub(super) type Shared = Arc<Mutex<Target>>;

/// The target, for a moment.
pub(super) fn lock(target: &Shared) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A batch as it travels to the server.
struct Transaction {
    spans: Vec<Span>,
    deletes: Vec<(usize, String)>,
    upserts: Vec<(usize, EntryId, String, String)>,
    letters: Vec<((usize, i64), RejectReason)>,
}

/// What the server says to a transaction.
enum Answer {
    Committed,
    FoundInLedger,
    Fenced(Vec<(Partition, Tenure)>),
    Refused(Vec<(usize, EntryId)>),
}

impl Target {
    /// Takes note of something that happened.
    pub(super) fn note(&mut self, what: Happening, details: &[i64]) {
        *self.counts.entry(what).or_default() += 1;
        for number in [what as u64].into_iter().chain(details.iter().map(|number| *number as u64)) {
            self.trace = (self.trace ^ number).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    }

    /// The offset to go on at, or 0.
    pub(super) fn position(&self, partition: usize) -> i64 {
        self.offsets.get(&partition).map_or(0, |stored| stored.next_offset)
    }

    /// As `ledger::take`.
    fn take(&mut self, partition: usize, first: First) -> Taken {
        let entry = self.offsets.entry(partition);
        let stored = entry.and_modify(|stored| stored.epoch += 1).or_insert(Stored {
            epoch: 1,
            next_offset: first.offset,
            last_timestamp: None,
        });
        let Stored { epoch, next_offset, last_timestamp } = *stored;
        self.note(Happening::Taken, &[partition as i64, epoch, next_offset]);
        Taken { tenure: Tenure(epoch), next_offset, stored: epoch > 1, last_timestamp }
    }

    /// As `PostgresWriter::attempt`: the positions by compare-and-set, or nothing of it.
    fn apply(&mut self, transaction: &Transaction) -> Answer {
        let stored = |span: &Span| self.offsets.get(&number(&span.partition)).copied();
        let moves = |span: &Span| {
            stored(span).is_some_and(|at| at.epoch == span.tenure.0 && at.next_offset == span.from)
        };
        let moved = transaction.spans.iter().filter(|span| moves(span)).count();
        if moved < transaction.spans.len() {
            let is_written = |span: &Span| {
                moved == 0
                    && stored(span).is_some_and(|at| at.epoch == span.tenure.0 && at.next_offset == span.to)
            };
            let lost = transaction.spans.iter().filter(|span| !moves(span) && !is_written(span));
            let lost: Vec<_> = lost.map(|span| (span.partition.clone(), span.tenure)).collect();
            if lost.is_empty() {
                self.note(Happening::FoundInLedger, &[]);
                return Answer::FoundInLedger;
            }
            self.note(Happening::Fenced, &[lost.len() as i64]);
            return Answer::Fenced(lost);
        }
        let refused = transaction.upserts.iter().filter(|(_, _, _, text)| is_poison(text));
        let refused: Vec<_> = refused.map(|(table, entry, _, _)| (*table, *entry)).collect();
        if !refused.is_empty() {
            self.note(Happening::Refused, &[refused.len() as i64]);
            return Answer::Refused(refused);
        }
        for (table, id) in &transaction.deletes {
            self.tables[*table].remove(id);
        }
        for (table, _, id, text) in &transaction.upserts {
            self.tables[*table].insert(id.clone(), text.clone());
        }
        for (position, reason) in &transaction.letters {
            let before = self.letters.insert(*position, *reason);
            assert_eq!(before, None, "{position:?} becomes a dead letter once");
        }
        for Span { partition, to, last_timestamp, .. } in &transaction.spans {
            let number = number(partition);
            if let Some(stored) = self.offsets.get_mut(&number) {
                (stored.next_offset, stored.last_timestamp) = (*to, *last_timestamp);
            }
            self.note(Happening::Committed, &[number as i64, *to]);
        }
        Answer::Committed
    }
}

/// The partition's number, as an index.
pub(super) fn number(partition: &Partition) -> usize {
    partition.number().unsigned_abs() as usize
}

impl Transaction {
    fn of(batch: &Batch) -> Self {
        let (mut deletes, mut upserts) = (Vec::new(), Vec::new());
        for table in 0..Tables::default().len() {
            let changes = batch.changes(TableId(table));
            deletes.extend(changes.deletes.iter().map(|deletion| (table, deletion.id.to_owned())));
            upserts.extend(
                changes.upserts.iter().map(|row| {
                    (table, row.entry, row.id.to_owned(), row.text.unwrap_or_default().to_owned())
                }),
            );
        }
        let letters = batch
            .rejected()
            .map(|rejected| ((number(&rejected.partition), rejected.offset), rejected.reject.reason));
        Self { spans: batch.spans().cloned().collect(), deletes, upserts, letters: letters.collect() }
    }
}

/// Writes to the target over a connection on which much goes wrong.
pub(super) struct SimulatedWriter {
    target: Shared,
    random: Random,
}

/// What becomes of an attempt.
enum Way {
    /// The server does it and says so.
    Answered,
    /// The connection is lost before the server has all of it.
    LostBefore,
    /// The connection is lost when the commit is sent: the server does it, sooner or later.
    LostBehind,
}

impl SimulatedWriter {
    /// A writer with choices of its own.
    pub(super) fn new(target: &Shared, random: Random) -> Self {
        Self { target: Arc::clone(target), random }
    }

    /// How long the server takes: mostly nothing, sometimes as long as a lock that somebody holds.
    fn time(&mut self) -> Duration {
        let longest = match self.random.below(100) {
            _ if lock(&self.target).is_calm => 5,
            0..=84 => 5,
            85..=94 => 1_000,
            _ => 30_000,
        };
        Duration::from_millis(self.random.below(longest) as u64)
    }

    fn way(&mut self) -> Way {
        match self.random.below(100) {
            _ if lock(&self.target).is_calm => Way::Answered,
            0..=6 => Way::LostBefore,
            7..=14 => Way::LostBehind,
            _ => Way::Answered,
        }
    }

    /// Gives something to the server, which does it even if nobody waits for the answer any more.
    async fn send<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Target) -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let (way, time) = (self.way(), self.time());
        if matches!(way, Way::LostBefore) {
            tokio::time::sleep(time).await;
            return Err(connection_lost().await);
        }
        let (sender, answer) = oneshot::channel();
        let target = Arc::clone(&self.target);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let done = work(&mut lock(&target));
            drop(sender.send(done));
        });
        if matches!(way, Way::LostBehind) {
            let time = self.time();
            tokio::time::sleep(time).await;
            lock(&self.target).note(Happening::AnswerLost, &[]);
            return Err(connection_lost().await);
        }
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(connection_lost().await),
        }
    }
}

impl Writer for SimulatedWriter {
    async fn take(&mut self, partition: &Partition, first: First) -> Result<Taken, WriteError> {
        let partition = number(partition);
        self.send(move |target| target.take(partition, first)).await
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, WriteError> {
        let transaction = Transaction::of(batch);
        let refusal = |(table, entry)| Refusal {
            table: TableId(table),
            entry,
            reject: Reject::new(RejectReason::Refused, "simulated"),
        };
        Ok(match self.send(move |target| target.apply(&transaction)).await? {
            Answer::Committed | Answer::FoundInLedger => Written::Durable(Receipt::for_tests(batch.id())),
            Answer::Fenced(lost) => Written::Fenced(lost),
            Answer::Refused(refused) => Written::Refused(refused.into_iter().map(refusal).collect()),
        })
    }
}

/// What the driver says when the server has gone.
async fn connection_lost() -> WriteError {
    let (client, server) = tokio::io::duplex(64);
    drop(server);
    let mut config = tokio_postgres::Config::new();
    let error = config.user("simulated").connect_raw(client, NoTls).await.err().expect("nobody is there");
    sink_postgres_vector::Error::during("reach the simulated server", error).into()
}
