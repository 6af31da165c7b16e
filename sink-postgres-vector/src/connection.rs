//! One connection, its limits, and the statements prepared on it.

use std::{borrow::Cow, collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use tokio::time::timeout;
use tokio_postgres::{
    Client, Row, RowStream, Statement,
    types::{Oid, ToSql, Type},
};

use crate::{
    cause::{Cause, Target},
    driver::{self, Driver},
    error::Error,
    ident::Ident,
    options::ConnectOptions,
    session,
    table::VectorTable,
    transaction::Transaction,
};

/// How long a question to the catalog may take to be answered, beside a transaction.
pub(crate) const QUESTION: Duration = Duration::from_secs(60);

/// How much longer than the server's own limit for a statement its answer is awaited.
const GRACE: Duration = Duration::from_secs(15);

/// How long closing waits for what is still to be sent.
const CLOSE: Duration = Duration::from_secs(2);

/// Opens the transaction and bounds the wait for a lock. The limits for a statement and between statements are still to
/// be appended. The isolation level is named because the rules of `on conflict` are written for this one.
const BEGIN: &str = "begin isolation level read committed; set local lock_timeout = '10s'";

const PREPARING: &str = "prepare a statement";

/// How long the server waits between statements, in seconds, when next to nothing is sent.
const IDLE: u32 = 10;

/// The slowest way that a batch is to get through, in bytes a second. PostgreSQL takes itself for idle while it
/// receives a statement, however long that is.
const SLOWEST: usize = 256 * 1024;

/// The most the server takes for a limit, in seconds; it counts milliseconds in 31 bits.
const MAX_IDLE: u32 = 2_147_483;

/// A parameter of a statement, with its type: what is sent unnamed needs it.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One session on the server. Dropping it ends the session; what was not committed is rolled back.
///
/// After an error whose [`Error::is_closed`] is true, or once [`Connection::is_closed`], open a new one.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: Driver,
    target: Arc<Target>,
    statements: HashMap<String, (Option<Oid>, Statement)>,
    /// From before `begin` is sent until a commit or rollback is confirmed. Who finds it set found a session in an
    /// unknown state.
    dirty: bool,
    /// How long sending may take in the open transaction, beside the time for an answer.
    sending: Duration,
    statement_timeout: Duration,
    /// Whether statements may be kept on the server by name.
    prepared: bool,
}

impl Connection {
    /// Connects, within `connect_timeout`. A server on which nothing can be written counts as not available.
    ///
    /// Cancel-safe: dropping the future drops the connection.
    pub async fn open(options: &ConnectOptions) -> Result<Self, Error> {
        let target = Arc::new(Target::of(options));
        let cause = match timeout(options.connect_timeout, driver::connect(options)).await {
            Ok(Ok((client, driver))) => {
                return Ok(Self {
                    client,
                    driver,
                    target,
                    statements: HashMap::new(),
                    dirty: false,
                    sending: Duration::ZERO,
                    statement_timeout: options.statement_timeout,
                    prepared: options.prepared,
                });
            }
            Ok(Err(cause)) => cause,
            Err(_) => Cause::Timeout(options.connect_timeout),
        };
        Err(Error::new(format!("connect to {target}"), cause).at(&target))
    }

    /// The driver's client, for SQL of the caller's own outside a transaction.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection can no longer be used: lost, or left in the middle of a transaction.
    pub fn is_closed(&self) -> bool {
        self.dirty || self.driver.is_given_up() || self.client.is_closed()
    }

