//! The [`Writer`] for PostgreSQL with pgvector.

use std::time::Instant;

use sink_postgres_vector::{
    self as pg, Class, Committed, ConnectOptions, Connection, Error, Overwrite, Transaction, VectorRow,
    VectorTable,
};
use tokio_postgres::error::SqlState;

use super::ledger::{self, Position};
use super::pieces::Pieces;
use super::sparing::Sparing;
use super::{Effect, First, Receipt, Taken, Writer, Written};
use crate::batch::{Batch, DeadLetter, Deletion, Row, Span, TableChanges};
use crate::error::WriteError;
use crate::route::TableId;
use crate::source::{Partition, Tenure};

/// So many refused records are looked for at least: every attempt does all the others, too.
const LEAST_SEARCH: usize = 64;

/// Writes batches over one connection of its own, which it opens when it needs it.
///
/// A connection on which anything failed is closed and never used again.
#[derive(Debug)]
pub struct PostgresWriter {
    connector: String,
    options: ConnectOptions,
    tables: Vec<VectorTable>,
    /// Of a dead letter's payload no more is kept.
    max_payload: usize,
    /// Of a thousand records, with more than these refused the search for others ends.
    max_refused: u32,
    /// The batch that was refused last, if that is this one or the one before: the next is likely to be refused too.
    refused: Option<u64>,
    /// How rows are best put into each table, by its place.
    ways: Vec<Way>,
    /// How many of them a statement has.
    pieces: Pieces,
    connection: Option<Connection>,
    /// What the last attempt would do, for the case that its commit is proved later.
    attempted: Option<(u64, Effect)>,
}

impl PostgresWriter {
    /// A writer for `tables`, which stand in the order of the configuration. Opens nothing yet.
    pub fn new(connector: String, options: ConnectOptions, tables: Vec<VectorTable>) -> Self {
        let way = |table: &VectorTable| {
            if options.prepared && table.was_empty() { Way::Insert } else { Way::Upsert }
        };
        let ways = tables.iter().map(way).collect();
        Self {
            connector,
            options,
            tables,
            ways,
            pieces: Pieces::default(),
            max_payload: usize::MAX,
            max_refused: 1_000,
            refused: None,
            connection: None,
            attempted: None,
        }
    }

    /// Keeps only the first `bytes` of the payload in a dead letter, and how long it was.
    #[must_use]
    pub fn with_max_payload(self, bytes: usize) -> Self {
        Self { max_payload: bytes, ..self }
    }

    /// Looks for no more refused records in a batch of which more than `permille` of a thousand are. Whoever is told of
    /// these can then end it, or let the rest be looked for.
    #[must_use]
    pub fn with_max_refused(self, permille: u32) -> Self {
        Self { max_refused: permille, ..self }
    }

    /// Into how many tables rows go by COPY.
    fn copied(&self) -> usize {
        self.ways.iter().filter(|way| **way == Way::Insert).count()
    }

    async fn connection(&mut self) -> Result<Connection, Error> {
        match self.connection.take() {
            Some(connection) if !connection.is_closed() => Ok(connection),
            _ => Connection::open(&self.options).await,
        }
    }

    /// One transaction: positions, changes, dead letters, commit.
    async fn attempt(
        &mut self,
        connection: &mut Connection,
        batch: &Batch,
        care: Care,
    ) -> Result<Written, Error> {
        self.pieces.begins(0);
        let spans: Vec<&Span> = batch.spans().collect();
        let mut transaction = connection.begin_for(batch.bytes()).await?;
        let moved = ledger::move_positions(&mut transaction, &self.connector, &spans).await?;
        if moved.len() < spans.len() {
            let stored = ledger::read_positions(&transaction, &self.connector, &spans).await?;
            transaction.rollback().await?;
            return Ok(self.settle_from_ledger(batch, &spans, &stored, &moved));
        }
        let changed = match self.change_tables(&mut transaction, batch, care).await {
            Ok(changed) => changed,
            Err(error) => {
                // So that the connection can be used for the next, more careful attempt.
                if error.class() == Class::Data && !error.is_closed() {
                    transaction.rollback().await?;
                }
                return Err(error);
            }
        };
        if !changed.refused.is_empty() {
            transaction.rollback().await?;
            return Ok(Written::Refused(changed.refused));
        }
        let mut effect = changed.effect;
        let letters: Vec<DeadLetter<'_>> = batch.dead_letters().collect();
        if !letters.is_empty() {
            effect.dead_lettered =
                ledger::keep_dead_letters(&transaction, &self.connector, &letters, self.max_payload).await?;
        }
        self.attempted = Some((batch.id(), effect));
        let committed = transaction.commit().await?;
        Ok(Written::Durable(Receipt::committed(committed, batch, effect)))
    }

