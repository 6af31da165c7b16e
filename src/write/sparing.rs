//! Finds the records of a batch that the database refuses, within one transaction.
//!
//! Invariant: what is told to be refused was refused whatever stood beside it; or everything that was refused has another
//! row of the batch to blame, and was tried in the order of the log.

use std::time::Instant;

use sink_postgres_vector::{self as pg, Error, Transaction, VectorRow, VectorTable};

use super::Effect;
use super::pieces::Pieces;
use super::postgres::{deletion, overwrite, vector_row};
use crate::batch::{Batch, EntryId, Refusal, TableChanges};
use crate::reject::Reject;
use crate::route::TableId;

/// SQLSTATEs of refusals that another row of the batch can be the reason of: what is unique, and what excludes.
const BY_ANOTHER_ROW: [&str; 2] = ["23505", "23P01"];

/// Each pass sorts all changes of the batch. So many changes are sorted in one attempt at most; the next goes on.
const MOST_WORK: usize = 2_000_000;

/// What became of the changes of a batch some of which may be refused.
#[derive(Default)]
pub(super) struct Sparing {
    pub(super) effect: Effect,
    pub(super) refused: Vec<Refusal>,
    /// With more than these the search ends.
    most: usize,
}

impl Sparing {
    /// Of an attempt in which nothing may be refused.
    pub(super) fn of_all(effect: Effect) -> Self {
        Self { effect, ..Self::default() }
    }

    /// Does the changes of `batch` but for those that are refused. With more than `most` of these not all are found.
    ///
    /// Where something is refused, the transaction holds no state worth keeping: in the order of the log, what the
    /// refused had overtaken comes before other changes.
    pub(super) async fn change_tables(
        transaction: &mut Transaction<'_>,
        tables: &[VectorTable],
        batch: &Batch,
        most: usize,
        pieces: &mut Pieces,
    ) -> Result<Self, Error> {
        let mut sparing = Self { most, ..Self::default() };
        let changes = (0..tables.len()).map(|index| batch.changes(TableId(index))).collect();
        sparing.spare(transaction, tables, changes, pieces).await?;
        let (mut latest, mut work) = (0, 0);
        // A key of which every version is refused would take an attempt for each of them otherwise.
        while latest < sparing.refused.len() && sparing.refused.len() <= most && work < MOST_WORK {
            let uncovered = batch.uncovered(&sparing.refused, latest);
            latest = sparing.refused.len();
            work += batch.records();
            sparing.spare(transaction, tables, uncovered, pieces).await?;
        }
        // With the others gone these may be good, or other rows to blame. The next attempt has them all in their order.
        if sparing.refused.iter().any(|refusal| !is_by_another_row(&refusal.reject)) {
            sparing.refused.retain(|refusal| !is_by_another_row(&refusal.reject));
        }
        Ok(sparing)
    }

    async fn spare(
        &mut self,
        transaction: &mut Transaction<'_>,
        tables: &[VectorTable],
        changes: Vec<TableChanges<'_>>,
        pieces: &mut Pieces,
    ) -> Result<(), Error> {
        for (index, (table, mut changes)) in tables.iter().zip(changes).enumerate() {
            // In the order of the log: of two rows that refuse each other the earlier one stays.
            changes.deletes.sort_unstable_by_key(|deletion| deletion.entry);
            changes.upserts.sort_unstable_by_key(|row| row.entry);
            self.spare_table(transaction, TableId(index), table, &changes, pieces).await?;
        }
        Ok(())
    }

    async fn spare_table(
        &mut self,
        transaction: &mut Transaction<'_>,
        id: TableId,
        table: &VectorTable,
        changes: &TableChanges<'_>,
        pieces: &mut Pieces,
    ) -> Result<(), Error> {
        self.effect.stale += changes.stale;
        let overwrite = overwrite(changes);
        let keys: Vec<pg::Deletion<'_>> = changes.deletes.iter().map(deletion).collect();
        let mut first = 0;
        for keys in keys.chunks(pieces.most()) {
            let begun = Instant::now();
            pieces.begins(keys.len());
            let spared = transaction.delete_sparing(table, keys, overwrite, self.left()).await?;
            pieces.took(begun.elapsed());
            self.effect.deleted += spared.changed;
            self.effect.stale += spared.stale;
            self.refuse(id, spared.refused, |index| changes.deletes[first + index].entry);
            first += keys.len();
        }

        let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
        let mut first = 0;
        for rows in pieces.of(&rows) {
            let begun = Instant::now();
            pieces.begins(rows.len());
            let spared = transaction.upsert_sparing(table, rows, overwrite, self.left()).await?;
            pieces.took(begun.elapsed());
            self.effect.upserted += spared.changed;
            self.effect.stale += spared.stale;
            let written = (rows.len() - spared.refused.len()) as u64;
            self.effect.unchanged += written.saturating_sub(spared.changed + spared.stale);
            self.refuse(id, spared.refused, |index| changes.upserts[first + index].entry);
            first += rows.len();
        }
        Ok(())
    }

    /// How many more may be refused before the search ends.
    fn left(&self) -> usize {
        self.most.saturating_sub(self.refused.len())
    }

    fn refuse(&mut self, table: TableId, refused: Vec<pg::Refused>, entry: impl Fn(usize) -> EntryId) {
        let refusals = refused.into_iter().map(|pg::Refused { index, error }| Refusal {
            table,
            entry: entry(index),
            reject: Reject::refused(&error.into()),
        });
        self.refused.extend(refusals);
    }
}

fn is_by_another_row(reject: &Reject) -> bool {
    reject.sqlstate.as_deref().is_some_and(|sqlstate| BY_ANOTHER_ROW.contains(&sqlstate))
}
