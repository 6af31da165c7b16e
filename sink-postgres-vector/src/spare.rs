//! Writes what can be written of a batch that the server refuses, and finds exactly the rows that it cannot.

use std::ops::Range;

use crate::{
    class::Class,
    error::Error,
    overwrite::Overwrite,
    row::{Deletion, VectorRow},
    table::VectorTable,
    transaction::Transaction,
};

/// A row or key that the server refuses.
#[derive(Debug)]
pub struct Refused {
    /// Its place in the slice that was given.
    pub index: usize,
    /// Why, of [`Class::Data`].
    pub error: Error,
}

/// What became of a batch some of which may be refused.
#[derive(Debug)]
pub struct Spared {
    /// Rows inserted, updated or deleted.
    pub changed: u64,
    /// Rows left alone because [`Overwrite`] forbids to replace or delete them.
    pub stale: u64,
    /// What the server refuses, by ascending index. Nothing of it was written.
    pub refused: Vec<Refused>,
}

const BEGIN: &str = "savepoint sparing";
const KEEP: &str = "release savepoint sparing";
const KEEP_AND_GO_ON: &str = "release savepoint sparing; savepoint sparing";
const UNDO: &str = "rollback to savepoint sparing";
const UNDO_AND_END: &str = "rollback to savepoint sparing; release savepoint sparing";

/// The halves still to be tried, the next one last.
struct Search {
    waiting: Vec<Range<usize>>,
    spared: Spared,
    most: usize,
}

impl Search {
    fn new(len: usize, most: usize) -> Self {
        let whole = 0..len;
        Self {
            waiting: if whole.is_empty() { Vec::new() } else { vec![whole] },
            spared: Spared { changed: 0, stale: 0, refused: Vec::new() },
            most,
        }
    }

    /// What to try next. All before it is written or refused.
    fn next(&mut self) -> Option<Range<usize>> {
        self.waiting.pop()
    }

    /// Takes what came of trying a part, as rows changed and stale, and says what to do with the savepoint.
    fn settle(
        &mut self,
        part: Range<usize>,
        outcome: Result<(u64, u64), Error>,
    ) -> Result<&'static str, Error> {
        match outcome {
            Ok((changed, stale)) => {
                self.spared.changed += changed;
                self.spared.stale += stale;
                Ok(if self.waiting.is_empty() { KEEP } else { KEEP_AND_GO_ON })
            }
            Err(error) if error.class() != Class::Data || error.is_closed() => Err(error),
            Err(error) if part.len() == 1 => {
                self.spared.refused.push(Refused { index: part.start, error });
                if self.spared.refused.len() > self.most {
                    self.waiting.clear();
                }
                Ok(if self.waiting.is_empty() { UNDO_AND_END } else { UNDO })
            }
            Err(_) => {
                let middle = part.start + part.len() / 2;
                self.waiting.push(middle..part.end);
                self.waiting.push(part.start..middle);
                Ok(UNDO)
            }
        }
    }
}

impl Transaction<'_> {
    /// As [`upsert`](Self::upsert), but leaves out exactly the rows that the server refuses, and says which. It tries
    /// the whole, and halves what fails, the first half first: of two rows that exclude each other the earlier stays.
    /// For k refused rows among n it sends about 2 k log₂ n upserts, each in a savepoint; for none, one. It gives up when
    /// more than `most` are refused: those found so far are then in the answer, and the rows behind the last are not
    /// written.
    ///
    /// Rows are applied in their order, so keys need not be unique: the last one stays. What a constraint finds at
    /// commit only is not found here, unless
    /// [`check_constraints_at_once`](Self::check_constraints_at_once) was called before.
    ///
    /// No statement of the transaction may have failed before. Only errors of [`Class::Data`] refuse a row. Any other is
    /// returned at once; the transaction can then only be rolled back.
    pub async fn upsert_sparing(
        &mut self,
        table: &VectorTable,
        rows: &[VectorRow<'_>],
        overwrite: Overwrite,
        most: usize,
    ) -> Result<Spared, Error> {
        let mut search = Search::new(rows.len(), most);
        if !rows.is_empty() {
            self.control(BEGIN).await?;
        }
        while let Some(part) = search.next() {
            let outcome = self.upsert(table, &rows[part.clone()], overwrite).await;
            let control = search.settle(part, outcome.map(|done| (done.changed, done.stale)))?;
            self.control(control).await?;
        }
        Ok(search.spared)
    }

    /// As [`delete`](Self::delete), but leaves out exactly the keys whose rows the server does not let go, and says
    /// which. All else is as in [`upsert_sparing`](Self::upsert_sparing).
    pub async fn delete_sparing(
        &mut self,
        table: &VectorTable,
        keys: &[Deletion<'_>],
        overwrite: Overwrite,
        most: usize,
    ) -> Result<Spared, Error> {
        let mut search = Search::new(keys.len(), most);
        if !keys.is_empty() {
            self.control(BEGIN).await?;
        }
        while let Some(part) = search.next() {
            let outcome = self.delete(table, &keys[part.clone()], overwrite).await;
            let control = search.settle(part, outcome.map(|done| (done.deleted, done.stale)))?;
            self.control(control).await?;
        }
        Ok(search.spared)
    }

    /// Lets every constraint be checked at the end of each statement, for the rest of this transaction, also those that
    /// wait for the commit by themselves. It fails if one of them is broken already.
    pub async fn check_constraints_at_once(&mut self) -> Result<(), Error> {
        let answer = self.client().batch_execute("set constraints all immediate");
        self.during("have the constraints checked", answer).await
    }

    async fn control(&self, sql: &str) -> Result<(), Error> {
        self.during("set a savepoint", self.client().batch_execute(sql)).await
    }
}
