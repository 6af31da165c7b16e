//! Keeping a table small: compaction, old versions, indexes. Done by the one who writes, between two writes.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant, SystemTime},
};

use lancedb::{
    Table,
    index::{Index, IndexConfig, scalar::BTreeIndexBuilder},
    table::{CompactionOptions, OptimizeAction, OptimizeOptions},
};

use crate::{error::Error, handle::Handle, index::IndexSpec};

/// From so many rows on a table has an index on its key. Below, reading the whole column is as fast.
const KEY_INDEX_ROWS: usize = 10_000;

/// So many pieces an index may be in before they are joined.
const INDEX_PIECES: u32 = 8;

/// When and how far a table is kept small.
///
/// These bounds hold, where `rows` is what the table holds, after each upkeep that is due by the number of commits:
///
/// - at most `2 × rows / rows_per_fragment + 1` fragments, none with more than a tenth of its rows deleted;
/// - at most `keep_versions + 1` versions;
/// - on disk only what these versions refer to, and what processes that were killed have left behind in the last seven
///   days: LanceDB cannot tell such files from those of a write in progress, and here nothing is deleted on a guess.
///
/// Between two upkeeps each write adds at most two versions, and to each at most one fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// After so many commits it is due.
    pub every: NonZeroU32,
    /// So long after a commit it is due in any case. Then fragments are not joined: where little comes, that would write the same
    /// rows again and again.
    pub within: Duration,
    /// For so long an old version is kept for those who read it, unless there are too many.
    pub keep_for: Duration,
    /// So many versions are kept at most.
    pub keep_versions: NonZeroU32,
    /// Neighbouring fragments with fewer rows than this are joined. More means fewer files, and more written again.
    pub rows_per_fragment: NonZeroU32,
    /// After so many upkeeps the table is opened anew, which gives the memory of its caches back.
    pub reopen_every: NonZeroU32,
    /// A step that has failed is not tried again for so long: it may be as expensive as one that works.
    pub rest: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).expect("it is not 0");
        Self {
            every: number(20),
            within: Duration::from_secs(300),
            keep_for: Duration::from_secs(600),
            keep_versions: number(50),
            rows_per_fragment: number(100_000),
            reopen_every: number(10),
            rest: Duration::from_secs(60),
        }
    }
}

/// What an upkeep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tidied {
    /// Whether a step was left out, since it had failed not long ago.
    pub rests: bool,
    /// Fragments that were joined or cleaned of deleted rows.
    pub fragments_removed: u64,
    /// What came in their place.
    pub fragments_added: u64,
    /// Old versions removed.
    pub versions_removed: u64,
    /// Bytes freed on disk.
    pub bytes_freed: u64,
}

/// A part of upkeep. None needs another, so one that fails holds none up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Compact,
    KeyIndex,
    VectorIndex,
    Refresh,
    Prune,
}

/// Old versions go last, so that those are counted which the other steps have made.
const STEPS: [Step; 5] = [Step::Compact, Step::KeyIndex, Step::VectorIndex, Step::Refresh, Step::Prune];

/// Counts commits, and says when upkeep is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    upkeep: Upkeep,
    index: Option<IndexSpec>,
    commits: u32,
    /// When the first of them was.
    since: Option<Instant>,
    /// About how many rows the table has.
    rows: u64,
    has_key_index: bool,
    tidied: u32,
    /// Steps that have failed, and until when they rest.
    resting: Vec<(Step, Instant)>,
    /// Whether the disk was full. Then old versions go first, and make room for the others.
    is_full: bool,
}

impl Schedule {
    /// Of a table just opened. All its versions count, so that a process that is restarted again and again keeps it small too; and
    /// upkeep is due if `index` is to be built, or many rows are not in it.
    pub(crate) async fn open(
        upkeep: Upkeep,
        index: Option<IndexSpec>,
        handle: &mut Handle,
        key: &str,
    ) -> Result<Self, Error> {
        let table = handle.take().await?;
        let versions = table.list_versions().await.map_err(handle.reading())?.len();
        let rows = table.count_rows(None).await.map_err(handle.reading())? as u64;
        let has_key_index = index_on(&table, key).await.map_err(handle.reading())?.is_some();
        let is_index_due = match index {
            Some(index) => index.is_due(&table).await.map_err(handle.reading())?,
            None => false,
        };
        let fragments = table.stats().await.map_err(handle.reading())?.fragment_stats.num_fragments as u64;
        handle.give(table);
        // What lives that were too short for it have left to be joined.
        let bound = 2 * rows / u64::from(upkeep.rows_per_fragment.get()) + 1 + u64::from(upkeep.every.get());
        let is_due = is_index_due || versions > upkeep.keep_versions.get() as usize || fragments > bound;
        let commits = if is_due { u32::MAX } else { 0 };
        // Whoever wrote before may have ended before it was due.
        let since = (versions > 1).then(Instant::now);
        let resting = Vec::new();
        Ok(Self { upkeep, index, commits, since, rows, has_key_index, tidied: 0, resting, is_full: false })
    }

