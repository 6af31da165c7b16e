//! Dead letters on the way of a live record once more.
//!
//! Invariant: a letter leaves the table only in the transaction that writes its record. No position moves, and
//! no letter is added, so a replay ends.

mod progress;
mod summary;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sink_postgres_vector::{Class, Connection, Error, Transaction, VectorTable};

use super::{Failure, Store};
use crate::attempt::pauses;
use crate::batch::{Batch, Place};
use crate::command::output;
use crate::error::ConnectorError;
use crate::intake::Intake;
use crate::reject::{Reject, RejectReason};
use crate::route::TableId;
use crate::source::{SourceRecord, Tenure};
use crate::target::postgres;
use crate::write::letters::{self, Contents, Kept, Letter, Range, Selection};
use crate::write::replay::{Replayed, Settled, replay as write_again};

use progress::Progress;
use summary::Summary;

/// How many letters go in one transaction at most.
const CHUNK: i64 = 300;

/// How long a transaction tries letters. The rows that it has written are locked until it ends, and a live writer
/// may wait for them.
const WORK: Duration = Duration::from_secs(2);

/// How often a transaction is tried that fails for a reason that passes.
const TRIES: usize = 10;

/// Replays the letters that were there when it began.
pub(super) async fn replay(store: Store, selection: &Selection, dry_run: bool) -> Result<(), Failure> {
    let Store { settings, options, mut connection } = store;
    let specs = postgres::table_specs(&settings)?;
    postgres::migrator().check(connection.client(), &specs).await.map_err(ConnectorError::from)?;
    let tables = VectorTable::check_all(connection.client(), &specs).await.map_err(ConnectorError::from)?;
    let extent = Range::all(selection).extent(&connection).await?;
    let mut replayer = Replayer {
        intake: Intake::new(Arc::new(postgres::router(&settings, &tables)), settings.batch.max_bytes),
        tables,
        max_bytes: settings.batch.max_bytes,
        dry_run,
    };
    let mut progress = Progress::new(extent.count);
    let mut summary = Summary::new(&settings.connector, dry_run);
    let mut range = Range { up_to: extent.last, ..Range::all(selection) };
    let (mut pauses, mut failed, mut rest) = (pauses(), 0, Rest::default());
    loop {
        if connection.is_closed() {
            connection = match Connection::open(&options).await {
                Ok(opened) => opened,
                Err(error) => {
                    pause(error, &mut failed, &mut pauses).await?;
                    continue;
                }
            };
        }
        match replayer.chunk(&mut connection, range, &rest).await {
            Ok(Some(chunk)) => {
                failed = 0;
                range.after = chunk.last;
                rest = chunk.rest;
                progress.advance(chunk.outcomes.len());
                chunk.outcomes.into_iter().for_each(|(letter, outcome)| summary.add(&letter, outcome));
            }
            Ok(None) => break,
            Err(error) => pause(error, &mut failed, &mut pauses).await?,
        }
    }
    progress.finish();
    connection.close().await;
    Ok(output::print(summary.text())?)
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

/// Letters for which a transaction had no time, and what those had come to that stand behind them in the log.
#[derive(Default)]
struct Rest {
    ids: Vec<i64>,
    settled: Settled,
}

/// What became of the letters of one transaction.
struct Chunk {
    last: i64,
    outcomes: Vec<(Letter, Outcome)>,
    rest: Rest,
}

struct Replayer {
    intake: Intake,
    /// In the order of the configuration, as the router has them.
    tables: Vec<VectorTable>,
    max_bytes: usize,
    dry_run: bool,
}

impl Replayer {
    /// Replays in a transaction what was left over, or else the first letters of the range. `None` when there are
    /// no more.
    async fn chunk(
        &mut self,
        connection: &mut Connection,
        range: Range<'_>,
        rest: &Rest,
    ) -> Result<Option<Chunk>, Error> {
        let Selection { connector, ids: asked_for, .. } = range.selection;
        let mut transaction = connection.begin_for(self.max_bytes).await?;
        transaction.check_constraints_at_once().await?;
        let ids = match rest.ids.as_slice() {
            [] => range.first(&transaction, CHUNK, self.max_bytes).await?,
            left => left.to_vec(),
        };
        let Some(last) = ids.iter().copied().max() else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let mut letters = letters::lock(&transaction, connector, &ids).await?;
        // From the last one in the log to the first, so that the last one of a key is what counts.
        letters.sort_by_cached_key(|(letter, _)| Reverse(letter.standing()));
        let mut settled = rest.settled.clone();
        let (mut written, mut kept, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        let (began, mut left) = (Instant::now(), Vec::new());
        for (letter, contents) in letters {
            if !outcomes.is_empty() && began.elapsed() >= WORK {
                left.push(letter.id);
                continue;
            }
            let outcome = if letter.is_cut() {
                Outcome::Cut
            } else {
                let is_asked_for = asked_for.is_some();
                match self.letter(&mut transaction, &letter, &contents, is_asked_for, &mut settled).await? {
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
        let rest = if left.is_empty() { Rest::default() } else { Rest { ids: left, settled } };
        Ok(Some(Chunk { last: last.max(range.after), outcomes, rest }))
    }

    /// Writes the record of one letter, or says why not and for which table it was.
    async fn letter(
        &mut self,
        transaction: &mut Transaction<'_>,
        letter: &Letter,
        contents: &Contents,
        is_asked_for: bool,
        settled: &mut Settled,
    ) -> Result<Result<(), (Option<TableId>, Reject)>, Error> {
        let mut batch = self.intake.batch(0);
        if let Err(rejected) = self.add(&mut batch, letter, contents) {
            return Ok(Err(rejected));
        }
        let standing = letter.standing();
        let replayed = write_again(transaction, &self.tables, &batch, &standing, is_asked_for, settled);
        Ok(match replayed.await? {
            Replayed::Written => Ok(()),
            Replayed::Superseded(why) => Err((None, Reject::new(RejectReason::Superseded, why))),
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
            omitted: 0,
        };
        // It is no position of any partition, and none is stored for it.
        let place = Place { partition: &letter.partition, tenure: Tenure(0), stored: letter.offset };
        self.intake.add(batch, &place, &record)
    }
}
