//! A table of embeddings, written by this process alone.

use std::collections::HashMap;

use lancedb::{
    Table,
    arrow::{
        arrow_array::{RecordBatch, RecordBatchIterator},
        arrow_schema::SchemaRef,
    },
};

use crate::{
    contract,
    dataset::LockedDataset,
    encode::encode,
    error::Error,
    handle::Handle,
    index::IndexSpec,
    overwrite::Overwrite,
    row::{Deletion, VectorRow},
    stats::{self, TableStats},
    stored::{Stored, with_keys},
    upkeep::{Schedule, Tidied, Upkeep},
};

/// A table as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name: ASCII letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The dimension of its embeddings, at least 1.
    pub dimensions: u16,
    /// Its vector index, to be built once it has enough rows.
    pub index: Option<IndexSpec>,
    /// How it is kept small.
    pub upkeep: Upkeep,
}

/// A table of embeddings with one row a key, written by this process alone.
///
/// Columns: `id` string, the key; `text` string; `embedding` fixed-size list of float32; `timestamp` timestamp[ns], in UTC and
/// without a time zone, as Python's `datetime64[ns]` is; `source` string; `metadata` string, JSON.
///
/// Every call commits once or not at all. After an error what it was to write is there or not, as a whole; writing the same again is
/// harmless and settles it. A commit that was begun goes on when the future is dropped, and the next call waits for it.
#[derive(Debug)]
pub struct VectorTable {
    handle: Handle,
    schema: SchemaRef,
    spec: TableSpec,
    schedule: Schedule,
}

/// What an upsert did. The sum is the number of rows given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows inserted or updated.
    pub changed: u64,
    /// Rows that were there already, equal bit by bit. If all were, nothing is committed.
    pub unchanged: u64,
    /// Rows left alone because [`Overwrite`] forbids to replace the one that is there.
    pub stale: u64,
}

/// What a delete did. Keys that were not there count nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Rows that are gone.
    pub deleted: u64,
    /// Rows left alone because [`Overwrite`] forbids to delete them.
    pub stale: u64,
}

