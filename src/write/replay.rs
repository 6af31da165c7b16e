//! Records written once more: the rows of dead letters, which must not take the place of newer ones.
//!
//! Invariant: a row that is there is overwritten or deleted only by a record that is strictly newer by its
//! timestamp, and a deletion that nobody asked for by its number deletes nothing that is there. Of two letters
//! of a key of which the log says which came first, the later one counts.

use std::collections::HashMap;

use sink_postgres_vector::{self as pg, Error, Overwrite, Transaction, VectorRow, VectorTable};

use super::letters::Standing;
use super::postgres::{deletion, vector_row};
use crate::batch::{Batch, TableChanges};
use crate::error::WriteError;
use crate::reject::Reject;
use crate::route::TableId;

/// What became of the record.
#[derive(Debug)]
pub(crate) enum Replayed {
    /// Its row is written, its deletion is done, or a later letter of its key is.
    Written,
    /// What is there stays, for this reason.
    Superseded(&'static str),
    /// The database still refuses it, for this table.
    Refused(TableId, Reject),
}

const ROW: &str = "a row is there that is at least as new as this record, or of which that is not known because one \
     of them has no timestamp; a replay never overwrites such a row. Purge the letter";

const DELETION: &str = "a row of this key is there, and nothing shows that the deletion is newer: a tombstone has \
     only the time at which it was sent. To delete the row, if its timestamp is older than that, replay this letter \
     by --id; otherwise purge the letter";

const DELETION_BY_ID: &str = "a row of this key is there whose timestamp is not older than the deletion, or that has \
     none; a replay never deletes such a row. Purge the letter, and delete the row by hand if it must go";

const OVERTAKEN: &str = "a later letter of the same key is superseded, and so is this one. Purge the letter";

/// What the letters that were tried so far have come to, for each table and key. Refused ones do not count.
#[derive(Clone, Default)]
pub(crate) struct Settled(HashMap<(TableId, String), Vec<Verdict>>);

/// Where a letter stands, and why what is there stays, if it does.
type Verdict = (Standing, Option<&'static str>);

impl Settled {
    /// What a letter of this table and key that stands later in the log has come to.
    fn later(&self, table: TableId, key: &str, standing: &Standing) -> Option<Option<&'static str>> {
        let letters = self.0.get(&(table, key.to_owned()))?;
        letters.iter().find(|(later, _)| standing.precedes(later)).map(|(_, superseded)| *superseded)
    }
}

/// Does the changes of a batch of one record as far as what is there allows it. `tables` stand in the order of the
/// configuration; `is_asked_for`: somebody has named this very letter. What is refused leaves nothing behind.
///
/// Letters must come from the last one in the log to the first: what a later one of the same key has written, or was
/// superseded by, settles the earlier ones too, whatever their timestamps. Only where a table skips stale writes the
/// timestamps decide in any case.
pub(crate) async fn replay(
    transaction: &mut Transaction<'_>,
    tables: &[VectorTable],
    batch: &Batch,
    standing: &Standing,
    is_asked_for: bool,
    settled: &mut Settled,
) -> Result<Replayed, Error> {
    let (mut left, mut overtaken) = (Vec::new(), Vec::new());
    for (index, table) in tables.iter().enumerate() {
        let id = TableId(index);
        let changes = batch.changes(id);
        let Some(key) = key(&changes) else { continue };
        match settled.later(id, key, standing) {
            Some(superseded) if !changes.skip_stale => overtaken.push(superseded),
            _ => left.push((id, table, changes)),
        }
    }
    if left.is_empty() {
        let is_superseded = overtaken.iter().any(Option::is_some);
        return Ok(if is_superseded { Replayed::Superseded(OVERTAKEN) } else { Replayed::Written });
    }
    let replayed = write(transaction, &left, is_asked_for).await?;
    let superseded = match &replayed {
        Replayed::Written => None,
        Replayed::Superseded(why) => Some(*why),
        Replayed::Refused(..) => return Ok(replayed),
    };
    for (id, _, changes) in &left {
        if let Some(key) = key(changes) {
            settled.0.entry((*id, key.to_owned())).or_default().push((standing.clone(), superseded));
        }
    }
    Ok(replayed)
}

const UNDO: &str = "rollback to savepoint replay; release savepoint replay";

/// Writes the row or deletes the rows of one record.
async fn write(
    transaction: &mut Transaction<'_>,
    changes: &[(TableId, &VectorTable, TableChanges<'_>)],
    is_asked_for: bool,
) -> Result<Replayed, Error> {
    let is_deletion = changes.iter().any(|(.., changes)| !changes.deletes.is_empty());
    if is_deletion && !is_asked_for {
        for (_, table, changes) in changes {
            let keys: Vec<pg::Deletion<'_>> = changes.deletes.iter().map(deletion).collect();
            if transaction.count_keys(table, &keys).await? > 0 {
                return Ok(Replayed::Superseded(DELETION));
            }
        }
        return Ok(Replayed::Written);
    }
    let (mut changed, mut stale) = (0, 0);
    // A tombstone deletes from every table or from none.
    savepoint(transaction, "savepoint replay").await?;
    for (id, table, changes) in changes {
        let keys: Vec<pg::Deletion<'_>> = changes.deletes.iter().map(deletion).collect();
        let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
        for spared in [
            transaction.delete_sparing(table, &keys, Overwrite::Older, 0).await?,
            transaction.upsert_sparing(table, &rows, Overwrite::Older, 0).await?,
        ] {
            if let Some(refused) = spared.refused.into_iter().next() {
                savepoint(transaction, UNDO).await?;
                let reject = Reject::refused(&WriteError::from(refused.error));
                return Ok(Replayed::Refused(*id, reject));
            }
            changed += spared.changed;
            stale += spared.stale;
        }
    }
    let is_superseded = stale > 0 && (changed == 0 || is_deletion);
    let end = if is_superseded { UNDO } else { "release savepoint replay" };
    savepoint(transaction, end).await?;
    Ok(match (is_superseded, is_deletion) {
        (false, _) => Replayed::Written,
        (true, false) => Replayed::Superseded(ROW),
        (true, true) => Replayed::Superseded(DELETION_BY_ID),
    })
}

/// The key of the record whose changes these are.
fn key<'a>(changes: &TableChanges<'a>) -> Option<&'a str> {
    let deletion = changes.deletes.first().map(|deletion| deletion.id);
    deletion.or_else(|| changes.upserts.first().map(|row| row.id))
}

async fn savepoint(transaction: &Transaction<'_>, sql: &str) -> Result<(), Error> {
    transaction.during("set a savepoint", transaction.client().batch_execute(sql)).await
}
