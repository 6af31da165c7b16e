//! The database with a connector's bookkeeping, for the commands that look into it.

use sink_postgres_vector::Connection;

use super::failure::Failure;
use super::files::Files;
use crate::config::Settings;
use crate::error::ConnectorError;
use crate::target;

/// The database in which the bookkeeping is, and whose it is.
pub(super) struct Store {
    pub(super) settings: Settings,
    pub(super) connection: Connection,
}

impl Store {
    /// Connects, and checks that `table` is there and may be used with these rights.
    pub(super) async fn open(files: &Files, table: &str, rights: &[&str]) -> Result<Self, Failure> {
        let settings = Settings::from_file(&files.config, files.secrets.as_deref());
        let settings = settings.map_err(ConnectorError::from)?;
        let connection = Connection::open(&target::connect_options(&settings)).await?;
        let migrator = target::migrator();
        migrator.check(connection.client(), &[]).await.map_err(ConnectorError::from)?;
        migrator.check_rights(connection.client(), &[(table, rights)]).await.map_err(ConnectorError::from)?;
        Ok(Self { settings, connection })
    }

    pub(super) fn connector(&self) -> &str {
        &self.settings.connector
    }
}
