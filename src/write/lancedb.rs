//! The [`Writer`] for LanceDB.
//!
//! There is no transaction over several tables, so their order stands in for it: rows and deletions, then dead letters,
//! then the positions of the whole batch, in one commit of their table. What a crash leaves in between is written
//! again by the same keys.
//!
//! Invariant: this writer alone writes to the dataset, which its lock sees to. So what it knows of positions is what is
//! stored, until something fails; then it is read again.

mod letters;
pub(crate) mod positions;
mod upkeep;

use std::sync::Arc;

use sink_lancedb::{
    self as lance, Error, KeyedSpec, KeyedTable, LockedDataset, Overwrite, TableSpec, VectorRow, VectorTable,
};
use tokio_util::sync::CancellationToken;

use super::{Effect, First, Receipt, Taken, Writer, Written};
use crate::batch::{Batch, DeadLetter, EntryId, Refusal, Row, Span, TableChanges};
use crate::error::WriteError;
use crate::monitoring::Monitor;
use crate::reject::{Reject, RejectReason};
use crate::route::TableId;
use crate::source::Partition;
use positions::{Positions, Standing};

/// Where each partition goes on.
const POSITIONS: &str = "embedsink_offsets";
/// Records that could not be used.
const LETTERS: &str = "embedsink_dead_letters";

/// Writes batches to the tables of one dataset, which is locked for as long as this lives.
#[derive(Debug)]
pub struct LanceWriter {
    connector: String,
    tables: Vec<VectorTable>,
    letters: KeyedTable,
    positions: Positions,
    /// Of a dead letter's payload no more is kept.
    max_payload: usize,
    monitor: Arc<Monitor>,
    /// Upkeep can take longer than a stop may.
    stopping: CancellationToken,
    /// Whether the last write found the disk full.
    is_full: bool,
    /// What a batch did whose positions were still to move. Tried again, it finds its rows as they should be.
    attempted: Option<(u64, Effect)>,
}

impl LanceWriter {
    /// Opens the tables, which stand in the order of the configuration, and makes those that are missing. Once `stopping` is
    /// cancelled, a write is no longer followed by upkeep.
    ///
    /// # Errors
    /// A table that is not as it must be, or a folder that cannot be used.
    pub async fn open(
        connector: String,
        dataset: &LockedDataset,
        specs: Vec<TableSpec>,
        max_payload: usize,
        monitor: Arc<Monitor>,
        stopping: CancellationToken,
    ) -> Result<Self, Error> {
        let mut positions = Positions::open(connector.clone(), dataset).await?;
        let letters = KeyedTable::open(dataset, letters::spec()).await?;
        let mut tables = Vec::with_capacity(specs.len());
        for spec in specs {
            let table = VectorTable::open(dataset, spec).await?;
            if table.is_new() && positions.have_moved().await? {
                tracing::warn!(
                    table = table.name(),
                    connector,
                    "the table was missing and has been made, empty, though this connector has written records before: it will hold only \
                     what comes from here on, since the stored positions stay where they are. If it is to hold all of the log, stop, \
                     move the whole dataset away and start with another `meta.name`"
                );
            }
            tables.push(table);
        }
        let (is_full, attempted) = (false, None);
        Ok(Self { connector, tables, letters, positions, max_payload, monitor, stopping, is_full, attempted })
    }

    /// Lets a topic of one partition be written from `offset` on again.
    pub(crate) async fn set_back(&mut self, topic: &str, offset: i64) -> Result<(), Error> {
        self.positions.set_back(topic, offset).await
    }

    /// A batch, and its positions last.
    async fn write_all(&mut self, batch: &Batch, spans: &[&Span]) -> Result<Effect, Error> {
        let effect = match self.attempted {
            Some((id, effect)) if id == batch.id() => effect,
            _ => self.write_contents(batch).await?,
        };
        self.attempted = Some((batch.id(), effect));
        self.positions.move_to_ends(spans).await?;
        Ok(effect)
    }

