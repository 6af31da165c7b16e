//! What has to be on the disk before a commit may count on it. LanceDB itself leaves that to the operating system.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A version's file names it, and nothing relies on it: it is written anew with every version.
const HINT: &str = "latest_version_hint.json";

/// So many files are synced at once.
const AT_ONCE: usize = 8;

/// Knows which files of a folder's tables are on the disk for good, and brings the others there.
///
/// Files of LanceDB never change once they have their name, so one that was synced stays so. Every table that is written to
/// counts, whichever commits: what a commit of one table says of another, as positions do of rows, is true after a power
/// loss as well.
#[derive(Debug)]
pub(crate) struct Barrier {
    folder: PathBuf,
    disk: Disk,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The folders of the tables that are written to.
    tables: BTreeSet<PathBuf>,
    /// Files that are on the disk with their names, and folders that are with theirs.
    synced: HashSet<PathBuf>,
}

/// What a look at the tables finds.
#[derive(Default)]
struct Found {
    /// All files and folders.
    there: HashSet<PathBuf>,
    /// What is to be synced. Nothing refers to any of it yet, so the order does not matter.
    fresh: Vec<(PathBuf, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}

/// Where files are made durable.
#[derive(Debug)]
pub(crate) enum Disk {
    Real,
    #[cfg(test)]
    Double(std::sync::Arc<tests::Double>),
}

impl Barrier {
    /// Over a dataset's folder, of which no table is covered yet.
    pub(crate) fn new(folder: PathBuf, disk: Disk) -> Self {
        Self { folder, disk, known: Mutex::default() }
    }

    /// From now on this table is written to. All that it has already counts as not on the disk: a process that was killed may
    /// have written it.
    pub(crate) fn cover(&self, table: PathBuf) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tables.insert(table);
    }

    /// This file is on the disk, and its name is.
    pub(crate) fn note(&self, file: PathBuf) {
        #[cfg(test)]
        if let Disk::Double(double) = &self.disk {
            double.note(&file);
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).synced.insert(file);
    }

    /// Brings all files of the tables to the disk that are not known to be there. Blocks.
    ///
    /// # Errors
    /// The first failure. Nothing that this call has looked at counts as synced then: what a disk has refused once it may have dropped,
    /// and the commit that was to count on it is not made.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { tables, synced } = &mut *known;
        let mut found = Found::default();
        let mut is_named = true;
        for table in tables.iter() {
            is_named &= !found.look(table, synced)?;
        }
        found.there.insert(self.folder.clone());
        if !is_named {
            found.fresh.push((self.folder.clone(), Kind::Folder));
        }
        if !synced.contains(&self.folder) {
            // Whoever made the folder may have made those above it. One that may not be read is older than this user's work.
            let above = self.folder.ancestors().skip(1).filter(|above| fs::read_dir(above).is_ok());
            found.fresh.extend(above.map(|above| (above.to_owned(), Kind::Folder)));
        }
        self.disk.sync_all(&found.fresh)?;
        *synced = found.there;
        Ok(())
    }
}

impl Found {
    /// Looks through a folder. Returns whether it is new, so that the one above has to be synced, too.
    fn look(&mut self, folder: &Path, synced: &HashSet<PathBuf>) -> io::Result<bool> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_new = !synced.contains(folder);
        let mut changed = is_new;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let is_folder = match entry.file_type() {
                Ok(kind) => kind.is_dir(),
                // It was a file in the making, or one that is no longer needed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if is_folder {
                changed |= self.look(&path, synced)?;
            } else if entry.file_name() != HINT {
                if !synced.contains(&path) {
                    self.fresh.push((path.clone(), Kind::File));
                    changed = true;
                }
                self.there.insert(path);
            }
        }
        if changed {
            self.fresh.push((folder.to_owned(), Kind::Folder));
        }
        self.there.insert(folder.to_owned());
        Ok(is_new)
    }
}

