//! The target database as the settings describe it: options, tables and migrations. At the edge.

use std::time::Duration;

use sink_postgres_vector::{
    Applied, Class, ClientCertificate, ConnectOptions, ContractError, Error, Ident, MigrateError, Migration,
    Migrator, Password, TableSpec, Tls, TlsMode, VectorTable,
};

use crate::config::{self, Settings, StaleWrites};
use crate::error::{ConnectorError, WriteError};
use crate::route::{Router, TableLimits};
use crate::write::PostgresWriter;

/// The schema's steps, in order. Each file is never edited after a release.
static MIGRATIONS: &[Migration] =
    &[Migration { number: 1, name: "bookkeeping", sql: include_str!("../migrations/0001_bookkeeping.sql") }];

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

/// How to connect.
pub(crate) fn connect_options(settings: &Settings) -> ConnectOptions {
    let postgres = &settings.postgres;
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
        application_name: format!("embedsink {}", settings.connector),
        connect_timeout: CONNECT_TIMEOUT,
        statement_timeout: postgres.statement_timeout,
        prepared: postgres.prepared,
    }
}

/// A writer to `tables`, which are those of the configuration in its order.
pub(crate) fn writer(settings: &Settings, tables: &[VectorTable]) -> PostgresWriter {
    PostgresWriter::new(settings.connector.clone(), connect_options(settings), tables.to_vec())
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

/// The fault behind a failed start, if it passes by itself; otherwise the error as it was.
pub(crate) fn passing(error: ConnectorError) -> Result<Error, ConnectorError> {
    let is_passing = |error: &Error| error.class() == Class::Transient;
    match error {
        ConnectorError::Connect(WriteError::Postgres(error)) if is_passing(&error) => Ok(error),
        ConnectorError::Migrate(MigrateError::Database(error)) if is_passing(&error) => Ok(error),
        ConnectorError::Contract(ContractError::Unknown(error)) if is_passing(&error) => Ok(error),
        error => Err(error),
    }
}
