//! Brings a database to the shape this version needs: the extension, the numbered migrations, the tables.

use std::{collections::BTreeMap, future::Future};

use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState, types::Type};

use crate::{
    cause::Cause,
    connection::{Connection, Parameter, QUESTION},
    error::Error,
    extension::Extension,
    migration::{Applied, MigrateError, Migration, SCHEMA},
    rights,
    session::Session,
    statement,
    table::TableSpec,
    transaction::Transaction,
};

/// The advisory lock that every step is taken under, so that programs that start together take turns. It is the text
/// `embedsnk` as a number; whoever wants to hold migrations off takes the same.
const LOCK: i64 = 0x656d_6265_6473_6e6b;

/// Waits for the turn longer than a write waits for a row, and lets an index be built as long as that takes.
const TAKE_TURN: &str = "set local lock_timeout = '60s'; set local statement_timeout = 0; \
                         select pg_catalog.pg_advisory_xact_lock(";

/// Lets the session see what the one before has made. A session remembers which names do not exist, and hears of new
/// ones when it locks a table, which waiting for an advisory lock is not. Without this, `create schema if not exists`
/// fails on a schema that exists.
const CATCH_UP: &str = "select from pg_catalog.pg_class where false";

/// Looked for before, because `create schema if not exists` wants the right to create one even if it exists.
const HAS_SCHEMA: &str = "select exists (select from pg_catalog.pg_namespace where nspname = $1::text)";

const MIGRATIONS: &str = "
create table if not exists embedsink.migrations (
  number int primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now()
)";

/// Applies migrations, or says which are missing.
#[derive(Clone, Copy, Debug)]
pub struct Migrator {
    migrations: &'static [Migration],
}

/// What a database lacks.
struct Missing {
    session: Session,
    extension: bool,
    bookkeeping: bool,
    migrations: Vec<Migration>,
    tables: Vec<TableSpec>,
}

impl Migrator {
    /// Takes the migrations in ascending order.
    ///
    /// # Panics
    /// If the numbers do not ascend.
    pub const fn new(migrations: &'static [Migration]) -> Self {
        let mut next = 1;
        while next < migrations.len() {
            assert!(
                migrations[next - 1].number < migrations[next].number,
                "migrations are numbered in order"
            );
            next += 1;
        }
        Self { migrations }
    }

    /// Brings the database up to date: the extension, the migrations, and the tables that are not there. Each is a
    /// transaction of its own under one advisory lock, so several programs can start at once, and what succeeded stays
    /// when a later one fails. A database that is up to date is only read, which needs no right to create anything.
    ///
    /// A table that is there is left alone, whatever its shape; [`VectorTable::check`](crate::VectorTable::check)
    /// judges that. When the future is dropped, the connection is ended.
    pub async fn apply(
        &self,
        connection: &mut Connection,
        tables: &[TableSpec],
    ) -> Result<Applied, MigrateError> {
        let missing = self.missing(connection.client(), tables).await?;
        let session = &missing.session;
        let mut applied = Applied::default();
        if missing.extension {
            applied.extension = create_extension(connection).await?;
        }
        if missing.bookkeeping {
            let turn = Turn::take(connection).await?;
            turn.keep_books(session).await?;
            turn.done().await?;
        }
        for migration in &missing.migrations {
            if apply_one(connection, session, migration).await? {
                applied.migrations.push(migration.to_string());
            }
        }
        for table in &missing.tables {
            if create_table(connection, session, table).await? {
                applied.tables.push(table.name.clone());
            }
        }
        Ok(applied)
    }

    /// Says what [`apply`](Self::apply) would do, as [`MigrateError::Pending`], and changes nothing.
    pub async fn check(&self, client: &Client, tables: &[TableSpec]) -> Result<(), MigrateError> {
        let missing = self.missing(client, tables).await?;
        let extension = missing.extension.then(|| "the extension vector".to_owned());
        let migrations = missing.migrations.iter().map(|migration| format!("migration {migration}"));
        let tables = missing.tables.iter().map(|table| format!("table {}", table.name));
        let missing: Vec<_> = extension.into_iter().chain(migrations).chain(tables).collect();
        if missing.is_empty() { Ok(()) } else { Err(MigrateError::Pending { missing }) }
    }

    /// Checks that the role may use tables that are there: for each, its name with the schema, as in SQL, and rights as
    /// in `grant`. Reports all that is missing together, as [`MigrateError::Rights`], and changes nothing.
    ///
    /// For tables of migrations; [`VectorTable::check`](crate::VectorTable::check) does it for those written to.
    pub async fn check_rights(
        &self,
        client: &Client,
        tables: &[(&str, &[&str])],
    ) -> Result<(), MigrateError> {
        in_time("look for the rights", rights::find(client, tables)).await
    }

