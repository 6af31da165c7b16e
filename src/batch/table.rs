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

/// The record that a change comes from. Equal for the changes that one tombstone makes to several tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    /// Of the batch's spans.
    pub(super) span: u32,
    /// Of the runs that the batch keeps.
    pub(super) run: u32,
    pub(super) offset: i64,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
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
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a row, and says how many bytes it takes.
    pub(super) fn upsert(&mut self, origin: Origin, embedding: &Embedding<'_>, vector: &[f32]) -> usize {
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
        self.entries.push(Entry { origin, id, timestamp: embedding.timestamp, row });
        self.texts.len() - start + size_of_val(vector) + size_of::<Entry>()
    }

    /// Adds a deletion, and says how many bytes it takes.
    pub(super) fn delete(&mut self, origin: Origin, record: &SourceRecord<'_>, id: &str) -> usize {
        let timestamp = record.timestamp.map(|millis| millis.saturating_mul(1_000));
        let id = self.keep(id);
        let bytes = id.len() + size_of::<Entry>();
        self.entries.push(Entry { origin, id, timestamp, row: None });
        bytes
    }

    /// The record that a change comes from.
    pub(super) fn origin(&self, entry: EntryId) -> Origin {
        self.entries[entry.0 as usize].origin
    }

    /// What is left to do, but for spans that were `dropped` and records that are `refused`.
    pub(super) fn changes(&self, dropped: &[bool], refused: &BTreeSet<Origin>) -> TableChanges<'_> {
        let mut changes = TableChanges { skip_stale: self.skip_stale, ..TableChanges::default() };
        for of_one_key in self.order(dropped).chunk_by(|(id, _), (next, _)| id == next) {
            if refused.is_empty() {
                self.fold(of_one_key, &mut changes);
            } else {
                self.fold(&self.without(of_one_key, refused), &mut changes);
            }
        }
        changes
    }

    /// The same for those keys only of which a change is among `uncovering`.
    pub(super) fn uncovered(
        &self,
        dropped: &[bool],
        refused: &BTreeSet<Origin>,
        uncovering: &BTreeSet<Origin>,
    ) -> TableChanges<'_> {
        let mut changes = TableChanges { skip_stale: self.skip_stale, ..TableChanges::default() };
        for of_one_key in self.order(dropped).chunk_by(|(id, _), (next, _)| id == next) {
            if of_one_key.iter().any(|(_, index)| uncovering.contains(&self.entries[*index as usize].origin))
            {
                self.fold(&self.without(of_one_key, refused), &mut changes);
            }
        }
        changes
    }

    /// All changes by key, those of one key in the order of the log.
    fn order(&self, dropped: &[bool]) -> Vec<(&str, u32)> {
        let mut order: Vec<(&str, u32)> = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            if !dropped[entry.origin.span as usize] {
                order.push((&self.texts[entry.id.clone()], index as u32));
            }
        }
        order.sort_unstable();
        order
    }

    fn without<'a>(&self, of_one_key: &[(&'a str, u32)], refused: &BTreeSet<Origin>) -> Vec<(&'a str, u32)> {
        let is_left = |(_, index): &&(&str, u32)| !refused.contains(&self.entries[*index as usize].origin);
        of_one_key.iter().filter(is_left).copied().collect()
    }

    fn fold<'a>(&'a self, of_one_key: &[(&'a str, u32)], changes: &mut TableChanges<'a>) {
        match self.skip_stale {
            false => self.last_wins(of_one_key, changes),
            true => self.newest_wins(of_one_key, changes),
        }
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