    /// Does the changes of a batch to all tables.
    async fn change_tables(
        &mut self,
        transaction: &mut Transaction<'_>,
        batch: &Batch,
        care: Care,
    ) -> Result<Sparing, Error> {
        if care == Care::AtOnce {
            transaction.check_constraints_at_once().await?;
        }
        if care != Care::Plain {
            let most = batch.records() as u64 * u64::from(self.max_refused) / 1_000;
            let most = LEAST_SEARCH.max(most as usize);
            return Sparing::change_tables(transaction, &self.tables, batch, most, &mut self.pieces).await;
        }
        let mut effect = Effect::default();
        for (index, table) in self.tables.iter().enumerate() {
            let changes = batch.changes(TableId(index));
            let (way, pieces) = (&mut self.ways[index], &mut self.pieces);
            effect.add(write_changes(transaction, table, &changes, way, pieces).await?);
        }
        Ok(Sparing::of_all(effect))
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
    const NAME: &'static str = "Postgres";

    async fn take(&mut self, partition: &Partition, first: First) -> Result<Taken, WriteError> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let taken = ledger::take(&transaction, &self.connector, partition, first).await?;
        let _taken_for_good: Committed = transaction.commit().await?;
        self.connection = Some(connection);
        Ok(taken)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, WriteError> {
        let mut care = if self.refused.is_some() { Care::Sparing } else { Care::Plain };
        loop {
            let mut connection = self.connection().await?;
            let copied = self.copied();
            let attempt = self.attempt(&mut connection, batch, care).await;
            if attempt.is_ok() || !connection.is_closed() {
                self.connection = Some(connection);
            }
            care = match attempt {
                Ok(written) => {
                    if matches!(written, Written::Durable(_)) {
                        self.pieces.written(self.options.statement_timeout);
                    }
                    match &written {
                        Written::Refused(_) => self.refused = Some(batch.id()),
                        Written::Durable(_) if self.refused != Some(batch.id()) => self.refused = None,
                        Written::Durable(_) | Written::Fenced(_) => {}
                    }
                    return Ok(written);
                }
                // A key was there, or whatever else an upsert may get over: it is tried with one.
                Err(error) if self.copied() < copied && !error.is_timeout() => {
                    tracing::debug!(%error, "from now on keys are looked for before rows are inserted");
                    Care::Plain
                }
                // Some row is to blame, and a more careful attempt finds out which.
                Err(error) if error.class() == Class::Data => care.more().ok_or(error)?,
                Err(error) => {
                    if error.is_timeout() {
                        self.pieces.took_too_long();
                    }
                    return Err(error.into());
                }
            };
        }
    }
}

/// How the rows of a batch are put into a table: what was best for the batch before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// No key is looked for: the table was empty, and none has come twice so far.
    Insert,
    /// Most rows are new or differ from what is there.
    Upsert,
    /// Most rows are there as they are.
    UpsertDiffering,
}

impl Way {
    /// What is left of it once an insert has failed. The server counts the time in which it receives a COPY as the
    /// statement's own, so a timeout too is one that an upsert may get over. A row that is refused for itself would be
    /// refused by an upsert, too: the next batch can do without that row.
    fn after(self, error: &Error) -> Self {
        let is_over = match error.class() {
            Class::Transient => error.is_timeout(),
            Class::Data => error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION),
            _ => true,
        };
        if self == Self::Insert && is_over { Self::Upsert } else { self }
    }
}

/// How a transaction goes about rows that may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// One statement a table. What is refused fails all.
    Plain,
    /// Bisects to what is refused.
    Sparing,
    /// The same, and what is usually checked at the commit is checked at each statement.
    AtOnce,
}

impl Care {
    fn more(self) -> Option<Self> {
        match self {
            Self::Plain => Some(Self::Sparing),
            Self::Sparing => Some(Self::AtOnce),
            Self::AtOnce => None,
        }
    }
}

/// Does the changes to one table, all or nothing.
async fn write_changes(
    transaction: &mut Transaction<'_>,
    table: &VectorTable,
    changes: &TableChanges<'_>,
    way: &mut Way,
    pieces: &mut Pieces,
) -> Result<Effect, Error> {
    let (mut effect, overwrite) = (Effect { stale: changes.stale, ..Effect::default() }, overwrite(changes));
    if !changes.deletes.is_empty() {
        let keys: Vec<pg::Deletion<'_>> = changes.deletes.iter().map(deletion).collect();
        for keys in keys.chunks(pieces.most()) {
            let begun = Instant::now();
            pieces.begins(keys.len());
            let deleted = transaction.delete(table, keys, overwrite).await?;
            pieces.took(begun.elapsed());
            effect.deleted += deleted.deleted;
            effect.stale += deleted.stale;
        }
    }
    if !changes.upserts.is_empty() {
        let rows: Vec<VectorRow<'_>> = changes.upserts.iter().map(vector_row).collect();
        if *way == Way::Insert {
            pieces.begins(0);
            let inserted = transaction.insert(table, &rows).await;
            effect.upserted += inserted.inspect_err(|error| *way = way.after(error))?;
            return Ok(effect);
        }
        let mut equal = 0;
        for rows in pieces.of(&rows) {
            let begun = Instant::now();
            pieces.begins(rows.len());
            let upserted = if *way == Way::UpsertDiffering {
                let done = transaction.upsert_differing(table, rows, overwrite).await;
                // Whatever is in the way of reading, the next attempt does without.
                let (upserted, found) = done.inspect_err(|_| *way = Way::Upsert)?;
                equal += found;
                upserted
            } else {
                let upserted = transaction.upsert(table, rows, overwrite).await?;
                equal += (rows.len() as u64).saturating_sub(upserted.changed + upserted.stale);
                upserted
            };
            pieces.took(begun.elapsed());
            effect.upserted += upserted.changed;
            effect.stale += upserted.stale;
            effect.unchanged += (rows.len() as u64).saturating_sub(upserted.changed + upserted.stale);
        }
        *way = if equal * 2 > rows.len() as u64 { Way::UpsertDiffering } else { Way::Upsert };
    }
    Ok(effect)
}

pub(super) fn overwrite(changes: &TableChanges<'_>) -> Overwrite {
    if changes.skip_stale { Overwrite::NotNewer } else { Overwrite::Always }
}

pub(super) fn deletion<'a>(deletion: &Deletion<'a>) -> pg::Deletion<'a> {
    pg::Deletion { id: deletion.id, timestamp: deletion.timestamp }
}

pub(super) fn vector_row<'a>(row: &Row<'a>) -> VectorRow<'a> {
    VectorRow {
        id: row.id,
        text: row.text,
        embedding: row.embedding,
        timestamp: row.timestamp,
        source: row.source,
        metadata: row.metadata,
    }
}