    async fn missing(&self, client: &Client, tables: &[TableSpec]) -> Result<Missing, MigrateError> {
        in_time("look for what is missing", self.find_missing(client, tables)).await
    }

    async fn find_missing(&self, client: &Client, tables: &[TableSpec]) -> Result<Missing, MigrateError> {
        let session = session(client).await?;
        let extension =
            Extension::find(client).await.map_err(failed("look for the extension vector"))?.is_none();
        let needs_reading = |error: MigrateError| error.unless_granted(|| session.may_read_migrations());
        let bookkeeping = !exists(client, "embedsink.migrations").await.map_err(needs_reading)?;
        let applied =
            if bookkeeping { BTreeMap::new() } else { applied(client).await.map_err(needs_reading)? };
        if let Some((number, (name, _))) =
            applied.iter().find(|(number, _)| self.migrations.iter().all(|known| known.number != **number))
        {
            return Err(MigrateError::Newer { number: *number, name: name.clone() });
        }
        let mut migrations = Vec::new();
        for migration in self.migrations {
            match applied.get(&migration.number) {
                None => migrations.push(*migration),
                Some((_, checksum)) if *checksum == migration.checksum() => {}
                Some(_) => {
                    return Err(MigrateError::Changed { migration: migration.to_string() });
                }
            }
        }
        let mut absent = Vec::new();
        for table in tables {
            if !exists(client, &table.name.to_string()).await? {
                absent.push(table.clone());
            }
        }
        if let (Some(table), None) = (absent.first(), &session.schema) {
            let table = table.name.clone();
            let home = session.home(client, &table).await;
            return Err(MigrateError::NoSchema {
                fix: home.map_err(failed(format!("look for the table {table}")))?.mend,
                search_path: session.search_path,
                table,
            });
        }
        Ok(Missing { session, extension, bookkeeping, migrations, tables: absent })
    }
}

/// A transaction under the lock. The lock ends with it, whatever happens.
struct Turn<'c>(Transaction<'c>);

impl<'c> Turn<'c> {
    async fn take(connection: &'c mut Connection) -> Result<Self, MigrateError> {
        let transaction = connection.begin().await.map_err(MigrateError::Database)?;
        let turn = Self(transaction);
        turn.run("wait for another program's migrations", &format!("{TAKE_TURN}{LOCK}); {CATCH_UP}")).await?;
        Ok(turn)
    }

    async fn run(&self, action: impl Into<String>, sql: &str) -> Result<(), MigrateError> {
        let action = action.into();
        self.0.client().batch_execute(sql).await.map_err(failed(action))
    }

    /// Creates the schema and the table of what was applied, each unless it is there: the schema may be a gift of an
    /// administrator to a role that may create none.
    async fn keep_books(&self, session: &Session) -> Result<(), MigrateError> {
        let Session { role, database, .. } = session;
        let client = self.0.client();
        let action = "create the schema embedsink";
        let found = client.query_typed_one(HAS_SCHEMA, &[(&SCHEMA, Type::TEXT)]).await;
        let found: bool = found.and_then(|row| row.try_get(0)).map_err(failed(action))?;
        if !found {
            let created = self.run(action, "create schema if not exists embedsink").await;
            created.map_err(|error| {
                error.unless_granted(|| {
                    session.ask(&format!(
                        "create schema embedsink authorization {role}; or: grant create on database {database} to {role};"
                    ))
                })
            })?;
        }
        let created = match exists(client, "embedsink.migrations").await {
            Ok(false) => self.run("create the table embedsink.migrations", MIGRATIONS).await,
            found => found.map(|_| ()),
        };
        created.map_err(|error| error.unless_granted(|| may_create(session)))
    }

    async fn done(self) -> Result<(), MigrateError> {
        let _committed = self.0.commit().await.map_err(MigrateError::Database)?;
        Ok(())
    }
}

async fn create_extension(connection: &mut Connection) -> Result<bool, MigrateError> {
    let turn = Turn::take(connection).await?;
    let action = "create the extension vector";
    if Extension::find(turn.0.client()).await.map_err(failed(action))?.is_some() {
        turn.done().await?;
        return Ok(false);
    }
    match turn.0.client().batch_execute("create extension if not exists vector").await {
        Ok(()) => turn.done().await.map(|()| true),
        Err(error) => {
            turn.0.rollback().await.map_err(MigrateError::Database)?;
            let code = error.code().cloned();
            Err(match code {
                // The control file is missing: the first code since PostgreSQL 13, the second before.
                Some(code) if [SqlState::FEATURE_NOT_SUPPORTED, SqlState::UNDEFINED_FILE].contains(&code) => {
                    MigrateError::ExtensionNotInstalled
                }
                Some(SqlState::INSUFFICIENT_PRIVILEGE) => MigrateError::ExtensionNotPermitted,
                _ => failed(action)(error),
            })
        }
    }
}

