//! A transaction: rows in, rows out, and the proof that it was committed.

use std::{borrow::Cow, future::Future};

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use crate::{
    connection::{Connection, Parameter},
    encode::{Column, Field, Keys, Times},
    error::Error,
    overwrite::Overwrite,
    row::{Deletion, VectorRow},
    table::VectorTable,
};

/// The commit, preceded by a statement. PostgreSQL answers the `commit` of a failed transaction with success after
/// rolling it back; any other statement fails then, and the rest of the text is not run.
const COMMIT: &str = "select; commit";

/// An open transaction. Drop it without [`commit`](Self::commit) or [`rollback`](Self::rollback) and the connection is
/// ended, which rolls back.
///
/// No method is cancel-safe by itself: after dropping one of its futures, drop the transaction too. Nothing is then
/// written, except after [`commit`](Self::commit), where it is in doubt.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is rolled back, and its connection with it"]
pub struct Transaction<'c> {
    pub(crate) connection: &'c mut Connection,
    open: bool,
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// Rows inserted or updated. Those neither changed nor stale were there already, equal in every column.
    pub changed: u64,
    /// Rows left alone because [`Overwrite`] forbids to replace the one that is there.
    pub stale: u64,
}

/// What a delete did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Rows that are gone.
    pub deleted: u64,
    /// Rows left alone because [`Overwrite`] forbids to delete them.
    pub stale: u64,
}

/// The server has confirmed the commit. Made nowhere else.
#[derive(Debug)]
#[must_use = "it proves that the transaction is durable"]
pub struct Committed(());

impl<'c> Transaction<'c> {
    pub(crate) fn new(connection: &'c mut Connection) -> Self {
        Self { connection, open: true }
    }

    /// The driver's client, for SQL of the caller's own in the same transaction. Never send `commit` or `rollback`.
    pub fn client(&self) -> &Client {
        self.connection.client()
    }

    /// As [`Connection::during`].
    pub async fn during<T>(
        &self,
        action: impl Into<Cow<'static, str>>,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        self.connection.during(action, answer).await
    }

    /// Runs SQL of the caller's own that answers with rows, whose types are PostgreSQL's own. Where statements may be kept on the
    /// server it is parsed once per connection, so it should be one of a few. `action` is as for
    /// [`Connection::during`].
    pub async fn query(
        &mut self,
        action: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        self.connection.query(action, sql, parameters).await
    }

    /// Inserts the rows, or updates those whose key is there and whose columns differ, in one statement. All or
    /// nothing. Columns beyond the six keep their values.
    ///
    /// Keys must be unique within `rows`: two equal ones are [`Class::Data`](crate::Class::Data). Locks are taken in
    /// the order of `rows`; writers that share keys avoid deadlocks by sorting.
    ///
    /// "Differ" is PostgreSQL's own equality, so `-0.0` does not replace `0.0`, nor `1.0` in JSON `1`.
    pub async fn upsert(
        &mut self,
        table: &VectorTable,
        rows: &[VectorRow<'_>],
        overwrite: Overwrite,
    ) -> Result<Upserted, Error> {
        if rows.is_empty() {
            return Ok(Upserted { changed: 0, stale: 0 });
        }
        debug_assert!(rows.iter().all(|row| row.embedding.iter().all(|number| number.is_finite())));
        let column = |field| Column::new(rows, field);
        let (ids, texts, vectors) = (column(Field::Id), column(Field::Text), column(Field::Embedding));
        let (times, sources) = (column(Field::Timestamp), column(Field::Source));
        let metadata = column(Field::Metadata);
        let parameters: [Parameter<'_>; 6] = [
            (&ids, Type::TEXT_ARRAY),
            (&texts, Type::TEXT_ARRAY),
            (&vectors, table.vector_array().clone()),
            (&times, Type::TIMESTAMPTZ_ARRAY),
            (&sources, Type::TEXT_ARRAY),
            (&metadata, Type::JSONB_ARRAY),
        ];
        let action = || format!("write to {}", table.name());
        let sql = table.upsert_sql(overwrite);
        let changed = self.connection.execute(table, action(), sql, &parameters).await?;
        if overwrite == Overwrite::Always || changed == rows.len() as u64 {
            return Ok(Upserted { changed, stale: 0 });
        }
        let keys = [parameters[0].clone(), parameters[3].clone()];
        let stale = if overwrite == Overwrite::Older {
            // What was written is not older than itself.
            self.count(table, action(), table.count_not_older_sql(), &keys).await?.saturating_sub(changed)
        } else {
            self.count(table, action(), table.count_newer_sql(), &keys).await?
        };
        Ok(Upserted { changed, stale })
    }

    /// Deletes by key, in one statement. Keys that are not there are no error.
    pub async fn delete(
        &mut self,
        table: &VectorTable,
        keys: &[Deletion<'_>],
        overwrite: Overwrite,
    ) -> Result<Deleted, Error> {
        if keys.is_empty() {
            return Ok(Deleted { deleted: 0, stale: 0 });
        }
        let (ids, times) = (Keys(keys), Times(keys));
        let parameters: [Parameter<'_>; 2] = [(&ids, Type::TEXT_ARRAY), (&times, Type::TIMESTAMPTZ_ARRAY)];
        let action = || format!("delete from {}", table.name());
        let sql = table.delete_sql(overwrite);
        if overwrite == Overwrite::Always {
            let deleted = self.connection.execute(table, action(), sql, &parameters[..1]).await?;
            return Ok(Deleted { deleted, stale: 0 });
        }
        let deleted = self.connection.execute(table, action(), sql, &parameters).await?;
        if deleted == keys.len() as u64 {
            return Ok(Deleted { deleted, stale: 0 });
        }
        let stale = self.count(table, action(), table.count_keys_sql(), &parameters[..1]).await?;
        Ok(Deleted { deleted, stale })
    }

    /// How many of these keys have a row now. Locks nothing.
    pub async fn count_keys(&self, table: &VectorTable, keys: &[Deletion<'_>]) -> Result<u64, Error> {
        let parameters: [Parameter<'_>; 1] = [(&Keys(keys), Type::TEXT_ARRAY)];
        self.count(table, format!("read from {}", table.name()), table.count_keys_sql(), &parameters).await
    }

    /// Reads a count.
    async fn count(
        &self,
        table: &VectorTable,
        action: String,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Error> {
        let answer = async {
            let row = self.client().query_typed_one(sql, parameters).await?;
            Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
        };
        let answer = self.during(action, answer).await;
        answer.map_err(|error| self.connection.unless_granted(error, table))
    }

    /// Commits. An `Err` means that nothing was written, unless [`Error::is_in_doubt`]. In a transaction in which a
    /// statement has failed it is an error, too.
    ///
    /// After an `Err`, or when the future is dropped, the connection is ended.
    pub async fn commit(mut self) -> Result<Committed, Error> {
        let answer = self.client().batch_execute(COMMIT);
        let answer = self.during("commit", answer).await;
        answer.map_err(Error::after_commit_was_sent)?;
        self.finished();
        Ok(Committed(()))
    }

    /// Rolls back; the connection can be used again. After an `Err`, or when the future is dropped, the connection is
    /// ended, which rolls back as well.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let answer = self.client().batch_execute("rollback");
        self.during("roll back", answer).await?;
        self.finished();
        Ok(())
    }

    fn finished(&mut self) {
        self.open = false;
        self.connection.clean();
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.connection.abort();
        }
    }
}
