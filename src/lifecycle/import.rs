//! A file, or standard input, from its beginning to its end.

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::source::file::{FileInput, FileSource, Transforms};
use crate::source::{Budget, SourceError};

/// The source of an input of its own. It stops reading when `stop` says so.
///
/// # Errors
/// When a transform cannot be loaded.
pub(super) async fn source(
    input: FileInput,
    settings: &Settings,
    budget: Budget,
    stop: &CancellationToken,
) -> Result<FileSource, SourceError> {
    let transforms = Transforms::load(settings).await?;
    Ok(FileSource::new(input, settings.batch.max_bytes, transforms, budget, stop.clone()))
}