    /// Takes note of a commit of so many rows.
    pub(crate) fn committed(&mut self, rows: u64) {
        self.commits = self.commits.saturating_add(1);
        self.since.get_or_insert_with(Instant::now);
        self.rows = self.rows.saturating_add(rows);
    }

    pub(crate) fn is_due(&self) -> bool {
        let now = Instant::now();
        self.commits >= self.upkeep.every.get()
            || self.since.is_some_and(|since| now.duration_since(since) >= self.upkeep.within)
            || self.resting.iter().any(|(_, until)| *until <= now)
    }

    /// The vector index that upkeep would build now, if it is wanted.
    pub(crate) fn index_due(&self) -> Option<IndexSpec> {
        let now = Instant::now();
        let rests = self.resting.iter().any(|(step, until)| *step == Step::VectorIndex && *until > now);
        self.index.filter(|_| self.is_due() && !rests)
    }

    /// Whether the table has grown so that a merge should no longer read its whole column of keys.
    pub(crate) fn lacks_key_index(&self) -> bool {
        let rests = self.resting.iter().any(|(step, _)| *step == Step::KeyIndex);
        !self.has_key_index && self.rows >= KEY_INDEX_ROWS as u64 && !rests
    }

    /// Makes the index on the key and does nothing else.
    ///
    /// # Errors
    /// That it could not be made. It is tried again as other steps are.
    pub(crate) async fn index_key(&mut self, handle: &mut Handle, key: &str) -> Result<(), Error> {
        let made = self.step(Step::KeyIndex, handle, key, &mut Tidied::default()).await;
        if made.is_err() {
            self.resting.push((Step::KeyIndex, Instant::now() + self.upkeep.rest));
        }
        made
    }

    /// Does every step that does not rest.
    ///
    /// # Errors
    /// The first failure. The steps after it were done all the same.
    pub(crate) async fn tidy(&mut self, handle: &mut Handle, key: &str) -> Result<Tidied, Error> {
        let now = Instant::now();
        let is_again = |(step, until): &(Step, Instant)| *step == Step::Compact && *until <= now;
        let is_pressing = self.commits >= self.upkeep.every.get() || self.resting.iter().any(is_again);
        self.resting.retain(|(_, until)| *until > now);
        let mut tidied = Tidied { rests: !self.resting.is_empty(), ..Tidied::default() };
        let mut first = None;
        let before = self.is_full.then_some(Step::Prune);
        self.is_full = false;
        for step in before.into_iter().chain(STEPS) {
            if step == Step::Compact && !is_pressing {
                continue;
            }
            if self.resting.iter().any(|(resting, _)| *resting == step) {
                continue;
            }
            if let Err(error) = self.step(step, handle, key, &mut tidied).await {
                self.is_full |= error.is_disk_full();
                self.resting.push((step, Instant::now() + self.upkeep.rest));
                first.get_or_insert(error);
            }
        }
        if is_pressing {
            self.commits = 0;
        }
        self.since = None;
        self.tidied += 1;
        if self.tidied.is_multiple_of(self.upkeep.reopen_every.get()) {
            handle.close();
        }
        first.map_or(Ok(tidied), Err)
    }

    /// The same, but every step that rests, too.
    pub(crate) async fn tidy_all(&mut self, handle: &mut Handle, key: &str) -> Result<Tidied, Error> {
        self.resting.clear();
        self.commits = u32::MAX;
        self.tidy(handle, key).await
    }

    /// Lets go of old versions, and of nothing else. Returns the bytes freed.
    pub(crate) async fn prune(&mut self, handle: &mut Handle) -> Result<u64, Error> {
        let mut tidied = Tidied::default();
        self.step(Step::Prune, handle, "", &mut tidied).await?;
        Ok(tidied.bytes_freed)
    }

