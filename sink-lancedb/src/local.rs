//! The files of a local folder, as LanceDB opens them: its own store, with a barrier before each version.
//!
//! LanceDB writes most files past this store, under their final names. A version comes to be when its manifest gets its name in
//! `_versions`, and that goes through here. So all that it refers to is on the disk before, and the manifest itself is when its
//! writer is told that it is there.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use lance_io::object_store::{
    ObjectStore as LanceStore, ObjectStoreParams, ObjectStoreProvider, WrappingObjectStore,
    providers::local::FileStoreProvider,
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, list::PaginatedListStore,
    local::LocalFileSystem, path::Path,
};
use url::Url;

use crate::barrier::Barrier;

/// Opens local folders for writing.
#[derive(Debug)]
pub(crate) struct LocalProvider {
    barrier: Arc<Barrier>,
}

impl LocalProvider {
    pub(crate) fn new(barrier: Arc<Barrier>) -> Self {
        Self { barrier }
    }
}

#[async_trait]
impl ObjectStoreProvider for LocalProvider {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance_core::Result<LanceStore> {
        let mut store = FileStoreProvider.new_store(base, params).await?;
        store.apply_wrapper(self);
        Ok(store)
    }

    fn extract_path(&self, url: &Url) -> lance_core::Result<Path> {
        FileStoreProvider.extract_path(url)
    }

    fn calculate_object_store_prefix(
        &self,
        url: &Url,
        options: Option<&std::collections::HashMap<String, String>>,
    ) -> lance_core::Result<String> {
        FileStoreProvider.calculate_object_store_prefix(url, options)
    }
}

impl WrappingObjectStore for LocalProvider {
    fn wrap(&self, _: &str, original: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        let synced = LocalFileSystem::new().with_fsync(true);
        Arc::new(LocalStore { barrier: Arc::clone(&self.barrier), original, synced })
    }

    /// A listing hides nothing here.
    fn wrap_paginated(
        &self,
        _: &str,
        original: Arc<dyn PaginatedListStore>,
    ) -> Option<Arc<dyn PaginatedListStore>> {
        Some(original)
    }
}

/// The store with the barrier.
#[derive(Debug)]
struct LocalStore {
    barrier: Arc<Barrier>,
    original: Arc<dyn ObjectStore>,
    /// The same files. What is put there is synced under a name of its own, then named, then its name is synced.
    synced: LocalFileSystem,
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "synced {}", self.original)
    }
}

impl LocalStore {
    /// Brings everything to the disk that a version may refer to.
    async fn settle(&self) -> Result<()> {
        let barrier = Arc::clone(&self.barrier);
        let settled = tokio::task::spawn_blocking(move || barrier.settle()).await?;
        settled.map_err(|error| Error::Generic { store: "LocalFileSystem", source: error.into() })
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if !is_manifest(location) {
            return self.original.put_opts(location, payload, opts).await;
        }
        self.settle().await?;
        let done = self.synced.put_opts(location, payload, opts).await?;
        self.barrier.note(self.synced.path_to_filesystem(location)?);
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if is_manifest(location) {
            self.settle().await?;
            return self.synced.put_multipart_opts(location, opts).await;
        }
        self.original.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.original.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.original.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.original.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.original.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.original.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.original.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if is_manifest(to) {
            self.settle().await?;
        }
        self.original.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        // Where LanceDB publishes so, the file has another name in `_versions` before.
        if is_manifest(to) {
            self.settle().await?;
        }
        self.original.rename_opts(from, to, options).await
    }
}

/// Whether a version comes to be by this file.
fn is_manifest(location: &Path) -> bool {
    let mut parts = location.as_ref().rsplit('/');
    let name = parts.next().unwrap_or_default();
    name.ends_with(".manifest") && parts.next() == Some("_versions")
}
