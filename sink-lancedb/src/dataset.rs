//! Where tables are: a folder, or an object store by URI.

use std::{
    fmt,
    path::{self, Component, Path, PathBuf},
    sync::Arc,
};

use lancedb::{Connection, ObjectStoreRegistry, Session};

use crate::{
    barrier::{Barrier, Disk},
    error::Error,
    local::LocalProvider,
    lock::Lock,
};

/// What a dataset is opened with.
#[derive(Clone)]
pub struct DatasetOptions {
    /// A folder, absolute or not, with or without `file://`; or with the crate's feature of that name a URI
    /// `s3://…` (`aws`), `gs://…` (`gcs`), `az://…` or `abfss://…` (`azure`). `~` stands for nothing.
    pub uri: String,
    /// What the object store needs: LanceDB's own names, such as `aws_access_key_id`. Never shown.
    pub storage_options: Vec<(String, String)>,
    /// That nothing else writes to this dataset, on the caller's word. A folder is locked and does not need it. For an object
    /// store there is no lock here: without this word [`Dataset::lock`] refuses it. Two writers at once do not damage a
    /// table there, every commit is a conditional put; and a key that both insert is a conflict for one of them, since
    /// tables made here mark their key. But what each believes to be stored is no longer so, and an older row may replace a
    /// newer one.
    pub sole_writer: bool,
    /// Bytes that a table keeps of its indexes in memory.
    pub index_cache: usize,
    /// Bytes that a table keeps of its manifests and file footers in memory.
    pub metadata_cache: usize,
}

impl DatasetOptions {
    /// A dataset with caches of 256 and 64 MiB a table.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            storage_options: Vec::new(),
            sole_writer: false,
            index_cache: 256 << 20,
            metadata_cache: 64 << 20,
        }
    }
}

/// Shows no storage option.
impl fmt::Debug for DatasetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatasetOptions").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// A place with tables, to read from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dataset {
    place: Arc<Place>,
}

/// A dataset that this process alone writes to. The lock is held until this and every table of it are dropped.
#[derive(Clone, Debug)]
pub struct LockedDataset {
    place: Arc<Place>,
    lock: Option<Arc<Lock>>,
}

#[derive(Debug)]
pub(crate) struct Place {
    options: DatasetOptions,
    /// Absolute, and the one that is locked.
    folder: Option<PathBuf>,
    /// Between the files of a version and the version, in a folder.
    barrier: Option<Arc<Barrier>>,
}

impl Dataset {
    /// Looks at the URI, touches nothing. A folder that is not absolute starts at the working directory of this moment.
    ///
    /// # Errors
    /// [`Error::Uri`], and [`Error::Folder`] for what is there and no folder.
    pub fn open(options: DatasetOptions) -> Result<Self, Error> {
        Self::on(options, Disk::Real)
    }

    pub(crate) fn on(mut options: DatasetOptions, disk: Disk) -> Result<Self, Error> {
        let refused = |problem: String| Error::Uri { uri: options.uri.clone(), problem };
        let folder = match options.uri.split_once("://") {
            None => Some(plain(&options.uri).map_err(refused)?),
            Some(("file", path)) => Some(Path::new(path)),
            Some((scheme, _)) => {
                store(scheme).map_err(refused)?;
                None
            }
        };
        let Some(folder) = folder else {
            return Ok(Self { place: Arc::new(Place { options, folder: None, barrier: None }) });
        };
        if folder.as_os_str().is_empty() {
            return Err(refused("it names no folder".to_owned()));
        }
        let folder =
            absolute(folder).map_err(|error| refused(format!("it cannot be made absolute: {error}")))?;
        let Some(text) = folder.to_str() else {
            return Err(refused("it starts at the working directory, whose name is not UTF-8".to_owned()));
        };
        if folder.exists() && !folder.is_dir() {
            return Err(Error::Folder { folder, problem: "it is not a folder".to_owned(), passes: false });
        }
        options.uri = text.to_owned();
        let barrier = Some(Arc::new(Barrier::new(folder.clone(), disk)));
        Ok(Self { place: Arc::new(Place { options, folder: Some(folder), barrier }) })
    }

    /// Makes this process the only writer, at once or not at all. A missing folder is made.
    ///
    /// Blocks for as long as opening a file takes.
    ///
    /// # Errors
    /// [`Error::Held`] if another process is the writer, or another lock of this process; [`Error::Folder`] if the folder
    /// cannot be written to; [`Error::Uri`] for an object store without [`DatasetOptions::sole_writer`].
    pub fn lock(&self) -> Result<LockedDataset, Error> {
        let place = Arc::clone(&self.place);
        let lock = match &place.folder {
            Some(folder) => Some(Arc::new(Lock::take(folder)?)),
            None if place.options.sole_writer => None,
            None => {
                let problem = "an object store has no lock, so say that nothing else writes there".to_owned();
                return Err(Error::Uri { uri: place.options.uri.clone(), problem });
            }
        };
        Ok(LockedDataset { place, lock })
    }

