//! One table's share of a batch, and what is left of it once the last change per key has won.
//!
//! Invariant: doing what [`TableEntries::changes`] says, deletions first, leaves the table as doing every
//! entry in its order would.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::decode::Embedding;
use crate::route::TableLimits;
use crate::source::SourceRecord;

/// One change of a batch to one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId(u32);

/// A row of a batch, borrowed from it.
#[derive(Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// The change it comes from; in the order of the log.
    pub entry: EntryId,
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

/// A key to delete, borrowed from a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Deletion<'a> {
    /// The change it comes from.
    pub entry: EntryId,
    /// The key.
    pub id: &'a str,
    /// When the tombstone was written, in microseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// What is left to do for one table once the last change per key has won; both sorted by key.
#[derive(Default)]
pub struct TableChanges<'a> {
    /// Keys to delete, before anything is written. Where stale writes are skipped, a key can be here and among
    /// `upserts`.
    pub deletes: Vec<Deletion<'a>>,
    /// Rows to insert or overwrite.
    pub upserts: Vec<Row<'a>>,
    /// Whether a row of the table that is newer than the change stays as it is.
    pub skip_stale: bool,
    /// Changes that are left out because a newer one stands before them in the batch.
    pub stale: u64,
}

#[derive(Debug)]
struct Entry {
    span: u32,
    offset: i64,
    id: Range<usize>,
    timestamp: Option<i64>,
    /// `None` deletes.
    row: Option<RowFields>,
}

#[derive(Debug)]
struct RowFields {
    text: Option<Range<usize>>,
    source: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
    vector: usize,
}

