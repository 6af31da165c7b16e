//! One record written once more: the row of a dead letter, which must not take the place of a newer one.

use sink_postgres_vector::{self as pg, Error, Overwrite, Transaction, VectorRow, VectorTable};

use super::postgres::{deletion, vector_row};
use crate::batch::Batch;
use crate::error::WriteError;
use crate::reject::Reject;
use crate::route::TableId;

/// What became of the record.
#[derive(Debug)]
pub(crate) enum Replayed {
    /// Its row is written or was there as it is, or its deletion is done.
    Written,
    /// A row at least as new is there, and stays.
    Superseded,
    /// The database still refuses it, for this table.
    Refused(TableId, Reject),
}

/// Does the changes of a batch of one record, as far as all that they touch is strictly older. `tables` stand in
/// the order of the configuration. What is refused leaves nothing behind.
pub(crate) async fn replay(
    transaction: &mut Transaction<'_>,
    tables: &[VectorTable],
    batch: &Batch,
) -> Result<Replayed, Error> {
    const OLDER: Overwrite = Overwrite::Older;
    let (mut changed, mut stale) = (0, 0);
    // A tombstone deletes from every table or from none.
    savepoint(transaction, "savepoint replay").await?;
    for (index, table) in tables.iter().enumerate() {
        let changes = batch.changes(TableId(index));
        let keys: Vec<pg::Deletion<'_>> = changes.deletes.iter().map(deletion).collect();
        let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
        for spared in [
            transaction.delete_sparing(table, &keys, OLDER, 0).await?,
            transaction.upsert_sparing(table, &rows, OLDER, 0).await?,
        ] {
            if let Some(refused) = spared.refused.into_iter().next() {
                savepoint(transaction, "rollback to savepoint replay; release savepoint replay").await?;
                let reject = Reject::refused(&WriteError::from(refused.error));
                return Ok(Replayed::Refused(TableId(index), reject));
            }
            changed += spared.changed;
            stale += spared.stale;
        }
    }
    savepoint(transaction, "release savepoint replay").await?;
    Ok(if stale > 0 && changed == 0 { Replayed::Superseded } else { Replayed::Written })
}

async fn savepoint(transaction: &Transaction<'_>, sql: &str) -> Result<(), Error> {
    transaction.during("set a savepoint", transaction.client().batch_execute(sql)).await
}
