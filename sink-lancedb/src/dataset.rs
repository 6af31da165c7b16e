//! Where tables are: a folder, or an object store by URI.

use std::{fmt, path::PathBuf, sync::Arc};

use lancedb::{Connection, ObjectStoreRegistry, Session};

use crate::{error::Error, lock::Lock};

/// What a dataset is opened with.
#[derive(Clone)]
pub struct DatasetOptions {
    /// A folder, absolute or not, with or without `file://`; or with the crate's feature of that name a URI
    /// `s3://…` (`aws`), `gs://…` (`gcs`), `az://…` or `abfss://…` (`azure`).
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
    folder: Option<PathBuf>,
}

impl Dataset {
    /// Looks at the URI, touches nothing.
    ///
    /// # Errors
    /// [`Error::Uri`], and [`Error::Folder`] for what is there and no folder.
    pub fn open(mut options: DatasetOptions) -> Result<Self, Error> {
        let folder = match options.uri.split_once("://") {
            None => Some(PathBuf::from(&options.uri)),
            Some(("file", path)) => Some(PathBuf::from(path)),
            Some((scheme, _)) => {
                store(scheme).map_err(|problem| Error::Uri { uri: options.uri.clone(), problem })?;
                None
            }
        };
        if let Some(folder) = &folder {
            if folder.as_os_str().is_empty() {
                return Err(Error::Uri { uri: options.uri, problem: "it names no folder".to_owned() });
            }
            if folder.exists() && !folder.is_dir() {
                let problem = "it is not a folder".to_owned();
                return Err(Error::Folder { folder: folder.clone(), problem, passes: false });
            }
            options.uri = folder.to_string_lossy().into_owned();
        }
        Ok(Self { place: Arc::new(Place { options, folder }) })
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
        if self.place.folder.as_ref().is_some_and(|folder| !folder.exists()) {
            return Ok(Vec::new());
        }
        let names = async { self.place.connect().await?.table_names().execute().await };
        names.await.map_err(|error| Error::engine(format!("list the tables in {}", self.uri()), &error))
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

    /// Connects with caches of its own, so that dropping the connection gives all of their memory back.
    pub(crate) async fn connect(&self) -> lancedb::Result<Connection> {
        let options = &self.options;
        let stores = Arc::new(ObjectStoreRegistry::default());
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