/// One table's share: texts and vectors of all rows lie behind each other in one piece each.
pub(super) struct TableEntries {
    name: String,
    dimensions: usize,
    skip_stale: bool,
    texts: String,
    vectors: Vec<f32>,
    entries: Vec<Entry>,
    /// Span and offset of the records that the target refuses.
    refused: BTreeSet<(u32, i64)>,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("dimensions", &self.embedding.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Deletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deletion").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl fmt::Debug for TableChanges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableChanges")
            .field("upserts", &self.upserts.len())
            .field("deletes", &self.deletes.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TableEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableEntries").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl TableEntries {
    pub(super) fn new(table: &TableLimits) -> Self {
        Self {
            name: table.name.clone(),
            dimensions: table.dimensions,
            skip_stale: table.skip_stale,
            texts: String::new(),
            vectors: Vec::new(),
            entries: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a row, and says how many bytes it takes.
    pub(super) fn upsert(
        &mut self,
        span: usize,
        offset: i64,
        embedding: &Embedding<'_>,
        vector: &[f32],
    ) -> usize {
        debug_assert_eq!(vector.len(), self.dimensions, "the router checks the dimension");
        let id = self.keep(&embedding.id);
        let start = id.start;
        let row = Some(RowFields {
            text: embedding.text.as_deref().map(|text| self.keep(text)),
            source: embedding.source.as_deref().map(|source| self.keep(source)),
            metadata: embedding.metadata.map(|metadata| self.keep(metadata)),
            vector: self.vectors.len(),
        });
        self.vectors.extend_from_slice(vector);
        self.entries.push(Entry { span: span as u32, offset, id, timestamp: embedding.timestamp, row });
        self.texts.len() - start + size_of_val(vector) + size_of::<Entry>()
    }

    /// Adds a deletion, and says how many bytes it takes.
    pub(super) fn delete(&mut self, span: usize, record: &SourceRecord<'_>, id: &str) -> usize {
        let timestamp = record.timestamp.map(|millis| millis.saturating_mul(1_000));
        let id = self.keep(id);
        let bytes = id.len() + size_of::<Entry>();
        self.entries.push(Entry { span: span as u32, offset: record.offset, id, timestamp, row: None });
        bytes
    }

    /// Span and offset of the record that an entry comes from.
    pub(super) fn origin(&self, entry: EntryId) -> (usize, i64) {
        let entry = &self.entries[entry.0 as usize];
        (entry.span as usize, entry.offset)
    }

    /// Leaves out what comes from this record from now on. Returns whether it was not left out before.
    pub(super) fn refuse(&mut self, span: usize, offset: i64) -> bool {
        self.refused.insert((span as u32, offset))
    }

    /// What is left to do, but for spans that were `dropped`.
    pub(super) fn changes(&self, dropped: &[bool]) -> TableChanges<'_> {
        let mut order: Vec<(&str, u32)> = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let is_refused = !self.refused.is_empty() && self.refused.contains(&(entry.span, entry.offset));
            if !dropped[entry.span as usize] && !is_refused {
                order.push((&self.texts[entry.id.clone()], index as u32));
            }
        }
        order.sort_unstable();
        let mut changes = TableChanges { skip_stale: self.skip_stale, ..TableChanges::default() };
        for of_one_key in order.chunk_by(|(id, _), (next, _)| id == next) {
            match self.skip_stale {
                false => self.last_wins(of_one_key, &mut changes),
                true => self.newest_wins(of_one_key, &mut changes),
            }
        }
        changes
    }

    fn last_wins<'a>(&'a self, of_one_key: &[(&'a str, u32)], changes: &mut TableChanges<'a>) {
        if let Some((id, index)) = of_one_key.last() {
            self.push(id, *index, changes);
        }
    }

    /// What the changes of one key come to where stale ones are skipped, whatever version the stored row has.
    ///
    /// Let *M* be the newest version among them, and *j* the last change that has it. A stored row newer than *M*
    /// outlives them all. Any other is overwritten or deleted by *j* at the latest, and from there on the state
    /// no longer depends on it. So *j* is done if the stored row allows it. If *j* writes a row, nothing older
    /// behind it changes that. If it deletes, the rows behind it are as if there had been none.
    fn newest_wins<'a>(&'a self, of_one_key: &[(&'a str, u32)], changes: &mut TableChanges<'a>) {
        let versions = || of_one_key.iter().map(|(_, index)| self.version(*index));
        let Some(newest) = versions().max() else { return };
        let Some(at) = versions().rposition(|version| version == newest) else { return };
        let (id, index) = of_one_key[at];
        let behind = &of_one_key[at + 1..];
        self.push(id, index, changes);
        if self.entries[index as usize].row.is_some() {
            changes.stale += behind.len() as u64;
            return;
        }
        let mut row: Option<u32> = None;
        for (_, next) in behind {
            let is_stale = row.is_some_and(|row| self.version(*next) < self.version(row));
            match &self.entries[*next as usize].row {
                _ if is_stale => changes.stale += 1,
                Some(_) => row = Some(*next),
                None => row = None,
            }
        }
        if let Some(row) = row {
            self.push(id, row, changes);
        }
    }

    /// How new a change is. A row without a timestamp is older than any other; a deletion without one deletes
    /// whatever is there.
    fn version(&self, index: u32) -> i64 {
        let entry = &self.entries[index as usize];
        entry.timestamp.unwrap_or(if entry.row.is_some() { i64::MIN } else { i64::MAX })
    }

    fn push<'a>(&'a self, id: &'a str, index: u32, changes: &mut TableChanges<'a>) {
        let Entry { timestamp, row, .. } = &self.entries[index as usize];
        let (entry, timestamp) = (EntryId(index), *timestamp);
        let Some(fields) = row else {
            changes.deletes.push(Deletion { entry, id, timestamp });
            return;
        };
        let text = |range: &Option<Range<usize>>| range.clone().map(|range| &self.texts[range]);
        changes.upserts.push(Row {
            entry,
            id,
            text: text(&fields.text),
            embedding: &self.vectors[fields.vector..fields.vector + self.dimensions],
            timestamp,
            source: text(&fields.source),
            metadata: text(&fields.metadata),
        });
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.texts.len();
        self.texts.push_str(text);
        start..self.texts.len()
    }
}
