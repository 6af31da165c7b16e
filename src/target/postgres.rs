//! A PostgreSQL database: options, tables and migrations.

use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{
    Applied, ClientCertificate, ConnectOptions, Connection, Ident, Migration, Migrator, Password, TableSpec,
    Tls, TlsMode, VectorTable,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Again, Ready, wait_out};
use crate::config::{self, MigrateMode, PostgresSettings, Settings, StaleWrites};
use crate::error::ConnectorError;
use crate::index;
use crate::monitoring::Monitor;
use crate::route::{Router, TableLimits};
use crate::write::{PostgresWriter, positions};

/// The schema's steps, in order. Each file is never edited after a release.
static MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "bookkeeping", sql: include_str!("../../migrations/0001_bookkeeping.sql") },
    Migration { number: 2, name: "backlog", sql: include_str!("../../migrations/0002_backlog.sql") },
];

/// What the connector does in its own schema, and so must be allowed to do: found out at start, not at
/// the first bad record.
pub(crate) const BOOKKEEPING_RIGHTS: &[(&str, &[&str])] = &[
    ("embedsink.offsets", &["select", "insert", "update"]),
    ("embedsink.dead_letters", &["select", "insert"]),
];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// All migrations of this version.
pub(crate) fn migrator() -> Migrator {
    Migrator::new(MIGRATIONS)
}

/// How the connector of this name connects.
pub(crate) fn connect_options(connector: &str, postgres: &PostgresSettings) -> ConnectOptions {
    let mode = match postgres.tls.mode {
        config::TlsMode::Disable => TlsMode::Disable,
        config::TlsMode::Require => TlsMode::Require,
        config::TlsMode::VerifyCa => TlsMode::VerifyCa,
        config::TlsMode::VerifyFull => TlsMode::VerifyFull,
    };
    let client = postgres.tls.client.as_ref().map(|client| ClientCertificate {
        cert_file: client.cert_file.clone(),
        key_file: client.key_file.clone(),
    });
    ConnectOptions {
        host: postgres.host.clone(),
        port: postgres.port,
        database: postgres.database.clone(),
        user: postgres.user.clone(),
        password: postgres.password.as_ref().map(|password| Password::new(password.expose())),
        tls: Tls { mode, ca_file: postgres.tls.ca_file.clone(), client },
        application_name: format!("embedsink {connector}"),
        connect_timeout: CONNECT_TIMEOUT,
        statement_timeout: postgres.statement_timeout,
        prepared: postgres.prepared,
    }
}

/// Connects, migrates (or checks), checks the tables and the right to index them, and builds what has to be there before
/// the first record.
///
/// # Errors
/// Those that asking again does not mend; the others are waited out.
pub(crate) async fn prepare(
    settings: &Settings,
    postgres: &PostgresSettings,
    lanes: usize,
    again: Option<Again>,
    stopping: &CancellationToken,
    monitor: &Arc<Monitor>,
) -> Result<Ready<PostgresWriter>, ConnectorError> {
    let options = connect_options(&settings.connector, postgres);
    let tables = wait_out(monitor, || look(settings, postgres, &options)).await?;
    index::prepare(settings, &options, &tables, monitor, stopping).await;
    if let Some(Again { topic, offset }) = again {
        let connection = connect(&options).await?;
        let done = positions::set_back(&connection, &settings.connector, &topic, offset).await;
        done.map_err(|error| ConnectorError::Connect(error.into()))?;
        connection.close().await;
    }
    let writers = (0..lanes).map(|_| writer(settings, &options, &tables)).collect();
    let router = Arc::new(router(settings, &tables));
    Ok(Ready { writers, router, indexed: Some((options, tables)), beside: JoinSet::new() })
}

async fn look(
    settings: &Settings,
    postgres: &PostgresSettings,
    options: &ConnectOptions,
) -> Result<Vec<VectorTable>, ConnectorError> {
    let mut connection = connect(options).await?;
    let specs = table_specs(settings)?;
    let migrator = migrator();
    match postgres.migrate {
        MigrateMode::Auto => log_applied(&migrator.apply(&mut connection, &specs).await?),
        MigrateMode::Manual => migrator.check(connection.client(), &specs).await?,
    }
    migrator.check_rights(connection.client(), BOOKKEEPING_RIGHTS).await?;
    let tables = VectorTable::check_all(connection.client(), &specs).await?;
    index::check(&connection, settings, &tables).await?;
    connection.close().await;
    Ok(tables)
}

/// Connects at once or not at all.
pub(crate) async fn connect(options: &ConnectOptions) -> Result<Connection, ConnectorError> {
    Connection::open(options).await.map_err(|error| ConnectorError::Connect(error.into()))
}

/// Deletes the position of an import's input that will never be read again.
pub(crate) async fn forget(
    settings: &Settings,
    postgres: &PostgresSettings,
    topic: &str,
) -> Result<(), ConnectorError> {
    let connection = connect(&connect_options(&settings.connector, postgres)).await?;
    let done = positions::forget(&connection, &settings.connector, topic).await;
    done.map_err(|error| ConnectorError::Connect(error.into()))?;
    connection.close().await;
    Ok(())
}

/// A writer to `tables`, which are those of the configuration in its order.
fn writer(settings: &Settings, options: &ConnectOptions, tables: &[VectorTable]) -> PostgresWriter {
    PostgresWriter::new(settings.connector.clone(), options.clone(), tables.to_vec())
        .with_max_payload(settings.errors.max_payload)
        .with_max_refused(settings.errors.max_ratio_permille)
}

/// What finds the table of each record.
pub(crate) fn router(settings: &Settings, tables: &[VectorTable]) -> Router {
    let chars = |limit: Option<u32>| limit.map(|limit| limit as usize);
    let limits = tables.iter().zip(&settings.tables).map(|(table, configured)| TableLimits {
        name: table.name().as_str().to_owned(),
        dimensions: table.dimensions().into(),
        max_id_chars: chars(table.max_id_chars()),
        max_source_chars: chars(table.max_source_chars()),
        skip_stale: configured.stale_writes == StaleWrites::Skip,
    });
    Router::new(limits.collect())
}

/// The tables of the configuration.
///
/// # Errors
/// A name that Postgres cannot have, which the configuration refuses before.
pub(crate) fn table_specs(settings: &Settings) -> Result<Vec<TableSpec>, ConnectorError> {
    let spec = |table: &config::TableSettings| {
        let name = Ident::new(&table.name).map_err(|fault| ConnectorError::Defect(fault.to_string()))?;
        Ok(TableSpec { name, dimensions: table.dimensions })
    };
    settings.tables.iter().map(spec).collect()
}

/// Says what was changed in the database.
pub(crate) fn log_applied(applied: &Applied) {
    if applied.extension {
        tracing::info!("created the extension vector");
    }
    for migration in &applied.migrations {
        tracing::info!(%migration, "applied a migration");
    }
    for table in &applied.tables {
        tracing::info!(table = table.as_str(), "created a table");
    }
}
