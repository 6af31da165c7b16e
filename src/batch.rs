//! Records gathered into one transaction. Fourth stop on a record's way; pure.
//!
//! Invariant: every position a batch covers is in it as exactly one of a row, a deletion or a
//! reject (or was older than the batch's start, and so already written). For each table and key the
//! last one wins, whatever came before it in the batch (`table.rs` has the rule for stale writes).
//!
//! The raw records stay with the batch until it is durable: what the target refuses becomes a dead
//! letter with every byte of the record.

mod letter;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::commit::CommitPoint;
use crate::decode::Embedding;
use crate::reject::Reject;
use crate::route::{Router, TableId};
use crate::source::{Fetched, Partition, SourceRecord, Tenure};
use crate::write::Receipt;

pub use letter::{DeadLetter, Refusal, Rejected};
pub use table::{Deletion, EntryId, Row, TableChanges};

use table::{Origin, TableEntries};

/// The stretch of one partition that a batch covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: Partition,
    /// The tenure under which it was read.
    pub tenure: Tenure,
    /// The offset that must be stored before the batch is written.
    pub from: i64,
    /// The offset that is stored with it: that of the next record.
    pub to: i64,
    /// The timestamp of the record before `to`, in milliseconds.
    pub last_timestamp: Option<i64>,
}

/// Records of some partitions, to be written in one transaction.
#[derive(Debug)]
pub struct Batch {
    id: u64,
    spans: Vec<Span>,
    dropped: Vec<bool>,
    /// What lies in each span.
    covered: Vec<Covered>,
    tables: Vec<TableEntries>,
    rejected: Vec<Rejected>,
    /// The records among them that the target refused.
    refused: BTreeSet<Origin>,
    /// What the records lie in, and with it their share of the source's budget.
    runs: Vec<Arc<Fetched>>,
    records: usize,
    source_bytes: usize,
    bytes: usize,
}

/// The records of a span.
#[derive(Debug, Default)]
struct Covered {
    records: usize,
    source_bytes: usize,
    timestamps: Vec<i64>,
}

/// Where a record stands: its partition, the tenure it was read under, and the offset stored for
/// the partition before the batch.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The partition.
    pub partition: &'a Partition,
    /// The tenure.
    pub tenure: Tenure,
    /// The offset that the previous batch stored, or will have stored.
    pub stored: i64,
}

impl Batch {
    /// An empty batch for the tables of `router`. `id` ties its receipt to it.
    pub fn new(id: u64, router: &Router) -> Self {
        Self {
            id,
            spans: Vec::new(),
            dropped: Vec::new(),
            covered: Vec::new(),
            tables: router.tables().iter().map(TableEntries::new).collect(),
            rejected: Vec::new(),
            refused: BTreeSet::new(),
            runs: Vec::new(),
            records: 0,
            source_bytes: 0,
            bytes: 0,
        }
    }

    /// The number that ties a [`Receipt`] to this batch.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it covers no position.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many records it covers, without those that were dropped. So are its source bytes and timestamps counted; the other
    /// bytes stay as they were.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of keys, payloads and headers that went into it.
    pub fn source_bytes(&self) -> usize {
        self.source_bytes
    }

    /// Bytes that are about to be sent: of rows, and of records that cannot be used.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes it takes in memory: its rows, and the records they were made of.
    pub fn memory(&self) -> usize {
        self.bytes + self.source_bytes
    }

    /// The timestamps of its records, in milliseconds, as far as they have one.
    pub fn timestamps(&self) -> impl Iterator<Item = i64> {
        let covered = self.covered.iter().zip(&self.dropped).filter(|(_, dropped)| !**dropped);
        covered.flat_map(|(covered, _)| covered.timestamps.iter().copied())
    }

    /// Keeps what the next records lie in, until the batch is done with. Once is enough.
    pub fn keep(&mut self, run: &Arc<Fetched>) {
        if !self.runs.last().is_some_and(|last| Arc::ptr_eq(last, run)) {
            self.runs.push(Arc::clone(run));
        }
    }

    /// Moves the position over what the source has left out, up to `next_offset`. `timestamp` is that of the
    /// record before. Says under which span.
    pub fn pass(&mut self, at: &Place<'_>, next_offset: i64, timestamp: Option<i64>) -> usize {
        let known =
            self.spans.iter().rposition(|span| span.partition == *at.partition && span.tenure == at.tenure);
        let index = known.unwrap_or_else(|| {
            self.spans.push(Span {
                partition: at.partition.clone(),
                tenure: at.tenure,
                from: at.stored,
                to: at.stored,
                last_timestamp: None,
            });
            self.dropped.push(false);
            self.covered.push(Covered::default());
            self.spans.len() - 1
        });
        debug_assert!(next_offset > self.spans[index].to, "offsets of a partition rise");
        self.spans[index].to = next_offset;
        self.spans[index].last_timestamp = timestamp;
        index
    }

    /// Takes note that the batch covers `record`, which lies in the run that was kept last.
    fn cover(&mut self, at: &Place<'_>, record: &SourceRecord<'_>) -> Origin {
        let span = self.pass(at, record.offset + 1, record.timestamp);
        let covered = &mut self.covered[span];
        covered.records += 1;
        covered.timestamps.extend(record.timestamp);
        covered.source_bytes += record.bytes();
        self.records += 1;
        self.source_bytes += record.bytes();
        let run = self.runs.len().saturating_sub(1);
        Origin { span: span as u32, run: run as u32, offset: record.offset }
    }

