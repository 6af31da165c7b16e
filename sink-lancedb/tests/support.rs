//! Folders, rows, and the model that a table has to equal.

use std::{
    collections::BTreeMap,
    env, fs,
    future::Future,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sink_lancedb::{Dataset, DatasetOptions, StoredRow, TableSpec, Upkeep, VectorReader, VectorRow};

pub(crate) const DIMENSIONS: u16 = 8;

/// Runs on threads with room for the plans of an unoptimized build.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(test)
}

/// A folder that is deleted in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn folder() -> Folder {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sink-lancedb-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = env::temp_dir().join(name);
    fs::create_dir(&path).expect("a temporary folder is made");
    Folder(path)
}

pub(crate) fn dataset(folder: &Folder) -> Dataset {
    let uri = folder.path().to_str().expect("its name is text");
    Dataset::open(DatasetOptions::new(uri)).expect("it is a folder")
}

pub(crate) fn spec(name: &str) -> TableSpec {
    TableSpec { name: name.to_owned(), dimensions: DIMENSIONS, index: None, upkeep: Upkeep::default() }
}

/// Upkeep that keeps no old version longer than needed.
pub(crate) fn tight(every: u32, keep_versions: u32, rows_per_fragment: u32) -> Upkeep {
    let number = |number| NonZeroU32::new(number).expect("it is not 0");
    Upkeep {
        every: number(every),
        within: Duration::from_secs(3_600),
        keep_for: Duration::ZERO,
        keep_versions: number(keep_versions),
        rows_per_fragment: number(rows_per_fragment),
        reopen_every: number(3),
        rest: Duration::from_secs(60),
    }
}

/// A row that owns what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned(pub(crate) StoredRow);

impl Owned {
    /// A row whose contents follow from its key and a number.
    pub(crate) fn new(id: impl Into<String>, number: u64) -> Self {
        Self::sized(id, number, DIMENSIONS)
    }

    pub(crate) fn sized(id: impl Into<String>, number: u64, dimensions: u16) -> Self {
        let mut random = Random(number);
        Self(StoredRow {
            id: id.into(),
            text: (!number.is_multiple_of(5)).then(|| format!("text {number} ünï \u{1F980}")),
            embedding: (0..dimensions).map(|_| (random.next() % 2_000) as f32 / 1_000.0 - 1.0).collect(),
            timestamp: (!number.is_multiple_of(7)).then_some(1_700_000_000_000_000 + number as i64),
            source: (!number.is_multiple_of(3)).then(|| "source".to_owned()),
            metadata: (!number.is_multiple_of(2)).then(|| format!("{{\"n\": {number}}}")),
        })
    }

    pub(crate) fn row(&self) -> VectorRow<'_> {
        let Self(row) = self;
        VectorRow {
            id: &row.id,
            text: row.text.as_deref(),
            embedding: &row.embedding,
            timestamp: row.timestamp,
            source: row.source.as_deref(),
            metadata: row.metadata.as_deref(),
        }
    }
}

pub(crate) fn rows(owned: &[Owned]) -> Vec<VectorRow<'_>> {
    owned.iter().map(Owned::row).collect()
}

pub(crate) type Model = BTreeMap<String, StoredRow>;

/// The whole table by key. Fails if a key is there twice.
pub(crate) async fn contents(dataset: &Dataset, table: &str) -> Model {
    let mut reader = VectorReader::open(dataset, table).await.expect("the table can be read");
    let rows = reader.first(10_000_000).await.expect("its rows can be read");
    let count = rows.len();
    let model: Model = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    assert_eq!(model.len(), count, "a key is there twice");
    model
}

/// Splitmix64: numbers that are the same in every run of one seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