impl VectorTable {
    /// Opens the table, and makes it if it is missing.
    ///
    /// # Errors
    /// [`Error::Mismatches`] for a table of another shape. Extra columns are a mismatch.
    pub async fn open(dataset: &LockedDataset, spec: TableSpec) -> Result<Self, Error> {
        let schema = contract::vectors(spec.dimensions);
        let (mut handle, schema) = Handle::open_or_create(dataset, &spec.name, &schema).await?;
        let schedule = Schedule::open(spec.upkeep, spec.index, &mut handle, "id").await?;
        Ok(Self { handle, schema, schedule, spec })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The dimension of its embeddings.
    pub fn dimensions(&self) -> u16 {
        self.spec.dimensions
    }

    /// Whether it was missing, and opening it has made it.
    pub fn is_new(&self) -> bool {
        self.handle.is_new()
    }

    /// Inserts the rows, or replaces those whose key is there and that differ. All or nothing.
    ///
    /// It reads keys and timestamps first, and whole those rows whose timestamp is the same, some megabytes of them at a time: that
    /// takes far less than writing them does, and spares writing what is there already. Few large calls are far cheaper than many
    /// small ones, for each commit is a version with files of its own.
    ///
    /// # Errors
    /// [`Error::SameKey`] for two rows of one key, [`Error::Row`] for the first row that cannot be stored; both before anything
    /// is written. [`Error::Mismatches`] if the table holds one of the keys twice, which somebody else must have done.
    pub async fn upsert(&mut self, rows: &[VectorRow<'_>], overwrite: Overwrite) -> Result<Upserted, Error> {
        self.judge(rows)?;
        if rows.is_empty() {
            return Ok(Upserted::default());
        }
        let table = self.handle.take().await?;
        let stored = Stored::compare(&table, &self.handle, rows).await?;
        let mut done = Upserted::default();
        let mut wanted = Vec::with_capacity(rows.len());
        let mut replaces = false;
        for row in rows {
            let found = stored.find(row.id);
            match &found {
                Some(found) if found.is_equal => done.unchanged += 1,
                Some(found) if !overwrite.replaces(row.timestamp, found.timestamp()) => done.stale += 1,
                _ => {
                    replaces |= found.is_some();
                    wanted.push(row);
                }
            }
        }
        done.changed = wanted.len() as u64;
        if wanted.is_empty() {
            self.handle.settle().await?;
        } else {
            let failed = self.handle.writing();
            let batch = encode(&self.schema, &wanted).map_err(|error| failed(error.into()))?;
            drop(stored);
            // None of the keys is there, and nobody else may insert them meanwhile: an append is all it takes, and
            // measured three times as fast as a merge. Where no lock says so, the merge finds a conflict.
            let merges = replaces || !self.handle.is_locked();
            let target = table.clone();
            let write = async move {
                if merges {
                    merge(target, "id", batch, true).await.map(drop)
                } else {
                    target.add(batch).execute().await.map(drop)
                }
            };
            self.handle.write(write).await?;
            self.schedule.committed(done.changed);
        }
        self.handle.give(table);
        Ok(done)
    }

    /// Deletes by key. Keys that are not there are no error.
    ///
    /// # Errors
    /// [`Error::SameKey`] for two deletions of one key, before anything is written.
    pub async fn delete(&mut self, keys: &[Deletion<'_>], overwrite: Overwrite) -> Result<Deleted, Error> {
        self.unique(keys.iter().map(|key| key.id))?;
        if keys.is_empty() {
            return Ok(Deleted::default());
        }
        let table = self.handle.take().await?;
        let stored = Stored::read(&table, &self.handle, keys.iter().map(|key| key.id)).await?;
        let mut done = Deleted::default();
        let mut wanted = Vec::new();
        for key in keys {
            match stored.find(key.id) {
                Some(found) if overwrite.deletes(key.timestamp, found.timestamp()) => wanted.push(key.id),
                Some(_) => done.stale += 1,
                None => {}
            }
        }
        done.deleted = wanted.len() as u64;
        if wanted.is_empty() {
            self.handle.settle().await?;
        } else {
            let filter = with_keys("id", wanted.into_iter());
            let target = table.clone();
            self.handle.write(async move { target.delete(&filter).await }).await?;
            self.schedule.committed(0);
        }
        self.handle.give(table);
        Ok(done)
    }

    /// Does the upkeep if it is due: compaction, old versions, the indexes; builds the vector index if there are enough rows by
    /// now, and replaces one of another kind or metric. To be called after writes, by the same task, and now and then while
    /// there are none. `None` if it was not due; the key may have got its index even so.
    ///
    /// # Errors
    /// The first failure. Each step is tried whatever becomes of the others; one that has failed is due again after
    /// [`Upkeep::rest`]. Nothing that was written is lost by it.
    pub async fn upkeep(&mut self) -> Result<Option<Tidied>, Error> {
        if self.schedule.is_due() {
            return self.schedule.tidy(&mut self.handle, "id").await.map(Some);
        }
        if self.schedule.lacks_key_index() {
            self.schedule.index_key(&mut self.handle, "id").await?;
        }
        Ok(None)
    }

    /// Whether [`upkeep`](Self::upkeep) would build the vector index now, or try to. That can take minutes.
    pub async fn builds_index(&mut self) -> Result<bool, Error> {
        match self.schedule.index_due() {
            Some(_) => self.lacks_index().await,
            None => Ok(false),
        }
    }

    /// Whether a vector index is configured, and has still to be built for the rows that are there, or anew.
    pub async fn lacks_index(&mut self) -> Result<bool, Error> {
        let Some(index) = self.spec.index else { return Ok(false) };
        let table = self.handle.take().await?;
        let is_wanted = index.is_wanted(&table).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(is_wanted)
    }

    /// Does the upkeep now, due or not.
    pub async fn tidy(&mut self) -> Result<Tidied, Error> {
        self.schedule.tidy_all(&mut self.handle, "id").await
    }

    /// Removes the old versions that upkeep would remove, and does nothing else: it needs no room on the disk. Returns the bytes
    /// that are free by it.
    pub async fn prune(&mut self) -> Result<u64, Error> {
        self.schedule.prune(&mut self.handle).await
    }

    /// Its size and the state of its indexes. Reads every manifest that is kept, and looks at every file.
    pub async fn stats(&mut self) -> Result<TableStats, Error> {
        let table = self.handle.take().await?;
        let stats = stats::read(&table, &self.handle, "id").await?;
        self.handle.give(table);
        Ok(stats)
    }

    /// Finds what would fail, or be stored wrongly, before anything is written.
    fn judge(&self, rows: &[VectorRow<'_>]) -> Result<(), Error> {
        for (index, row) in rows.iter().enumerate() {
            let problem = if row.embedding.len() != usize::from(self.spec.dimensions) {
                "its embedding does not have the table's dimension"
            } else if !row.embedding.iter().all(|number| number.is_finite()) {
                "its embedding holds a number that is not finite"
            } else if row.timestamp.is_some_and(|micros| !VectorRow::TIMESTAMPS.contains(&micros)) {
                "its timestamp is not within 1677-09-21 and 2262-04-11, which is what timestamp[ns] holds"
            } else {
                continue;
            };
            return Err(Error::Row { table: self.spec.name.clone(), index, problem });
        }
        self.unique(rows.iter().map(|row| row.id))
    }

    fn unique<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        unique(&self.spec.name, keys)
    }
}

/// Refuses two equal keys. Of two new rows with one key LanceDB would insert both.
pub(crate) fn unique<'a>(table: &str, keys: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = HashMap::new();
    for (second, key) in keys.enumerate() {
        if let Some(first) = seen.insert(key, second) {
            return Err(Error::SameKey { table: table.to_owned(), first, second });
        }
    }
    Ok(())
}

/// Inserts rows; those whose key is there are replaced or left alone.
pub(crate) async fn merge(
    table: Table,
    key: &'static str,
    batch: RecordBatch,
    replace: bool,
) -> lancedb::Result<u64> {
    let schema = batch.schema();
    let mut merge = table.merge_insert(&[key]);
    merge.when_not_matched_insert_all();
    if replace {
        merge.when_matched_update_all(None);
    }
    let reader = RecordBatchIterator::new([Ok(batch)], schema);
    let done = merge.execute(Box::new(reader)).await?;
    Ok(done.num_inserted_rows + done.num_updated_rows)
}
