//! An open table. Whatever fails or is cut off leaves it to be opened again.

use std::{future::Future, panic::resume_unwind, sync::Arc};

use lancedb::{Table, arrow::arrow_schema::SchemaRef};
use tokio::sync::Mutex;

use crate::{
    contract,
    dataset::{LockedDataset, Place},
    error::Error,
    lock::Lock,
};

#[derive(Debug)]
pub(crate) struct Handle {
    place: Arc<Place>,
    name: Arc<str>,
    table: Option<Table>,
    /// Held by what writes, also where nobody waits for it any more.
    writing: Arc<Mutex<()>>,
    lock: Option<Arc<Lock>>,
    /// Whether the table was not there and has been made.
    is_new: bool,
}

impl Handle {
    /// Opens a table that has this schema, and makes it if it is missing.
    pub(crate) async fn open_or_create(
        dataset: &LockedDataset,
        name: &str,
        schema: &SchemaRef,
    ) -> Result<(Self, SchemaRef), Error> {
        let failed = |error: lancedb::Error| Error::engine(format!("open the LanceDB table {name}"), &error);
        let place = dataset.place();
        place.cover(name);
        let mut is_new = false;
        let table = match open_table(place, name).await {
            Ok(table) => table,
            // With rows and without a version it is a damaged table, and no missing one.
            Err(lancedb::Error::TableNotFound { .. }) if !place.has_rows(name) => {
                is_new = true;
                let connection = place.connect().await.map_err(failed)?;
                let make = connection.create_empty_table(name, Arc::clone(schema)).execute();
                make.await.map_err(|error| Error::engine(format!("make the LanceDB table {name}"), &error))?
            }
            Err(error) => return Err(failed(error)),
        };
        let (mut handle, found) = Self::checked(place, name, table, schema).await?;
        place.settle().await.map_err(failed)?;
        handle.lock = dataset.lock();
        handle.is_new = is_new;
        Ok((handle, found))
    }

    /// Opens a table that has this schema. `None` if there is none of this name.
    pub(crate) async fn open(
        place: &Arc<Place>,
        name: &str,
        schema: Option<&SchemaRef>,
    ) -> Result<Option<(Self, SchemaRef)>, Error> {
        // Connecting would make the folder.
        if place.folder_of(name).is_some_and(|folder| !folder.exists()) {
            return Ok(None);
        }
        match open_table(place, name).await {
            Ok(table) => {
                let found = table.schema().await.map_err(|error| reading(name, &error))?;
                Self::checked(place, name, table, schema.unwrap_or(&found)).await.map(Some)
            }
            Err(lancedb::Error::TableNotFound { .. }) => Ok(None),
            Err(error) => Err(Error::engine(format!("open the LanceDB table {name}"), &error)),
        }
    }

    async fn checked(
        place: &Arc<Place>,
        name: &str,
        table: Table,
        schema: &SchemaRef,
    ) -> Result<(Self, SchemaRef), Error> {
        let found = table.schema().await.map_err(|error| reading(name, &error))?;
        contract::check(name, schema, &found)?;
        let handle = Self {
            place: Arc::clone(place),
            name: name.into(),
            table: Some(table),
            writing: Arc::default(),
            lock: None,
            is_new: false,
        };
        Ok((handle, found))
    }

    /// The table, to be given back with [`give`](Self::give) if all went well. If not, the next one to take it opens it
    /// again, and so knows what has been committed.
    ///
    /// Waits for a write that was begun and left.
    pub(crate) async fn take(&mut self) -> Result<Table, Error> {
        drop(self.writing.lock().await);
        if let Some(table) = self.table.take() {
            return Ok(table);
        }
        let opened = open_table(&self.place, &self.name).await;
        opened.map_err(|error| Error::engine(format!("open the LanceDB table {}", self.name), &error))
    }

    /// Writes, to the end even if the caller is dropped, and to the disk. A commit cannot be called back: if it came late,
    /// between the read and the write of the one who tries again, a key could be appended twice. The lock of the dataset is held
    /// as long.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl Future<Output = lancedb::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let (lock, place) = (self.lock.clone(), Arc::clone(&self.place));
        let task = tokio::spawn(async move {
            let done = match Box::pin(work).await {
                Ok(done) => place.settle().await.map(|()| done),
                Err(error) => Err(error),
            };
            drop((turn, lock));
            done
        });
        let done = task.await.unwrap_or_else(|failed| match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(lancedb::Error::Timeout { message: "the runtime stops".to_owned() }),
        });
        done.map_err(self.writing())
    }

    /// Makes sure that what is there is on the disk, where there is nothing to write. It may have come by a write whose end failed.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        self.place.settle().await.map_err(self.writing())
    }

    /// Whether the operating system keeps other writers away.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn give(&mut self, table: Table) {
        self.table = Some(table);
    }

    /// Lets the memory of the open table go.
    pub(crate) fn close(&mut self) {
        self.table = None;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    pub(crate) fn reading(&self) -> impl Fn(lancedb::Error) -> Error + use<> {
        let name = Arc::clone(&self.name);
        move |error| reading(&name, &error)
    }

    pub(crate) fn writing(&self) -> impl Fn(lancedb::Error) -> Error + use<> {
        let name = Arc::clone(&self.name);
        move |error| Error::engine(format!("write to the LanceDB table {name}"), &error)
    }

    pub(crate) fn tidying(&self) -> impl Fn(lancedb::Error) -> Error + use<> {
        let name = Arc::clone(&self.name);
        move |error| Error::engine(format!("tidy the LanceDB table {name}"), &error)
    }
}

/// Opens a table. A manifest that has lost its end makes LanceDB panic, and is told as any other damage.
async fn open_table(place: &Arc<Place>, name: &str) -> lancedb::Result<Table> {
    let (place, table) = (Arc::clone(place), name.to_owned());
    let opening = tokio::spawn(async move { place.connect().await?.open_table(table).execute().await });
    opening.await.unwrap_or_else(|failed| {
        Err(if failed.is_panic() {
            lancedb::Error::TableCorrupted { name: name.to_owned(), source: "its manifest".into() }
        } else {
            lancedb::Error::Timeout { message: "the runtime stops".to_owned() }
        })
    })
}

fn reading(name: &str, error: &lancedb::Error) -> Error {
    Error::engine(format!("read from the LanceDB table {name}"), error)
}