    /// The names of all tables, sorted. None if the folder is not there.
    pub async fn table_names(&self) -> Result<Vec<String>, Error> {
        if !self.may_exist() {
            return Ok(Vec::new());
        }
        let names = async { self.place.connect().await?.table_names().execute().await };
        names.await.map_err(|error| Error::engine(format!("list the tables in {}", self.uri()), &error))
    }

    /// Whether there is a folder. Of an object store that is never denied, for it has none.
    pub fn may_exist(&self) -> bool {
        self.place.folder.as_ref().is_none_or(|folder| folder.exists())
    }

    /// The URI, or the folder.
    pub fn uri(&self) -> &str {
        &self.place.options.uri
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl LockedDataset {
    /// The same place, to read from.
    pub fn reading(&self) -> Dataset {
        Dataset { place: Arc::clone(&self.place) }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    pub(crate) fn lock(&self) -> Option<Arc<Lock>> {
        self.lock.clone()
    }
}

impl Place {
    /// The folder of a table, if it is on a local disk.
    pub(crate) fn folder_of(&self, table: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{table}.lance")))
    }

    /// Whether a table's folder has files with rows, whatever else it lacks.
    pub(crate) fn has_rows(&self, table: &str) -> bool {
        let data = self.folder_of(table).map(|folder| folder.join("data"));
        data.and_then(|data| data.read_dir().ok()).is_some_and(|mut files| files.next().is_some())
    }

    /// From now on what this table has counts for [`settle`](Self::settle).
    pub(crate) fn cover(&self, table: &str) {
        if let (Some(barrier), Some(folder)) = (&self.barrier, self.folder_of(table)) {
            barrier.cover(folder);
        }
    }

    /// Brings to the disk what the tables that are written to have in a folder. LanceDB makes it so before each version, and keeps a
    /// failure to itself that comes after: so whoever commits asks here as well, before he says so.
    pub(crate) async fn settle(&self) -> lancedb::Result<()> {
        let Some(barrier) = self.barrier.clone() else { return Ok(()) };
        let settled = tokio::task::spawn_blocking(move || barrier.settle()).await;
        settled
            .map_err(|_| lancedb::Error::Timeout { message: "the runtime stops".to_owned() })?
            .map_err(|error| lancedb::Error::Lance { source: lance_core::Error::io_source(Box::new(error)) })
    }

    /// Connects with caches of its own, so that dropping the connection gives all of their memory back.
    pub(crate) async fn connect(&self) -> lancedb::Result<Connection> {
        let options = &self.options;
        let stores = Arc::new(ObjectStoreRegistry::default());
        if let Some(barrier) = &self.barrier {
            stores.insert("file", Arc::new(LocalProvider::new(Arc::clone(barrier))));
        }
        let session = Session::new(options.index_cache, options.metadata_cache, stores);
        lancedb::connect(&options.uri)
            .session(Arc::new(session))
            .storage_options(options.storage_options.iter().cloned())
            // Only reads ask for it: a reader sees what has been committed.
            .read_consistency_interval(std::time::Duration::ZERO)
            .execute()
            .await
    }
}

/// A folder that is given as a plain path. What LanceDB would take for something else is refused: the lock would be on one folder, and
/// the tables in another.
fn plain(uri: &str) -> Result<&Path, String> {
    if uri.starts_with('~') {
        return Err(format!(
            "`~` stands for nothing here: write the folder's whole path, or ./{uri} for one of that name"
        ));
    }
    // One letter is a drive of Windows.
    let scheme = uri.split_once(':').filter(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    match scheme {
        None => Ok(Path::new(uri)),
        Some(("file", path)) => {
            Err(format!("a scheme needs `//`: write {path}, or ./{uri} for a folder of that name"))
        }
        Some((scheme, rest)) => Err(format!(
            "a scheme needs `//`: write {scheme}://{}, or ./{uri} for a folder of that name",
            rest.trim_start_matches('/')
        )),
    }
}

/// The one path of a folder, whoever reads it: `..` behind a link is another folder to the operating system than to who only looks
/// at names, as LanceDB does.
fn absolute(folder: &Path) -> std::io::Result<PathBuf> {
    let folder = path::absolute(folder)?;
    if !folder.components().any(|part| part == Component::ParentDir) {
        return Ok(folder);
    }
    let mut plain = PathBuf::new();
    for part in folder.components() {
        if part == Component::ParentDir {
            plain = plain.canonicalize().unwrap_or(plain);
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    Ok(plain)
}

/// Whether this build knows object stores of this kind.
fn store(scheme: &str) -> Result<(), String> {
    let (feature, built) = match scheme {
        "s3" => ("aws", cfg!(feature = "aws")),
        "gs" => ("gcs", cfg!(feature = "gcs")),
        "az" | "abfss" => ("azure", cfg!(feature = "azure")),
        _ => return Err(format!("`{scheme}://` is none of file, s3, gs, az, abfss")),
    };
    if built { Ok(()) } else { Err(format!("this program was built without the feature `{feature}`")) }
}
