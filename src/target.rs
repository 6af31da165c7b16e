//! The target as the settings describe it, made ready for the first record. At the edge.

#[cfg(feature = "lancedb")]
pub(crate) mod lancedb;
pub(crate) mod postgres;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{Class, ConnectOptions, ContractError, MigrateError, VectorTable};
use tokio::task::JoinSet;

use crate::attempt::pauses;
use crate::error::{ConnectorError, Disposition, WriteError};
use crate::monitoring::{LaneMonitor, Monitor};
use crate::route::Router;

/// What a connector writes with.
pub(crate) struct Ready<W> {
    /// One for each lane.
    pub(crate) writers: Vec<W>,
    /// What finds the table of each record.
    pub(crate) router: Arc<Router>,
    /// The tables whose vector indexes are seen to beside the writing, and how to connect to them. `None` where the
    /// writer does it itself.
    pub(crate) indexed: Option<(ConnectOptions, Vec<VectorTable>)>,
    /// What goes on beside the writing, and ends with it.
    pub(crate) beside: JoinSet<()>,
}

/// An import whose input is to be written from its first line on, whatever is stored.
pub(crate) struct Again {
    pub(crate) topic: String,
    pub(crate) offset: i64,
}

/// Tries until it is ready. Passing faults are waited out, and told.
///
/// # Errors
/// Those that asking again does not mend.
pub(crate) async fn wait_out<T, F: Future<Output = Result<T, ConnectorError>>>(
    monitor: &Monitor,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ConnectorError> {
    let listener = LaneMonitor { monitor, lane: 0 };
    let mut pauses = pauses();
    loop {
        let error = match attempt().await {
            Ok(ready) => {
                listener.recovered();
                return Ok(ready);
            }
            Err(error) => passing(error)?,
        };
        listener.failed(&error);
        tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))).await;
    }
}

/// The fault behind a failed start, if it passes by itself; otherwise the error as it was.
pub(crate) fn passing(error: ConnectorError) -> Result<WriteError, ConnectorError> {
    match error {
        ConnectorError::Connect(error) if error.disposition() == Disposition::Retry => Ok(error),
        ConnectorError::Migrate(MigrateError::Database(error)) if error.class() == Class::Transient => {
            Ok(error.into())
        }
        ConnectorError::Contract(ContractError::Unknown(error)) if error.class() == Class::Transient => {
            Ok(error.into())
        }
        error => Err(error),
    }
}