    /// [`begin_for`](Self::begin_for) next to no bytes: for statements that are short.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        self.begin_for(0).await
    }

    /// Opens a transaction, in one round trip. It waits at most 10 s for a lock, and `statement_timeout` for a statement.
    ///
    /// `bytes` are about to be sent in it, roughly; the largest statement counts. The server ends the transaction when
    /// no statement is complete for 10 s and a second more for every 256 KiB or part of them: the time it takes to
    /// receive a statement counts as idle. Answers are awaited as much longer.
    ///
    /// Dropping the future, or the transaction without commit or rollback, makes the connection unusable: the server
    /// rolls back, and nobody works on in a state he does not know.
    pub async fn begin_for(&mut self, bytes: usize) -> Result<Transaction<'_>, Error> {
        if self.is_closed() {
            return Err(self.error("begin a transaction", Cause::Closed(None)));
        }
        self.dirty = true;
        let sending = u32::try_from(bytes.div_ceil(SLOWEST)).unwrap_or(u32::MAX);
        let idle = IDLE.saturating_add(sending).min(MAX_IDLE);
        self.sending = Duration::from_secs((idle - IDLE).into());
        let statement = self.statement_timeout.as_millis().clamp(1, u128::from(MAX_IDLE) * 1000);
        let begin = format!(
            "{BEGIN}; set local statement_timeout = '{statement}ms'; \
             set local idle_in_transaction_session_timeout = '{idle}s'"
        );
        self.during("begin a transaction", self.client.batch_execute(&begin)).await?;
        Ok(Transaction::new(self))
    }

    /// Awaits an answer to SQL of the caller's own, at most `statement_timeout`, 15 s for the way, and what
    /// [`begin_for`](Self::begin_for) adds for sending. Turns a failure into an [`Error`] that also knows why the
    /// connection was lost. `action` completes "could not …" and must hold no values.
    ///
    /// After a timeout the connection is ended.
    pub async fn during<T>(
        &self,
        action: impl Into<Cow<'static, str>>,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let limit = self.statement_timeout + GRACE + self.sending;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.error(action, Cause::of(&error))),
            Err(_) => {
                self.abort();
                Err(self.error(action, Cause::Timeout(limit)))
            }
        }
    }

    /// The same without a limit, for what takes as long as it takes. That the server's machine is gone is noticed by
    /// keepalives.
    pub(crate) async fn at_leisure<T>(
        &self,
        action: impl Into<Cow<'static, str>>,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        answer.await.map_err(|error| self.error(action, Cause::of(&error)))
    }

    /// Ends the session in order. Waits at most 2 s.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if timeout(CLOSE, &mut driver.task).await.is_err() {
            tracing::debug!("the connection did not close in time and was dropped");
        }
    }

    /// Ends the session at once.
    pub(crate) fn abort(&self) {
        self.driver.give_up();
    }

    pub(crate) fn clean(&mut self) {
        self.dirty = false;
        self.sending = Duration::ZERO;
    }

    /// Runs a statement that writes to a table and says how many rows it changed.
    pub(crate) async fn execute(
        &mut self,
        table: &VectorTable,
        action: String,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Error> {
        let answer = if let Some(statement) = self.prepare(table, sql, parameters).await? {
            let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
            self.during(action, self.client.execute(&statement, &values)).await
        } else {
            self.during(action, self.client.execute_typed(sql, parameters)).await
        };
        answer.map_err(|error| self.unless_granted(error, table))
    }

    /// Prepares a statement for these parameters, once per connection; `None` where none may be kept.
    pub(crate) async fn prepare(
        &mut self,
        table: &VectorTable,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Statement>, Error> {
        let kept = self.kept(PREPARING, sql, parameters, Some(table.vector_array().oid())).await;
        kept.map_err(|error| self.unless_granted(error, table))
    }

    /// Runs a statement that answers with rows, whose types must all be PostgreSQL's own.
    pub(crate) async fn ask(
        &self,
        sql: &str,
        statement: Option<Statement>,
        parameters: &[Parameter<'_>],
    ) -> Result<RowStream, tokio_postgres::Error> {
        let values = parameters.iter().map(|(value, _)| *value);
        match statement {
            Some(statement) => self.client.query_raw(&statement, values).await,
            None => {
                self.client
                    .query_typed_raw(sql, parameters.iter().map(|(value, ty)| (*value, ty.clone())))
                    .await
            }
        }
    }

    /// Prepares what takes rows into a table by COPY.
    pub(crate) async fn copy_statement(&mut self, table: &VectorTable) -> Result<Statement, Error> {
        let prepared =
            self.statement(PREPARING, table.copy_sql(), &[], Some(table.vector_array().oid())).await;
        prepared.map_err(|error| self.unless_granted(error, table))
    }

    /// Runs a statement that names no table of vectors and answers with rows.
    pub(crate) async fn query(
        &mut self,
        action: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.kept(action, sql, parameters, None).await?;
        self.during(action, async { self.ask(sql, statement, parameters).await?.try_collect().await }).await
    }

    /// The statement that the server keeps for these parameters; `None` where it may keep none.
    async fn kept(
        &mut self,
        action: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
        vector: Option<Oid>,
    ) -> Result<Option<Statement>, Error> {
        if !self.prepared {
            return Ok(None);
        }
        let types: Vec<Type> = parameters.iter().map(|(_, ty)| ty.clone()).collect();
        self.statement(action, sql, &types, vector).await.map(Some)
    }

    /// Prepares a statement once per connection. `vector` distinguishes extensions that were dropped and made again.
    async fn statement(
        &mut self,
        action: &'static str,
        sql: &str,
        types: &[Type],
        vector: Option<Oid>,
    ) -> Result<Statement, Error> {
        if let Some((oid, statement)) = self.statements.get(sql)
            && *oid == vector
        {
            return Ok(statement.clone());
        }
        let statement = self.during(action, self.client.prepare_typed(sql, types)).await?;
        self.statements.insert(sql.to_owned(), (vector, statement.clone()));
        Ok(statement)
    }

    /// Says, if it failed for want of a right, which rights writing to the table needs.
    pub(crate) fn unless_granted(&self, error: Error, table: &VectorTable) -> Error {
        let (role, database) = (Ident::new(&*self.target.user), Ident::new(&*self.target.database));
        match (role, database) {
            (Ok(role), Ok(database)) => {
                error.unless_granted(|| session::ask(&database, &table.grant_sql(&role)))
            }
            _ => error,
        }
    }

    fn error(&self, action: impl Into<Cow<'static, str>>, cause: Cause) -> Error {
        let cause = match cause {
            Cause::Closed(None) => Cause::Closed(self.driver.end.get().cloned().map(Box::new)),
            cause => cause,
        };
        Error::new(action, cause).at(&self.target)
    }
}
