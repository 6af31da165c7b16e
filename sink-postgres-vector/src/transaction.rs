//! A transaction: rows in, rows out, and the proof that it was committed.

use std::{borrow::Cow, future::Future};

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use crate::{
    connection::Connection,
    encode::{Column, Field, Keys},
    error::Error,
    row::VectorRow,
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
    connection: &'c mut Connection,
    open: bool,
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// Rows inserted or updated. The others were there already, equal in every column.
    pub changed: u64,
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

    /// Inserts the rows, or updates those whose key is there and whose columns differ, in one statement. All or
    /// nothing. Columns beyond the six keep their values.
    ///
    /// Keys must be unique within `rows`: two equal ones are [`Class::Fatal`](crate::Class::Fatal). Locks are taken in
    /// the order of `rows`; writers that share keys avoid deadlocks by sorting.
    ///
    /// "Differ" is PostgreSQL's own equality, so `-0.0` does not replace `0.0`, nor `1.0` in JSON `1`.
    pub async fn upsert(&mut self, table: &VectorTable, rows: &[VectorRow<'_>]) -> Result<Upserted, Error> {
        if rows.is_empty() {
            return Ok(Upserted { changed: 0 });
        }
        debug_assert!(rows.iter().all(|row| row.embedding.len() == usize::from(table.dimensions())));
        debug_assert!(rows.iter().all(|row| row.embedding.iter().all(|number| number.is_finite())));
        let vectors = table.vector_array();
        let types = [
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            vectors.clone(),
            Type::TIMESTAMPTZ_ARRAY,
            Type::TEXT_ARRAY,
            Type::JSONB_ARRAY,
        ];
        let statement = self.connection.prepared(table.upsert_sql(), &types, vectors.oid()).await?;
        let columns =
            [Field::Id, Field::Text, Field::Embedding, Field::Timestamp, Field::Source, Field::Metadata]
                .map(|field| Column::new(rows, field));
        let parameters = columns.each_ref().map(|column| column as &(dyn ToSql + Sync));
        let answer = self.client().execute(&statement, &parameters);
        let answer = self.during(format!("write to {}", table.name()), answer).await;
        let changed = answer.map_err(|error| self.connection.unless_granted(error, table))?;
        Ok(Upserted { changed })
    }

    /// Deletes by key and returns how many rows were there.
    pub async fn delete(&mut self, table: &VectorTable, ids: &[&str]) -> Result<u64, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let oid = table.vector_array().oid();
        let statement = self.connection.prepared(table.delete_sql(), &[Type::TEXT_ARRAY], oid).await?;
        let keys = Keys(ids);
        let parameters: [&(dyn ToSql + Sync); 1] = [&keys];
        let answer = self.client().execute(&statement, &parameters);
        let answer = self.during(format!("delete from {}", table.name()), answer).await;
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
