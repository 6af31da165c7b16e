//! How large a table is.

use std::{fs, io, path::Path};

use lancedb::Table;

use crate::{
    error::Error,
    handle::Handle,
    index::{self, IndexFound},
};

/// What there is to know about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStats {
    /// Rows.
    pub rows: u64,
    /// The newest version.
    pub version: u64,
    /// Versions that can still be read.
    pub versions: u64,
    /// Fragments of the newest version.
    pub fragments: u64,
    /// Deleted rows that compaction has still to remove.
    pub deleted_rows: u64,
    /// Bytes of the newest version, without those of its manifest.
    pub bytes: u64,
    /// All files of the table on a local disk, and their bytes. `None` in an object store.
    pub on_disk: Option<OnDisk>,
    /// Whether the key has its index.
    pub key_index: bool,
    /// The vector index.
    pub vector_index: Option<IndexFound>,
}

/// Files of a folder and all in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// How many.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
}

pub(crate) async fn read(table: &Table, handle: &Handle, key: &str) -> Result<TableStats, Error> {
    let read = async {
        let stats = table.stats().await?;
        let vector_index = if key == "id" { index::find(table).await? } else { None };
        Ok(TableStats {
            rows: stats.num_rows as u64,
            version: table.version().await?,
            versions: table.list_versions().await?.len() as u64,
            fragments: stats.fragment_stats.num_fragments as u64,
            deleted_rows: stats.num_deleted_rows.unwrap_or(0) as u64,
            bytes: stats.total_bytes as u64,
            on_disk: None,
            key_index: crate::upkeep::index_on(table, key).await?.is_some(),
            vector_index,
        })
    };
    let mut stats = Box::pin(read).await.map_err(handle.reading())?;
    if let Some(folder) = handle.place().folder_of(handle.name()) {
        let measured = tokio::task::spawn_blocking(move || measure(&folder)).await;
        stats.on_disk = measured.ok().and_then(Result::ok);
    }
    Ok(stats)
}

/// What is deleted meanwhile does not count.
fn measure(folder: &Path) -> io::Result<OnDisk> {
    let mut sum = OnDisk::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(known) if known.is_dir() => {
                let inner = measure(&entry.path())?;
                sum.files += inner.files;
                sum.bytes += inner.bytes;
            }
            Ok(known) => {
                sum.files += 1;
                sum.bytes += known.len();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}
