//! How the tables of a LanceDB dataset are.

use serde::{Deserialize, Serialize};

use super::health::{Mark, Moment};

/// What there is of a table, at the last look some seconds ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTable {
    /// The table. Those of the connector itself begin with `embedsink_`.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Deleted rows that the next upkeep removes.
    pub deleted_rows: u64,
    /// Versions that can still be read.
    pub versions: u64,
    /// Fragments of the newest version.
    pub fragments: u64,
    /// All its files. `None` in an object store.
    pub files: Option<u64>,
    /// Their bytes.
    pub disk_bytes: Option<u64>,
    /// Whether the key has its index.
    pub key_index: bool,
    /// Rows in the vector index, if there is one.
    pub indexed_rows: Option<u64>,
    /// Rows that are not in it yet, and are searched one by one.
    pub unindexed_rows: Option<u64>,
}

/// The upkeep of one table since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpkeepFigures {
    /// How often it was done.
    pub done: u64,
    /// Bytes that it freed on disk.
    pub freed_bytes: u64,
    /// When it was done last.
    pub last: Option<Moment>,
    /// Why it was not, the last time.
    pub trouble: Option<String>,
}

/// One table of the dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetFigures {
    /// What there is of it.
    #[serde(flatten)]
    pub stored: StoredTable,
    /// What keeps it small.
    pub upkeep: UpkeepFigures,
}

/// What is known of one table.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) stored: StoredTable,
    done: u64,
    freed_bytes: u64,
    last: Option<Mark>,
    trouble: Option<String>,
}

impl Kept {
    #[cfg(feature = "lancedb")]
    pub(super) fn tidied(&mut self, outcome: Result<u64, String>) {
        match outcome {
            Ok(freed_bytes) => {
                self.done += 1;
                self.freed_bytes += freed_bytes;
                (self.last, self.trouble) = (Some(Mark::now()), None);
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    pub(super) fn figures(&self) -> DatasetFigures {
        DatasetFigures {
            stored: self.stored.clone(),
            upkeep: UpkeepFigures {
                done: self.done,
                freed_bytes: self.freed_bytes,
                last: self.last.map(Mark::moment),
                trouble: self.trouble.clone(),
            },
        }
    }
}
