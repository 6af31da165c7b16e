//! Looks at the tables of a dataset now and then, beside whoever writes them, and tells what they are like.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sink_lancedb::{Dataset, Error, IndexFit, IndexFound, IndexSpec, KeyedReader, TableStats, VectorReader};
use tokio::time::{MissedTickBehavior, interval};

use crate::monitoring::{IndexProgress, IndexState, Monitor, StoredTable};
use crate::write::lancedb::own_tables;

/// A look reads every manifest, and the names of all files.
const LOOK: Duration = Duration::from_secs(10);

/// What looks.
pub(super) struct Watch {
    dataset: Dataset,
    /// Each with the vector index that is configured.
    tables: Vec<(String, Option<IndexSpec>)>,
    monitor: Arc<Monitor>,
}

/// The tables as they are read.
#[derive(Default)]
struct Readers {
    vectors: Vec<VectorReader>,
    /// Those in which an index was found.
    indexed: HashSet<String>,
    own: Vec<(String, KeyedReader)>,
}

impl Watch {
    /// Over these tables of the configuration, and the dataset's own.
    pub(super) fn new(
        dataset: Dataset,
        tables: Vec<(String, Option<IndexSpec>)>,
        monitor: &Arc<Monitor>,
    ) -> Self {
        Self { dataset, tables, monitor: Arc::clone(monitor) }
    }

    /// Looks again and again. Cancel-safe.
    pub(super) async fn run(self) {
        let mut readers = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if let Err(error) = self.look(&mut readers).await {
                tracing::debug!(%error, "the tables could not be looked at");
                // Whatever it was, they are opened anew.
                readers = None;
            }
        }
    }

    async fn look(&self, readers: &mut Option<Readers>) -> Result<(), Error> {
        let readers = match readers {
            Some(readers) => readers,
            None => readers.insert(self.open().await?),
        };
        for ((table, spec), reader) in self.tables.iter().zip(&mut readers.vectors) {
            let stats = reader.stats().await?;
            // While one is built, its builder tells.
            if let Some(spec) = spec
                && !self.monitor.builds_an_index()
            {
                match &stats.vector_index {
                    Some(found) => {
                        let progress = progress(*spec, found);
                        // Why it could not be replaced stays until it is.
                        if progress.state != IndexState::Waiting || !self.monitor.index_has_failed(table) {
                            self.monitor.index(table, progress);
                        }
                    }
                    None if readers.indexed.remove(table) => {
                        let reason = Some(
                            "the index is gone; upkeep builds it anew after the next commits".to_owned(),
                        );
                        self.monitor.index(table, IndexProgress { reason, ..IndexState::Waiting.into() });
                    }
                    None => {}
                }
            }
            if stats.vector_index.is_some() {
                readers.indexed.insert(table.clone());
            }
            self.monitor.stored(stored(table, &stats));
        }
        for (table, reader) in &mut readers.own {
            let stats = reader.stats().await?;
            self.monitor.stored(stored(table, &stats));
        }
        Ok(())
    }

    async fn open(&self) -> Result<Readers, Error> {
        let mut readers = Readers::default();
        for (table, _) in &self.tables {
            readers.vectors.push(VectorReader::open(&self.dataset, table).await?);
        }
        for spec in own_tables() {
            readers.own.push((spec.name.clone(), KeyedReader::open(&self.dataset, spec).await?));
        }
        Ok(readers)
    }
}

/// What there is to tell of an index that is there, where `spec` is configured.
fn progress(spec: IndexSpec, found: &IndexFound) -> IndexProgress {
    let metric = found.metric.map_or_else(|| "an unknown metric".to_owned(), |metric| metric.to_string());
    let is = format!("{} for {metric}", found.method);
    match found.fit(spec) {
        IndexFit::Same => IndexState::Ready.into(),
        IndexFit::Replaced => {
            let reason = Some(format!("the index that is there is {is}; upkeep replaces it by {spec}"));
            IndexProgress { reason, ..IndexState::Waiting.into() }
        }
        IndexFit::ByHand => {
            let reason = Some(format!("{} was made by hand ({is}), and is left alone", found.name));
            IndexProgress { reason, ..IndexState::ByHand.into() }
        }
    }
}

fn stored(table: &str, stats: &TableStats) -> StoredTable {
    let index = stats.vector_index.as_ref();
    StoredTable {
        table: table.to_owned(),
        rows: stats.rows,
        deleted_rows: stats.deleted_rows,
        versions: stats.versions,
        fragments: stats.fragments,
        files: stats.on_disk.map(|disk| disk.files),
        disk_bytes: stats.on_disk.map(|disk| disk.bytes),
        key_index: stats.key_index,
        indexed_rows: index.map(|index| index.rows_indexed),
        unindexed_rows: index.map(|index| index.rows_unindexed),
    }
}
