//! A LanceDB dataset: its lock, its tables, and what is told of them.

mod watch;

use std::sync::Arc;

use sink_lancedb::{
    self as lance, Dataset, DatasetOptions, Error, IndexSpec, LockedDataset, TableSpec, Upkeep,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Again, Ready, wait_out};
use crate::config::{
    LanceIndexMethod, LanceIndexSettings, LanceMetric, LanceSettings, Settings, StaleWrites, TableSettings,
};
use crate::error::ConnectorError;
use crate::monitoring::{IndexProgress, IndexState, Monitor};
use crate::route::{Router, TableLimits};
use crate::write::lancedb::positions::Positions;
use crate::write::{LanceWriter, Writer};

use watch::Watch;

/// With fewer rows a search that looks at all of them is as fast.
const INDEX_ROWS: u32 = 10_000;

/// Bytes that each open table keeps of its indexes, and of its manifests and footers. A writer reads few of them twice.
const CACHES: (usize, usize) = (32 << 20, 8 << 20);
/// The same for who only looks at sizes.
const SMALL_CACHES: (usize, usize) = (1 << 20, 1 << 20);

/// Where the tables are.
///
/// # Errors
/// What is there and no folder.
pub(crate) fn dataset(lance: &LanceSettings) -> Result<Dataset, ConnectorError> {
    opened(lance, CACHES)
}

fn opened(
    lance: &LanceSettings,
    (index_cache, metadata_cache): (usize, usize),
) -> Result<Dataset, ConnectorError> {
    let options = lance.storage_options.iter();
    let storage_options = options.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let options = DatasetOptions {
        storage_options,
        sole_writer: lance.sole_writer,
        index_cache,
        metadata_cache,
        ..DatasetOptions::new(lance.uri.clone())
    };
    Dataset::open(options).map_err(failed)
}

/// Locks the dataset, makes the tables that are missing, and checks those that are there.
///
/// # Errors
/// Those that asking again does not mend; the others are waited out.
pub(crate) async fn prepare(
    settings: &Settings,
    lance: &LanceSettings,
    again: Option<Again>,
    is_import: bool,
    stopping: &CancellationToken,
    monitor: &Arc<Monitor>,
) -> Result<Ready<LanceWriter>, ConnectorError> {
    monitor.writes_to_a_dataset();
    for table in &settings.tables {
        monitor.index(&table.name, index_progress(table));
    }
    // An import gets its vector indexes once all is written: see `tend`.
    let index = |table| spec(table).index.filter(|_| !is_import);
    let specs =
        || settings.tables.iter().map(|table| TableSpec { index: index(table), ..spec(table) }).collect();
    let mut writer = wait_out(monitor, || open(settings, lance, specs(), stopping, monitor)).await?;
    if let Some(Again { topic, offset }) = again {
        writer.set_back(&topic, offset).await.map_err(failed)?;
    }
    let router = Arc::new(Router::new(settings.tables.iter().map(limits).collect()));
    let tables = settings.tables.iter().map(|table| (table.name.clone(), spec(table).index));
    let mut beside = JoinSet::new();
    beside.spawn(Watch::new(opened(lance, SMALL_CACHES)?, tables.collect(), monitor).run());
    Ok(Ready { writers: vec![writer], router, indexed: None, beside })
}

/// Makes the tables that are missing, and checks those that are there.
///
/// # Errors
/// Why they cannot be used.
pub(crate) async fn make(settings: &Settings, lance: &LanceSettings) -> Result<(), ConnectorError> {
    let monitor = Arc::new(Monitor::new(&settings.connector, crate::source::Budget::new(1)));
    let specs = settings.tables.iter().map(spec).collect();
    open(settings, lance, specs, &CancellationToken::new(), &monitor).await.map(drop)
}

/// Deletes the position of an import's input that will never be read again.
pub(crate) async fn forget(
    settings: &Settings,
    lance: &LanceSettings,
    topic: &str,
) -> Result<(), ConnectorError> {
    let locked = dataset(lance)?.lock().map_err(failed)?;
    let mut positions = Positions::open(settings.connector.clone(), &locked).await.map_err(failed)?;
    positions.forget(topic).await.map_err(failed)
}

/// Does the upkeep that is due where nobody writes any more, the vector index above all. What fails is told, and left to
/// the next start, as is what `stopping` breaks off.
pub(crate) async fn tend(
    settings: &Settings,
    lance: &LanceSettings,
    stopping: &CancellationToken,
    monitor: &Arc<Monitor>,
) {
    let specs = settings.tables.iter().map(spec).collect();
    let opening = open(settings, lance, specs, stopping, monitor);
    let Some(opened) = stopping.run_until_cancelled(opening).await else { return };
    let failed = |error: String| tracing::warn!(error, "all is written; upkeep is left to the next start");
    let mut writer = match opened {
        Ok(writer) => writer,
        Err(error) => return failed(error.with_remedy()),
    };
    // Whatever goes wrong there, it is no fault of the import.
    if let Err(fault) = tokio::spawn(async move { writer.tend().await }).await {
        failed(fault.to_string());
    }
}

async fn open(
    settings: &Settings,
    lance: &LanceSettings,
    specs: Vec<TableSpec>,
    stopping: &CancellationToken,
    monitor: &Arc<Monitor>,
) -> Result<LanceWriter, ConnectorError> {
    let locked: LockedDataset = dataset(lance)?.lock().map_err(failed)?;
    let (connector, max_payload) = (settings.connector.clone(), settings.errors.max_payload);
    let opened =
        LanceWriter::open(connector, &locked, specs, max_payload, Arc::clone(monitor), stopping.clone());
    opened.await.map_err(failed)
}

pub(crate) fn failed(error: Error) -> ConnectorError {
    ConnectorError::Connect(error.into())
}

fn spec(table: &TableSettings) -> TableSpec {
    TableSpec {
        name: table.name.clone(),
        dimensions: table.dimensions,
        index: table.lance_index.map(|index| IndexSpec {
            method: match index.method {
                LanceIndexMethod::HnswSq => lance::IndexMethod::IvfHnswSq,
                LanceIndexMethod::Pq => lance::IndexMethod::IvfPq,
                LanceIndexMethod::Flat => lance::IndexMethod::IvfFlat,
            },
            metric: metric(index),
            min_rows: INDEX_ROWS,
        }),
        upkeep: Upkeep::default(),
    }
}

/// The distance that an index is configured for.
pub(crate) fn metric(index: LanceIndexSettings) -> lance::Metric {
    match index.metric {
        LanceMetric::Cosine => lance::Metric::Cosine,
        LanceMetric::L2 => lance::Metric::L2,
        LanceMetric::Dot => lance::Metric::Dot,
    }
}

fn index_progress(table: &TableSettings) -> IndexProgress {
    match table.lance_index {
        None => IndexState::None.into(),
        Some(_) => {
            let reason = Some(format!("upkeep builds it once the table has {INDEX_ROWS} rows"));
            IndexProgress { reason, ..IndexState::Waiting.into() }
        }
    }
}

/// LanceDB's strings have no length that they must keep to.
fn limits(table: &TableSettings) -> TableLimits {
    TableLimits {
        name: table.name.clone(),
        dimensions: table.dimensions.into(),
        max_id_chars: None,
        max_source_chars: None,
        skip_stale: table.stale_writes == StaleWrites::Skip,
    }
}