    /// Adds a row: `embedding` with its `vector`, which has the table's dimension.
    pub fn upsert(
        &mut self,
        at: &Place<'_>,
        record: &SourceRecord<'_>,
        table: TableId,
        embedding: &Embedding<'_>,
        vector: &[f32],
    ) {
        let origin = self.cover(at, record);
        self.bytes += self.tables[table.0].upsert(origin, embedding, vector);
    }

    /// Adds a deletion of `id` from every table.
    pub fn delete(&mut self, at: &Place<'_>, record: &SourceRecord<'_>, id: &str) {
        let origin = self.cover(at, record);
        for table in &mut self.tables {
            self.bytes += table.delete(origin, record, id);
        }
    }

    /// Adds a record that cannot be used, of which it is known at best for which `table` it was.
    pub fn reject(
        &mut self,
        at: &Place<'_>,
        record: &SourceRecord<'_>,
        table: Option<TableId>,
        reject: Reject,
    ) {
        let origin = self.cover(at, record);
        self.bytes += record.bytes() + size_of::<Rejected>();
        let (partition, offset) = (at.partition.clone(), record.offset);
        self.rejected.push(Rejected { partition, offset, table, reject, origin });
    }

    /// Makes rejects of records that the target refuses: they are no longer among the changes, and what they
    /// had overtaken is. Does nothing for a record that was refused before.
    ///
    /// # Panics
    /// When the run that a record lies in was not kept.
    pub fn refuse(&mut self, refusals: Vec<Refusal>) {
        for Refusal { table, entry, reject } in refusals {
            let origin = self.tables[table.0].origin(entry);
            // A tombstone is among the changes of every table.
            if !self.refused.insert(origin) {
                continue;
            }
            let partition = self.spans[origin.span as usize].partition.clone();
            let rejected = Rejected { partition, offset: origin.offset, table: Some(table), reject, origin };
            self.bytes += size_of::<Rejected>() + self.record(&rejected).bytes();
            self.rejected.push(rejected);
        }
    }

    /// What the changes had overtaken that the target refuses, by table: to be done in their place, if it is not
    /// refused either. `refusals` are all of an attempt; `latest` is where those begin whose place is to be taken.
    pub fn uncovered(&self, refusals: &[Refusal], latest: usize) -> Vec<TableChanges<'_>> {
        let origins = |refusals: &[Refusal]| -> BTreeSet<Origin> {
            refusals.iter().map(|refusal| self.tables[refusal.table.0].origin(refusal.entry)).collect()
        };
        let (mut refused, uncovering) = (origins(refusals), origins(&refusals[latest..]));
        refused.extend(&self.refused);
        self.tables.iter().map(|table| table.uncovered(&self.dropped, &refused, &uncovering)).collect()
    }

    /// Takes out everything that was read under these tenures: somebody else writes it. Returns
    /// whether anything is left to write.
    pub fn drop_tenures(&mut self, lost: &[(Partition, Tenure)]) -> bool {
        for (index, span) in self.spans.iter().enumerate() {
            let is_lost =
                lost.iter().any(|(partition, tenure)| span.partition == *partition && span.tenure == *tenure);
            if is_lost && !std::mem::replace(&mut self.dropped[index], true) {
                self.records -= self.covered[index].records;
                self.source_bytes -= self.covered[index].source_bytes;
            }
        }
        self.dropped.iter().any(|dropped| !dropped)
    }

    /// The spans that the batch still covers.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().zip(&self.dropped).filter(|(_, dropped)| !**dropped).map(|(span, _)| span)
    }

    /// The records of the batch that cannot be used.
    pub fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.iter().filter(|rejected| !self.dropped[rejected.origin.span as usize])
    }

    /// The same with all that is kept of them.
    ///
    /// # Panics
    /// When the run that a record lies in was not kept.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter<'_>> {
        self.rejected().map(|rejected| DeadLetter {
            rejected,
            table: rejected.table.map(|table| self.tables[table.0].name()),
            record: self.record(rejected),
        })
    }

    /// The record as it came, in the run that was kept when it was added.
    fn record(&self, rejected: &Rejected) -> SourceRecord<'_> {
        let run = self.runs.get(rejected.origin.run as usize);
        let found = run.and_then(|run| run.record_at(rejected.offset));
        found.expect("a batch keeps the runs that its records lie in")
    }

    /// What is to be done to `table`. Sorted by key, so that upserts lock rows in one
    /// order; a deadlock that is left (with deletions, or with others) is tried again.
    pub fn changes(&self, table: TableId) -> TableChanges<'_> {
        self.tables[table.0].changes(&self.dropped, &self.refused)
    }

    /// Turns the proof that this batch is durable into the right to commit its positions.
    ///
    /// # Panics
    /// When the receipt is another batch's.
    pub fn settle(&self, receipt: &Receipt) -> CommitPoint {
        assert_eq!(receipt.batch_id(), self.id, "a receipt settles the batch it was made for");
        CommitPoint::new(self.spans().map(|span| (span.partition.clone(), span.to)).collect())
    }
}

#[cfg(test)]
mod tests;