    /// All of a batch but its positions.
    async fn write_contents(&mut self, batch: &Batch) -> Result<Effect, Error> {
        let mut effect = Effect::default();
        for (index, table) in self.tables.iter_mut().enumerate() {
            effect.add(write_changes(table, &batch.changes(TableId(index))).await?);
        }
        let letters: Vec<DeadLetter<'_>> = batch.dead_letters().collect();
        if !letters.is_empty() {
            let rows = letters::rows(&self.connector, &letters, self.max_payload);
            self.letters.put(&rows).await?;
            effect.dead_lettered = letters.len() as u64;
        }
        Ok(effect)
    }

    /// What the tables cannot hold, whoever writes it. The rest was judged when it was decoded.
    fn refusals(&self, batch: &Batch) -> Vec<Refusal> {
        let of_table = |index| {
            let table = TableId(index);
            let upserts = batch.changes(table).upserts;
            let refused: Vec<EntryId> =
                upserts.iter().filter(|row| !is_held(row.timestamp)).map(|row| row.entry).collect();
            refused.into_iter().map(move |entry| Refusal { table, entry, reject: not_held() })
        };
        (0..self.tables.len()).flat_map(of_table).collect()
    }
}

impl Writer for LanceWriter {
    const NAME: &'static str = "LanceDB";

    async fn take(&mut self, partition: &Partition, first: First) -> Result<Taken, WriteError> {
        Ok(self.positions.take(partition, first).await?)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, WriteError> {
        let spans: Vec<&Span> = batch.spans().collect();
        match self.positions.standing(&spans).await? {
            Standing::Next => {}
            Standing::Written => {
                let attempted = self.attempted.filter(|(id, _)| *id == batch.id());
                let effect = attempted.map_or_else(Effect::default, |(_, effect)| effect);
                return Ok(Written::Durable(Receipt::after_positions(batch, effect)));
            }
            Standing::Lost(lost) => {
                // Without them other versions of some keys may be the last ones.
                self.attempted = None;
                return Ok(Written::Fenced(lost));
            }
        }
        let refusals = self.refusals(batch);
        if !refusals.is_empty() {
            return Ok(Written::Refused(refusals));
        }
        if std::mem::take(&mut self.is_full) {
            self.make_room().await;
        }
        match self.write_all(batch, &spans).await {
            Ok(effect) => Ok(Written::Durable(Receipt::after_positions(batch, effect))),
            Err(error) => {
                self.is_full = error.is_disk_full();
                Err(error.into())
            }
        }
    }

    async fn tend(&mut self) {
        self.tidy_up().await;
    }
}

/// The tables of the connector itself.
pub(crate) fn own_tables() -> [KeyedSpec; 2] {
    [positions::spec(), letters::spec()]
}

/// Does the changes to one table: deletions first, each step one commit.
async fn write_changes(table: &mut VectorTable, changes: &TableChanges<'_>) -> Result<Effect, Error> {
    let overwrite = if changes.skip_stale { Overwrite::NotNewer } else { Overwrite::Always };
    let keys = changes.deletes.iter();
    let keys: Vec<lance::Deletion<'_>> =
        keys.map(|key| lance::Deletion { id: key.id, timestamp: key.timestamp }).collect();
    let deleted = table.delete(&keys, overwrite).await?;
    let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
    let upserted = table.upsert(&rows, overwrite).await?;
    Ok(Effect {
        upserted: upserted.changed,
        unchanged: upserted.unchanged,
        deleted: deleted.deleted,
        stale: changes.stale + deleted.stale + upserted.stale,
        dead_lettered: 0,
    })
}

fn is_held(timestamp: Option<i64>) -> bool {
    timestamp.is_none_or(|micros| VectorRow::TIMESTAMPS.contains(&micros))
}

fn not_held() -> Reject {
    let message =
        "`timestamp` is not within 1677-09-21 and 2262-04-11, which is what LanceDB's timestamp[ns] holds";
    Reject { reason: RejectReason::BadTimestamp, message: message.into(), sqlstate: None }
}

fn vector_row<'a>(row: &Row<'a>) -> VectorRow<'a> {
    VectorRow {
        id: row.id,
        text: row.text,
        embedding: row.embedding,
        timestamp: row.timestamp,
        source: row.source,
        metadata: row.metadata,
    }
}
