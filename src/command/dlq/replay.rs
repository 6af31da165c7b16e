//! Dead letters on the way of a live record once more.
//!
//! Invariant: a letter leaves the table only in the transaction that writes its record. No position moves, and
//! no letter is added, so a replay ends.

mod progress;
mod summary;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{Class, Connection, Error, Transaction, VectorTable};

use super::{Failure, Store};
use crate::attempt::pauses;
use crate::batch::{Batch, Place};
use crate::error::ConnectorError;
use crate::intake::Intake;
use crate::reject::Reject;
use crate::route::TableId;
use crate::source::{SourceRecord, Tenure};
use crate::target;
use crate::write::letters::{self, Contents, Kept, Letter, Range, Selection, superseded};
use crate::write::replay::{Replayed, replay as write_again};

use progress::Progress;
use summary::Summary;

/// How many letters go in one transaction.
const CHUNK: i64 = 300;

/// How often a transaction is tried that fails for a reason that passes.
const TRIES: usize = 10;

/// Replays the letters that were there when it began.
pub(super) async fn replay(store: Store, selection: &Selection, dry_run: bool) -> Result<(), Failure> {
    let Store { settings, mut connection } = store;
    let specs = target::table_specs(&settings)?;
    target::migrator().check(connection.client(), &specs).await.map_err(ConnectorError::from)?;
    let mut tables = Vec::with_capacity(specs.len());
    for spec in &specs {
        tables.push(VectorTable::check(connection.client(), spec).await.map_err(ConnectorError::from)?);
    }
    let extent = Range::all(selection).extent(&connection).await?;
    let mut replayer = Replayer {
        intake: Intake::new(Arc::new(target::router(&settings, &tables)), settings.batch.max_bytes),
        tables,
        max_bytes: settings.batch.max_bytes,
        dry_run,
    };
    let mut progress = Progress::new(extent.count);
    let mut summary = Summary::new(&settings.connector, dry_run);
    let mut range = Range { up_to: extent.last, ..Range::all(selection) };
    let (mut pauses, mut failed) = (pauses(), 0);
    loop {
        if connection.is_closed() {
            connection = match Connection::open(&target::connect_options(&settings)).await {
                Ok(opened) => opened,
                Err(error) => {
                    pause(error, &mut failed, &mut pauses).await?;
                    continue;
                }
            };
        }
        match replayer.chunk(&mut connection, range).await {
            Ok(Some(chunk)) => {
                failed = 0;
                range.after = chunk.last;
                progress.advance(chunk.outcomes.len());
                chunk.outcomes.into_iter().for_each(|(letter, outcome)| summary.add(&letter, outcome));
            }
            Ok(None) => break,
            Err(error) => pause(error, &mut failed, &mut pauses).await?,
        }
    }
    progress.finish();
    connection.close().await;
    Ok(io::stdout().write_all(summary.text().as_bytes())?)
}

/// Waits before a transaction is tried again that failed for a reason that passes.
async fn pause(
    error: Error,
    failed: &mut usize,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Result<(), Failure> {
    *failed += 1;
    if error.class() != Class::Transient || *failed >= TRIES {
        return Err(error.into());
    }
    tracing::warn!(%error, "trying again");
    tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))).await;
    Ok(())
}

/// What became of a letter.
enum Outcome {
    /// Its record is written, and it is gone.
    Written,
    /// It stays, for this reason.
    Kept(Reject),
    /// It was not tried: only a part of its payload is kept.
    Cut,
}

/// What became of the letters of one transaction.
struct Chunk {
    last: i64,
    outcomes: Vec<(Letter, Outcome)>,
}

struct Replayer {
    intake: Intake,
    /// In the order of the configuration, as the router has them.
    tables: Vec<VectorTable>,
    max_bytes: usize,
    dry_run: bool,
}

impl Replayer {
    /// Replays the first letters of the range in a transaction. `None` when there are no more.
    async fn chunk(&mut self, connection: &mut Connection, range: Range<'_>) -> Result<Option<Chunk>, Error> {
        let connector = &range.selection.connector;
        let mut transaction = connection.begin_for(self.max_bytes).await?;
        transaction.check_constraints_at_once().await?;
        let Some(stretch) = range.lock(&transaction, CHUNK, self.max_bytes).await? else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let (mut written, mut kept, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for (letter, contents) in stretch.letters {
            let outcome = if letter.is_cut() {
                Outcome::Cut
            } else {
                match self.letter(&mut transaction, &letter, &contents).await? {
                    Ok(()) => {
                        written.push(letter.id);
                        Outcome::Written
                    }
                    Err((table, reject)) => {
                        let table = table.map(|table| self.intake.router().tables()[table.0].name.clone());
                        kept.push(Kept { id: letter.id, table, reject: reject.clone() });
                        Outcome::Kept(reject)
                    }
                }
            };
            outcomes.push((letter, outcome));
        }
        letters::forget(&transaction, connector, &written).await?;
        letters::keep(&transaction, connector, &kept).await?;
        if self.dry_run {
            transaction.rollback().await?;
        } else {
            let _replayed_for_good = transaction.commit().await?;
        }
        Ok(Some(Chunk { last: stretch.last, outcomes }))
    }

    /// Writes the record of one letter, or says why not and for which table it was.
    async fn letter(
        &mut self,
        transaction: &mut Transaction<'_>,
        letter: &Letter,
        contents: &Contents,
    ) -> Result<Result<(), (Option<TableId>, Reject)>, Error> {
        let mut batch = self.intake.batch(0);
        if let Err(rejected) = self.add(&mut batch, letter, contents) {
            return Ok(Err(rejected));
        }
        Ok(match write_again(transaction, &self.tables, &batch).await? {
            Replayed::Written => Ok(()),
            Replayed::Superseded => Err((None, superseded())),
            Replayed::Refused(table, reject) => Err((Some(table), reject)),
        })
    }

    /// Decodes the record of a letter and puts it into a batch, as the lanes do with a live one.
    fn add(
        &mut self,
        batch: &mut Batch,
        letter: &Letter,
        contents: &Contents,
    ) -> Result<(), (Option<TableId>, Reject)> {
        let record = SourceRecord {
            offset: letter.offset,
            timestamp: letter.record_millis(),
            key: contents.key.as_deref(),
            payload: contents.payload.as_deref(),
            headers: Default::default(),
        };
        // It is no position of any partition, and none is stored for it.
        let place = Place { partition: &letter.partition, tenure: Tenure(0), stored: letter.offset };
        self.intake.add(batch, &place, &record)
    }
}