impl Disk {
    /// Syncs all of them, several at once: a disk does many in little more than the time of one.
    fn sync_all(&self, fresh: &[(PathBuf, Kind)]) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((path, kind)) = fresh.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.sync(path, *kind)?;
            }
            Ok(())
        };
        if fresh.len() < 2 {
            return work();
        }
        thread::scope(|scope| {
            let workers: Vec<_> = (0..fresh.len().min(AT_ONCE)).map(|_| scope.spawn(work)).collect();
            let mut done = workers.into_iter().map(|worker| worker.join());
            done.try_for_each(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    fn sync(&self, path: &Path, kind: Kind) -> io::Result<()> {
        #[cfg(test)]
        if let Self::Double(double) = self {
            return double.sync(path, kind);
        }
        match sync(path, kind) {
            // As above: between the look and this.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn sync(path: &Path, kind: Kind) -> io::Result<()> {
    if kind == Kind::Folder && !cfg!(unix) {
        // Elsewhere a folder cannot be opened, and the file system sees to its names.
        return Ok(());
    }
    // Windows syncs only what may be written.
    match OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all() {
        // Some file systems keep names without being asked, and say that there is nothing to do.
        Err(error)
            if kind == Kind::Folder
                && matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{env, process, sync::Arc};

    use super::*;
    use crate::{
        Class, Dataset, DatasetOptions, Deletion, Error, IndexMethod, IndexSpec, Metric, Overwrite,
        TableSpec, Upkeep, VectorRow, VectorTable,
    };

    /// A disk that keeps what it was asked for, and can refuse.
    #[derive(Debug, Default)]
    pub(crate) struct Double {
        synced: Mutex<Vec<PathBuf>>,
        /// Paths with this in them fail.
        refused: Mutex<Option<&'static str>>,
        manifests: Mutex<u32>,
        /// Files that a version could refer to and that nobody had synced when it came to be.
        early: Mutex<Vec<PathBuf>>,
    }

    impl Double {
        pub(super) fn sync(&self, path: &Path, _: Kind) -> io::Result<()> {
            let refused = *self.refused.lock().expect("whole");
            if refused.is_some_and(|part| path.to_string_lossy().contains(part)) {
                return Err(io::Error::from_raw_os_error(5));
            }
            self.synced.lock().expect("whole").push(path.to_owned());
            Ok(())
        }

        pub(super) fn note(&self, manifest: &Path) {
            *self.manifests.lock().expect("whole") += 1;
            let table = manifest.parent().and_then(Path::parent).expect("a manifest is two folders deep");
            let synced = self.synced.lock().expect("whole");
            let is_early = |path: &PathBuf| {
                !path.to_string_lossy().contains("_versions") && path != table && !synced.contains(path)
            };
            self.early.lock().expect("whole").extend(all(table).into_iter().filter(is_early));
        }

        fn refuse(&self, part: Option<&'static str>) {
            *self.refused.lock().expect("whole") = part;
        }

        fn taken(&self) -> Vec<PathBuf> {
            let mut taken = std::mem::take(&mut *self.synced.lock().expect("whole"));
            taken.sort();
            taken
        }
    }

    fn all(folder: &Path) -> Vec<PathBuf> {
        let mut found = vec![folder.to_owned()];
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { found.extend(all(&path)) } else { found.push(path) }
        }
        found
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("sink-lancedb-barrier-{name}-{}", process::id()));
            fs::create_dir(&path).expect("a temporary folder is made");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build();
        runtime.expect("a runtime starts").block_on(test);
    }

    fn spec() -> TableSpec {
        TableSpec { name: "docs".to_owned(), dimensions: 8, index: None, upkeep: Upkeep::default() }
    }

    async fn table(folder: &Folder, double: &Arc<Double>, spec: TableSpec) -> Result<VectorTable, Error> {
        let options = DatasetOptions::new(folder.0.to_str().expect("text"));
        let locked = Dataset::on(options, Disk::Double(Arc::clone(double)))?.lock()?;
        VectorTable::open(&locked, spec).await
    }

    async fn upsert(table: &mut VectorTable, keys: std::ops::Range<u32>, number: u32) -> Result<(), Error> {
        let ids: Vec<String> = keys.map(|key| format!("k{key}")).collect();
        let vectors: Vec<[f32; 8]> =
            (0..ids.len()).map(|row| std::array::from_fn(|place| (row * (place + 3) % 97) as f32)).collect();
        let text = number.to_string();
        let row = |(id, embedding)| VectorRow {
            id,
            text: Some(&text),
            embedding,
            timestamp: None,
            source: None,
            metadata: None,
        };
        let rows: Vec<VectorRow<'_>> =
            ids.iter().map(String::as_str).zip(vectors.iter().map(|vector| &vector[..])).map(row).collect();
        table.upsert(&rows, Overwrite::Always).await.map(drop)
    }

    #[test]
    fn new_files_and_the_folders_that_name_them_are_synced_and_only_once() {
        let folder = Folder::new("order");
        let table = folder.0.join("docs.lance");
        fs::create_dir_all(table.join("data")).expect("made");
        fs::write(table.join("data/one"), "1").expect("written");
        let double = Arc::new(Double::default());
        let barrier = Barrier::new(folder.0.clone(), Disk::Double(Arc::clone(&double)));
        barrier.settle().expect("nothing is covered yet");
        double.taken();
        barrier.cover(table.clone());
        barrier.settle().expect("settled");
        let expected = [folder.0.clone(), table.clone(), table.join("data"), table.join("data/one")];
        assert_eq!(double.taken(), expected);
        barrier.settle().expect("settled");
        assert!(double.taken().is_empty());
        fs::write(table.join("data/two"), "2").expect("written");
        barrier.settle().expect("settled");
        assert_eq!(double.taken(), [table.join("data"), table.join("data/two")]);
    }

    #[test]
    fn what_the_disk_has_refused_to_sync_does_not_count_as_synced() {
        let folder = Folder::new("refused");
        let table = folder.0.join("docs.lance");
        fs::create_dir_all(table.join("data")).expect("made");
        let double = Arc::new(Double::default());
        let barrier = Barrier::new(folder.0.clone(), Disk::Double(Arc::clone(&double)));
        barrier.cover(table.clone());
        barrier.settle().expect("settled");
        for part in ["data/one", "data"] {
            fs::write(table.join("data/one"), "1").expect("written");
            double.refuse(Some(part));
            assert_eq!(barrier.settle().expect_err("refused").raw_os_error(), Some(5));
        }
        double.refuse(None);
        double.taken();
        barrier.settle().expect("settled");
        assert_eq!(double.taken(), [table.join("data"), table.join("data/one")]);
    }

    #[test]
    fn no_version_comes_to_be_before_all_that_it_refers_to_is_on_the_disk() {
        run(async {
            let folder = Folder::new("versions");
            let double = Arc::new(Double::default());
            let index = IndexSpec { method: IndexMethod::IvfFlat, metric: Metric::L2, min_rows: 256 };
            let mut table =
                table(&folder, &double, TableSpec { index: Some(index), ..spec() }).await.expect("made");
            upsert(&mut table, 0..10_000, 1).await.expect("appended");
            upsert(&mut table, 5_000..10_500, 2).await.expect("merged");
            let key = [Deletion { id: "k3", timestamp: None }];
            table.delete(&key, Overwrite::Always).await.expect("deleted");
            table.tidy().await.expect("tidied");
            let stats = table.stats().await.expect("read");
            assert!(stats.key_index && stats.vector_index.is_some(), "{stats:?}");
            // The table, three writes, compaction and two indexes.
            assert!(*double.manifests.lock().expect("whole") >= 7);
            assert_eq!(*double.early.lock().expect("whole"), Vec::<PathBuf>::new());
            let synced = double.taken();
            for part in ["data/", "_deletions/", "_transactions/", "_indices/"] {
                assert!(synced.iter().any(|path| path.to_string_lossy().contains(part)), "{part}");
            }
            assert!(synced.contains(&folder.0));
        });
    }

    #[test]
    fn a_commit_whose_files_the_disk_refuses_to_sync_is_not_made_and_can_be_made_later() {
        run(async {
            let folder = Folder::new("commit");
            let double = Arc::new(Double::default());
            let mut table = table(&folder, &double, spec()).await.expect("made");
            upsert(&mut table, 0..10, 1).await.expect("written");
            let version = table.stats().await.expect("read").version;
            double.refuse(Some("docs.lance/data"));
            let error = upsert(&mut table, 0..20, 2).await.expect_err("refused");
            assert_eq!(error.class(), Class::Transient, "{error}");
            assert!(error.to_string().contains("(os error 5)"), "{error}");
            assert_eq!(table.stats().await.expect("read").version, version);
            double.refuse(None);
            upsert(&mut table, 0..20, 2).await.expect("written");
            let stats = table.stats().await.expect("read");
            assert_eq!((stats.rows, stats.version > version), (20, true));
            assert_eq!(*double.early.lock().expect("whole"), Vec::<PathBuf>::new());
        });
    }

    #[test]
    fn a_table_that_another_process_has_written_is_synced_when_it_is_opened() {
        run(async {
            let folder = Folder::new("inherited");
            let double = Arc::new(Double::default());
            let mut first = table(&folder, &double, spec()).await.expect("made");
            upsert(&mut first, 0..10, 1).await.expect("written");
            drop(first);
            double.taken();
            double.refuse(Some("_versions"));
            let error = table(&folder, &double, spec()).await.expect_err("refused");
            assert_eq!(error.class(), Class::Transient, "{error}");
            double.refuse(None);
            table(&folder, &double, spec()).await.expect("opened");
            let synced = double.taken();
            for path in all(&folder.0.join("docs.lance")) {
                assert!(synced.contains(&path) || path.ends_with(HINT), "{}", path.display());
            }
        });
    }
}