    async fn step(
        &mut self,
        step: Step,
        handle: &mut Handle,
        key: &str,
        tidied: &mut Tidied,
    ) -> Result<(), Error> {
        let table = handle.take().await?;
        let done = match step {
            Step::Compact => self.compact(&table, tidied).await,
            Step::KeyIndex => self.ensure_key_index(&table, key).await,
            Step::VectorIndex => match self.index {
                Some(index) => index.ensure(&table).await,
                None => Ok(()),
            },
            Step::Refresh => refresh_indexes(&table).await,
            Step::Prune => self.remove_versions(&table, tidied).await,
        };
        let done = match done {
            Ok(()) => handle.place().settle().await,
            Err(error) => Err(error),
        };
        done.map_err(|error| match step {
            Step::VectorIndex => {
                Error::engine(format!("build the vector index of {}", handle.name()), &error)
            }
            _ => handle.tidying()(error),
        })?;
        handle.give(table);
        Ok(())
    }

    /// Makes the index on the key once the table is not tiny.
    async fn ensure_key_index(&mut self, table: &Table, key: &str) -> lancedb::Result<()> {
        self.rows = table.count_rows(None).await? as u64;
        self.has_key_index = index_on(table, key).await?.is_some();
        if !self.has_key_index && self.rows >= KEY_INDEX_ROWS as u64 {
            let index = Index::BTree(BTreeIndexBuilder::default());
            Box::pin(table.create_index(&[key], index).execute()).await?;
            self.has_key_index = true;
        }
        Ok(())
    }

    async fn compact(&self, table: &Table, tidied: &mut Tidied) -> lancedb::Result<()> {
        let options = CompactionOptions {
            target_rows_per_fragment: self.upkeep.rows_per_fragment.get() as usize,
            ..CompactionOptions::default()
        };
        let compact = OptimizeAction::Compact { options, remap_options: None };
        if let Some(compaction) = Box::pin(table.optimize(compact)).await?.compaction {
            tidied.fragments_removed += compaction.fragments_removed as u64;
            tidied.fragments_added += compaction.fragments_added as u64;
        }
        Ok(())
    }

    async fn remove_versions(&self, table: &Table, tidied: &mut Tidied) -> lancedb::Result<()> {
        let prune = OptimizeAction::Prune {
            older_than: Some(self.limit(table).await?),
            // Somebody else may be writing after all.
            delete_unverified: Some(false),
            error_if_tagged_old_versions: Some(false),
        };
        if let Some(prune) = Box::pin(table.optimize(prune)).await?.prune {
            tidied.versions_removed += prune.old_versions;
            tidied.bytes_freed += prune.bytes_removed;
        }
        Ok(())
    }

    /// The age from which on versions are removed.
    async fn limit(&self, table: &Table) -> lancedb::Result<lancedb::table::Duration> {
        let mut times: Vec<i64> =
            table.list_versions().await?.iter().map(|version| version.timestamp.timestamp_micros()).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
        let mut limit = i64::try_from(self.upkeep.keep_for.as_micros()).unwrap_or(i64::MAX);
        if let Some(oldest_kept) = times.get(self.upkeep.keep_versions.get() as usize) {
            limit = limit.min(now.saturating_sub(*oldest_kept).max(0));
        }
        Ok(lancedb::table::Duration::microseconds(limit))
    }
}

/// The index on a column.
pub(crate) async fn index_on(table: &Table, column: &str) -> lancedb::Result<Option<IndexConfig>> {
    let indexes = table.list_indices().await?;
    Ok(indexes.into_iter().find(|index| index.columns.iter().any(|name| name == column)))
}

/// Takes new rows into the indexes. A piece is added each time, and all are joined before they are many.
async fn refresh_indexes(table: &Table) -> lancedb::Result<()> {
    for index in table.list_indices().await? {
        let pieces = index.num_segments.unwrap_or(0);
        let options = if pieces >= INDEX_PIECES {
            OptimizeOptions::merge(pieces as usize)
        } else if index.num_unindexed_rows == Some(0) {
            continue;
        } else {
            OptimizeOptions::default()
        };
        let refresh = OptimizeAction::Index(options.index_names(vec![index.name]));
        Box::pin(table.optimize(refresh)).await?;
    }
    Ok(())
}
