//! The [`Writer`] for PostgreSQL with pgvector.

use sink_postgres_vector::{
    Committed, ConnectOptions, Connection, Deletion, Error, Overwrite, VectorRow, VectorTable,
};

use super::ledger::{self, Position};
use super::{Effect, First, Receipt, Taken, Writer, Written};
use crate::batch::{Batch, Rejected, Row, Span};
use crate::error::WriteError;
use crate::route::TableId;
use crate::source::{Partition, Tenure};

/// Writes batches over one connection of its own, which it opens when it needs it.
///
/// A connection on which anything failed is closed and never used again.
#[derive(Debug)]
pub struct PostgresWriter {
    connector: String,
    options: ConnectOptions,
    tables: Vec<VectorTable>,
    connection: Option<Connection>,
    /// What the last attempt would do, for the case that its commit is proved later.
    attempted: Option<(u64, Effect)>,
}

impl PostgresWriter {
    /// A writer for `tables`, which stand in the order of the configuration. Opens nothing yet.
    pub fn new(connector: String, options: ConnectOptions, tables: Vec<VectorTable>) -> Self {
        Self { connector, options, tables, connection: None, attempted: None }
    }

    async fn connection(&mut self) -> Result<Connection, Error> {
        match self.connection.take() {
            Some(connection) if !connection.is_closed() => Ok(connection),
            _ => Connection::open(&self.options).await,
        }
    }

    async fn attempt(&mut self, connection: &mut Connection, batch: &Batch) -> Result<Written, Error> {
        let spans: Vec<&Span> = batch.spans().collect();
        let mut transaction = connection.begin_for(batch.bytes()).await?;
        let moved = ledger::move_positions(&transaction, &self.connector, &spans).await?;
        if moved.len() < spans.len() {
            let stored = ledger::read_positions(&transaction, &self.connector, &spans).await?;
            transaction.rollback().await?;
            return Ok(self.settle_from_ledger(batch, &spans, &stored, &moved));
        }
        let mut effect = Effect::default();
        for (index, table) in self.tables.iter().enumerate() {
            let changes = batch.changes(TableId(index));
            if !changes.upserts.is_empty() {
                let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
                let upserted = transaction.upsert(table, &rows, Overwrite::Always).await?;
                effect.upserted += upserted.changed;
                effect.unchanged += changes.upserts.len() as u64 - upserted.changed;
            }
            if !changes.deletes.is_empty() {
                let keys: Vec<Deletion<'_>> =
                    changes.deletes.iter().map(|id| Deletion { id, timestamp: None }).collect();
                effect.deleted += transaction.delete(table, &keys, Overwrite::Always).await?.deleted;
            }
        }
        let rejected: Vec<&Rejected> = batch.rejected().collect();
        if !rejected.is_empty() {
            effect.dead_lettered =
                ledger::keep_dead_letters(&transaction, &self.connector, &rejected).await?;
        }
        self.attempted = Some((batch.id(), effect));
        let committed = transaction.commit().await?;
        Ok(Written::Durable(Receipt::committed(committed, batch, effect)))
    }

    /// Some positions did not move. Either an earlier attempt at this very batch had committed, and
    /// only its answer got lost; or the partitions are no longer ours.
    fn settle_from_ledger(
        &self,
        batch: &Batch,
        spans: &[&Span],
        stored: &[Position],
        moved: &[Position],
    ) -> Written {
        let is_moved = |span: &Span| {
            moved
                .iter()
                .any(|position| position.partition == span.partition && position.epoch == span.tenure.0)
        };
        // A batch moves as a whole. Where a part of it could move just now, no attempt had committed.
        let is_written = |span: &Span| {
            moved.is_empty()
                && stored.iter().any(|position| {
                    position.partition == span.partition
                        && position.epoch == span.tenure.0
                        && position.next_offset == span.to
                })
        };
        let lost: Vec<(Partition, Tenure)> = spans
            .iter()
            .filter(|span| !is_moved(span) && !is_written(span))
            .map(|span| (span.partition.clone(), span.tenure))
            .collect();
        if lost.is_empty() {
            let effect = match self.attempted {
                Some((batch_id, effect)) if batch_id == batch.id() => effect,
                _ => Effect::default(),
            };
            return Written::Durable(Receipt::found_in_ledger(batch, effect));
        }
        Written::Fenced(lost)
    }
}

impl Writer for PostgresWriter {
    async fn take(&mut self, partition: &Partition, first: First) -> Result<Taken, WriteError> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let taken = ledger::take(&transaction, &self.connector, partition, first).await?;
        let _taken_for_good: Committed = transaction.commit().await?;
        self.connection = Some(connection);
        Ok(taken)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, WriteError> {
        let mut connection = self.connection().await?;
        let written = self.attempt(&mut connection, batch).await?;
        self.connection = Some(connection);
        Ok(written)
    }
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
