//! Records gathered into one transaction. Fourth stop on a record's way; pure.
//!
//! Invariant: every position a batch covers is in it as exactly one of a row, a deletion or a
//! reject (or was older than the batch's start, and so already written). For each table and key the
//! last one wins, whatever came before it in the batch.

use std::fmt;
use std::ops::Range;

use tokio::sync::OwnedSemaphorePermit;

use crate::commit::CommitPoint;
use crate::decode::Embedding;
use crate::reject::Reject;
use crate::route::{Router, TableId};
use crate::source::{Partition, SourceRecord, Tenure};
use crate::write::Receipt;

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

/// A row of a batch, borrowed from it.
#[derive(Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// The key.
    pub id: &'a str,
    /// The text.
    pub text: Option<&'a str>,
    /// The vector: dim × `f32`, all finite.
    pub embedding: &'a [f32],
    /// Microseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// The source.
    pub source: Option<&'a str>,
    /// The text of a JSON object.
    pub metadata: Option<&'a str>,
}

/// What is left to do for one table once the last change per key has won; both sorted by key.
#[derive(Default)]
pub struct TableChanges<'a> {
    /// Rows to insert or overwrite.
    pub upserts: Vec<Row<'a>>,
    /// Keys to delete.
    pub deletes: Vec<&'a str>,
}

/// A record that cannot be used, with all that a dead letter keeps of it.
pub struct Rejected {
    /// The partition it came from.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its whole payload.
    pub payload: Option<Vec<u8>>,
    /// The verdict.
    pub reject: Reject,
    span: usize,
}

#[derive(Debug)]
struct Entry {
    span: u32,
    id: Range<usize>,
    change: Option<RowFields>,
}

#[derive(Debug)]
struct RowFields {
    text: Option<Range<usize>>,
    source: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
    timestamp: Option<i64>,
    vector: usize,
}

/// One table's share: texts and vectors of all rows lie behind each other in one piece each.
struct TableEntries {
    dimensions: usize,
    texts: String,
    vectors: Vec<f32>,
    entries: Vec<Entry>,
}

