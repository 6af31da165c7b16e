//! The bytes that records may take between source and lanes.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A budget in bytes, shared by all clones. A [`Fetched`](super::Fetched) run holds its share until it is dropped.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    bytes: usize,
}

impl Budget {
    /// A budget of `bytes`, at least 1.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { room: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Waits for room for `bytes`. What is larger than the whole budget gets all of it, and so passes alone.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Never: the budget is not closed.
    pub async fn charge(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AcquireError> {
        let wanted = u32::try_from(bytes.clamp(1, self.bytes)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(wanted).await
    }

    /// How many bytes are taken now.
    pub fn used(&self) -> usize {
        self.bytes - self.room.available_permits()
    }

    /// How many bytes there are in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
