//! A file, or standard input, from its beginning to its end.

use std::sync::Arc;

use sink_postgres_vector::{Connection, Error, VectorTable};

use super::{StopSignal, Way, flow};
use crate::config::{Settings, StartAt};
use crate::error::ConnectorError;
use crate::monitoring::Monitor;
use crate::source::Budget;
use crate::source::file::{FileInput, FileSource, Transforms};
use crate::target;
use crate::write::positions;

/// Writes an input of its own to its end.
pub(super) async fn import(
    input: FileInput,
    again: bool,
    settings: &Settings,
    tables: &[VectorTable],
    budget: Budget,
    monitor: &Arc<Monitor>,
    stop: &StopSignal,
) -> (bool, Result<(), ConnectorError>) {
    let (topic, is_standard) = (input.topic().to_owned(), input.is_standard());
    if again && let Err(error) = set_back(settings, &topic).await {
        return (true, Err(ConnectorError::Connect(error.into())));
    }
    let max_line = settings.batch.max_bytes;
    let source = Transforms::load(settings)
        .await
        .map(|transforms| FileSource::new(input, max_line, transforms, budget, stop.asked.clone()));
    let way = Way { start: StartAt::Beginning, lanes: 1 };
    let ended = flow(source, way, settings, tables, monitor, stop).await;
    if is_standard {
        // Nobody can mistake it for another's; it would only be in the way.
        if let Err(error) = forget(settings, &topic).await {
            tracing::debug!(%error, "the position of an input that is over stays behind");
        }
    }
    ended
}

async fn set_back(settings: &Settings, topic: &str) -> Result<(), Error> {
    let connection = Connection::open(&target::connect_options(settings)).await?;
    positions::set_back(&connection, &settings.connector, topic, 1).await?;
    connection.close().await;
    Ok(())
}

async fn forget(settings: &Settings, topic: &str) -> Result<(), Error> {
    let connection = Connection::open(&target::connect_options(settings)).await?;
    positions::forget(&connection, &settings.connector, topic).await?;
    connection.close().await;
    Ok(())
}