/// Records of some partitions, to be written in one transaction.
#[derive(Debug)]
pub struct Batch {
    id: u64,
    spans: Vec<Span>,
    dropped: Vec<bool>,
    tables: Vec<TableEntries>,
    rejected: Vec<Rejected>,
    records: usize,
    source_bytes: usize,
    bytes: usize,
    timestamps: Vec<i64>,
    charges: Vec<OwnedSemaphorePermit>,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("dimensions", &self.embedding.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TableChanges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableChanges")
            .field("upserts", &self.upserts.len())
            .field("deletes", &self.deletes.len())
            .finish()
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("reject", &self.reject)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TableEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableEntries").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Batch {
    /// An empty batch for the tables of `router`. `id` ties its receipt to it.
    pub fn new(id: u64, router: &Router) -> Self {
        let tables = router.tables().iter().map(|table| TableEntries {
            dimensions: table.dimensions,
            texts: String::new(),
            vectors: Vec::new(),
            entries: Vec::new(),
        });
        Self {
            id,
            spans: Vec::new(),
            dropped: Vec::new(),
            tables: tables.collect(),
            rejected: Vec::new(),
            records: 0,
            source_bytes: 0,
            bytes: 0,
            timestamps: Vec::new(),
            charges: Vec::new(),
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

    /// How many records it covers.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of keys and payloads that went into it.
    pub fn source_bytes(&self) -> usize {
        self.source_bytes
    }

    /// Bytes it holds in memory for rows and rejects.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The timestamps of its records, in milliseconds, as far as they have one.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// Keeps a charge on the source's budget until the batch is done with. For a record that is by
    /// itself larger than a batch should be: the source then holds back others meanwhile.
    pub fn hold(&mut self, charge: Option<OwnedSemaphorePermit>) {
        self.charges.extend(charge);
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
            self.spans.len() - 1
        });
        debug_assert!(next_offset > self.spans[index].to, "offsets of a partition rise");
        self.spans[index].to = next_offset;
        self.spans[index].last_timestamp = timestamp;
        index
    }

    /// Takes note that the batch covers `record`, and says under which span.
    fn cover(&mut self, at: &Place<'_>, record: &SourceRecord<'_>) -> usize {
        let index = self.pass(at, record.offset + 1, record.timestamp);
        self.records += 1;
        self.timestamps.extend(record.timestamp);
        self.source_bytes += record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
        index
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
        let span = self.cover(at, record);
        let table = &mut self.tables[table.0];
        debug_assert_eq!(vector.len(), table.dimensions, "the router checks the dimension");
        let id = table.keep(&embedding.id);
        let change = Some(RowFields {
            text: embedding.text.as_deref().map(|text| table.keep(text)),
            source: embedding.source.as_deref().map(|source| table.keep(source)),
            metadata: embedding.metadata.map(|metadata| table.keep(metadata)),
            timestamp: embedding.timestamp,
            vector: table.vectors.len(),
        });
        table.vectors.extend_from_slice(vector);
        self.bytes += table.texts.len() - id.start + size_of_val(vector) + size_of::<Entry>();
        table.entries.push(Entry { span: span as u32, id, change });
    }

    /// Adds a deletion of `id` from every table.
    pub fn delete(&mut self, at: &Place<'_>, record: &SourceRecord<'_>, id: &str) {
        let span = self.cover(at, record) as u32;
        for table in &mut self.tables {
            let id = table.keep(id);
            self.bytes += id.len() + size_of::<Entry>();
            table.entries.push(Entry { span, id, change: None });
        }
    }

    /// Adds a record that cannot be used.
    pub fn reject(&mut self, at: &Place<'_>, record: &SourceRecord<'_>, reject: Reject) {
        let span = self.cover(at, record);
        self.bytes += record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
        self.bytes += size_of::<Rejected>();
        self.rejected.push(Rejected {
            partition: at.partition.clone(),
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            reject,
            span,
        });
    }

    /// Takes out everything that was read under these tenures: somebody else writes it. Returns
    /// whether anything is left to write.
    pub fn drop_tenures(&mut self, lost: &[(Partition, Tenure)]) -> bool {
        for (span, dropped) in self.spans.iter().zip(&mut self.dropped) {
            *dropped |=
                lost.iter().any(|(partition, tenure)| span.partition == *partition && span.tenure == *tenure);
        }
        self.dropped.iter().any(|dropped| !dropped)
    }

    /// The spans that the batch still covers.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().zip(&self.dropped).filter(|(_, dropped)| !**dropped).map(|(span, _)| span)
    }

    /// The records of the batch that cannot be used.
    pub fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.iter().filter(|rejected| !self.dropped[rejected.span])
    }

    /// What is to be done to `table`. Sorted by key, so that upserts lock rows in one
    /// order; a deadlock that is left (with deletions, or with others) is tried again.
    pub fn changes(&self, table: TableId) -> TableChanges<'_> {
        let table = &self.tables[table.0];
        let mut order: Vec<(&str, u32)> = Vec::with_capacity(table.entries.len());
        for (index, entry) in table.entries.iter().enumerate() {
            if !self.dropped[entry.span as usize] {
                order.push((&table.texts[entry.id.clone()], index as u32));
            }
        }
        order.sort_unstable();
        let mut changes = TableChanges::default();
        for (place, (id, index)) in order.iter().enumerate() {
            let overtaken = order.get(place + 1).is_some_and(|(next, _)| next == id);
            if overtaken {
                continue;
            }
            match &table.entries[*index as usize].change {
                Some(fields) => changes.upserts.push(table.row(id, fields)),
                None => changes.deletes.push(id),
            }
        }
        changes
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

impl TableEntries {
    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.texts.len();
        self.texts.push_str(text);
        start..self.texts.len()
    }

    fn row<'a>(&'a self, id: &'a str, fields: &RowFields) -> Row<'a> {
        let text = |range: &Option<Range<usize>>| range.clone().map(|range| &self.texts[range]);
        Row {
            id,
            text: text(&fields.text),
            embedding: &self.vectors[fields.vector..fields.vector + self.dimensions],
            timestamp: fields.timestamp,
            source: text(&fields.source),
            metadata: text(&fields.metadata),
        }
    }
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

#[cfg(test)]
mod tests;
