//! Why a command did not do what it was asked for, and the exit code that tells it.

use std::io;

use sink_postgres_vector::Error;

use super::output;
use super::run::report_failure;
use crate::error::{ConnectorError, FAILED};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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

/// Says what went wrong. Returns the exit code: 0 done, 1 failed, 78 bad configuration, which is also where a right is
/// missing.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub(super) fn report(done: Result<(), Failure>) -> io::Result<u8> {
    match done {
        Ok(()) => Ok(0),
        Err(Failure::Connector(error)) => Ok(report_failure(&error)),
        Err(Failure::Output(error)) if output::is_gone(&error) => Ok(0),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Refused(why)) => {
            tracing::error!("{why}");
            Ok(FAILED)
        }
    }
}