/// Applies one, unless another program was first. Says whether it did.
async fn apply_one(
    connection: &mut Connection,
    session: &Session,
    migration: &Migration,
) -> Result<bool, MigrateError> {
    let turn = Turn::take(connection).await?;
    if let Some((_, checksum)) = applied(turn.0.client()).await?.get(&migration.number) {
        if *checksum != migration.checksum() {
            return Err(MigrateError::Changed { migration: migration.to_string() });
        }
        turn.done().await?;
        return Ok(false);
    }
    turn.run(format!("apply migration {migration}"), migration.sql)
        .await
        .map_err(|error| error.unless_granted(|| may_create(session)))?;
    let insert = "insert into embedsink.migrations (number, name, checksum) values ($1, $2, $3)";
    let number = i32::try_from(migration.number).expect("a migration's number is small");
    let checksum = migration.checksum();
    let values: [Parameter<'_>; 3] =
        [(&number, Type::INT4), (&migration.name, Type::TEXT), (&checksum, Type::TEXT)];
    let row = turn.0.client().execute_typed(insert, &values).await;
    row.map_err(failed(format!("record migration {migration}"))).map_err(|error| {
        error.unless_granted(|| {
            session.ask(&format!("grant select, insert on embedsink.migrations to {};", session.role))
        })
    })?;
    turn.done().await?;
    Ok(true)
}

async fn create_table(
    connection: &mut Connection,
    session: &Session,
    table: &TableSpec,
) -> Result<bool, MigrateError> {
    let turn = Turn::take(connection).await?;
    let action = format!("create the table {}", table.name);
    let extension = Extension::find(turn.0.client()).await.map_err(failed(action.clone()))?;
    let existed = exists(turn.0.client(), &table.name.to_string()).await?;
    if let Some(extension) = extension
        && !existed
    {
        let vector = format!("{}.vector", extension.schema);
        turn.run(action, &statement::create_table(&table.name, &vector, table.dimensions))
            .await
            .map_err(|error| error.unless_granted(|| may_create_table(session, &extension)))?;
    }
    turn.done().await?;
    Ok(!existed)
}

/// Ends what only asks the catalog after [`QUESTION`].
async fn in_time<T>(
    action: &'static str,
    answer: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    match timeout(QUESTION, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(MigrateError::Database(Error::new(action, Cause::Timeout(QUESTION)))),
    }
}

pub(crate) async fn session(client: &Client) -> Result<Session, MigrateError> {
    let session = Session::read(client).await;
    session.map_err(failed("ask for the role and its search path"))
}

/// To create in the schema of the bookkeeping.
fn may_create(session: &Session) -> String {
    let grant = format!("grant usage, create on schema embedsink to {};", session.role);
    format!("Run `embedsink migrate` as the owner of the schema embedsink. Or: {}", session.ask(&grant))
}

/// To create a table with a vector in it.
fn may_create_table(session: &Session, extension: &Extension) -> String {
    let Session { role, schema, .. } = session;
    let mut grants = Vec::new();
    if let Some(schema) = schema {
        grants.push(format!("grant usage, create on schema {schema} to {role};"));
    }
    if !extension.usable {
        grants.push(format!("grant usage on schema {} to {role};", extension.schema));
    }
    session.ask(&grants.join(" "))
}

async fn exists(client: &Client, name: &str) -> Result<bool, MigrateError> {
    let row = client
        .query_typed_one("select pg_catalog.to_regclass($1::text) is not null", &[(&name, Type::TEXT)])
        .await;
    row.and_then(|row| row.try_get(0)).map_err(failed(format!("look for the table {name}")))
}

/// Name and checksum by number.
async fn applied(client: &Client) -> Result<BTreeMap<u32, (String, String)>, MigrateError> {
    let read = || failed("read embedsink.migrations");
    let rows = client
        .query_typed("select number, name, checksum from embedsink.migrations", &[])
        .await
        .map_err(read())?;
    rows.iter()
        .map(|row| {
            let number: i32 = row.try_get(0)?;
            Ok((number.unsigned_abs(), (row.try_get(1)?, row.try_get(2)?)))
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(read())
}

pub(crate) fn failed(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> MigrateError {
    let action = action.into();
    |error| MigrateError::Database(Error::during(action, error))
}
