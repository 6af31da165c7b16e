//! Dead letters: listed, shown, replayed, purged.

mod list;
mod options;
mod purge;
mod replay;
mod show;

use std::io;

use sink_postgres_vector::{Connection, Error};

use super::run::report_failure;
use crate::config::Settings;
use crate::error::{ConnectorError, FAILED};
use crate::target;

pub use options::{DlqCommand, Files, Filter};

/// Does what is asked. Returns the exit code: 0 done, 1 failed, 78 bad configuration, which is also where a right is
/// missing.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub async fn dlq(command: &DlqCommand) -> io::Result<u8> {
    match carry_out(command).await {
        Ok(()) => Ok(0),
        Err(Failure::Connector(error)) => Ok(report_failure(&error)),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Refused(why)) => {
            tracing::error!("{why}");
            Ok(FAILED)
        }
    }
}

async fn carry_out(command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List { files, filter, limit, json } => {
            let store = Store::open(files, &["select"]).await?;
            list::list(&store, &filter.selection(store.connector()), *limit, *json).await
        }
        DlqCommand::Show { files, id, payload } => {
            show::show(&Store::open(files, &["select"]).await?, *id, *payload).await
        }
        DlqCommand::Replay { files, filter, dry_run } => {
            let store = Store::open(files, &["select", "update", "delete"]).await?;
            let selection = filter.selection_for_replay(store.connector());
            replay::replay(store, &selection, *dry_run).await
        }
        DlqCommand::Purge { files, filter, yes, dry_run } => {
            let store = Store::open(files, &["select", "delete"]).await?;
            let selection = filter.selection(store.connector());
            purge::purge(store, &selection, filter.is_empty(), *yes, *dry_run).await
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error(transparent)]
    Output(#[from] io::Error),
    /// With the reason and the remedy, as whole sentences.
    #[error("{0}")]
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Connector(ConnectorError::Connect(error.into()))
    }
}

/// The database in which the letters are, and whose they are.
struct Store {
    settings: Settings,
    connection: Connection,
}

impl Store {
    /// Connects, and checks that the letters are there and may be used with these rights.
    async fn open(files: &Files, rights: &[&str]) -> Result<Self, Failure> {
        let settings = Settings::from_file(&files.config, files.secrets.as_deref());
        let settings = settings.map_err(ConnectorError::from)?;
        let connection = Connection::open(&target::connect_options(&settings)).await?;
        let migrator = target::migrator();
        migrator.check(connection.client(), &[]).await.map_err(ConnectorError::from)?;
        let tables = [("embedsink.dead_letters", rights)];
        migrator.check_rights(connection.client(), &tables).await.map_err(ConnectorError::from)?;
        Ok(Self { settings, connection })
    }

    fn connector(&self) -> &str {
        &self.settings.connector
    }
}

/// A count with its noun.
fn letters(count: i64) -> String {
    format!("{count} dead {}", if count == 1 { "letter" } else { "letters" })
}
