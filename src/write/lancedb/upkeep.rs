//! The upkeep of the dataset's tables, between two writes.

use sink_lancedb::{Error, Tidied};

use super::{LETTERS, LanceWriter, POSITIONS};
use crate::monitoring::{IndexProgress, IndexState};

impl LanceWriter {
    /// Does what is due, unless it is to stop. What fails here fails no write: it is told, and tried again later.
    ///
    /// Cancel-safe: what was begun and is dropped leaves the tables as they were, and files that later upkeep removes.
    pub(super) async fn tidy_up(&mut self) {
        if self.stopping.is_cancelled() {
            return;
        }
        let stopping = self.stopping.clone();
        tokio::select! {
            biased;
            () = stopping.cancelled() => tracing::info!("upkeep is left to the next start: it is to stop"),
            () = self.tidy_each() => {}
        }
    }

    async fn tidy_each(&mut self) {
        for index in 0..self.tables.len() {
            let table = &mut self.tables[index];
            let name = table.name().to_owned();
            // What fails here fails upkeep, too.
            let builds = table.builds_index().await.unwrap_or(false);
            if builds {
                tracing::info!(table = name, "the vector index is being built; nothing is written meanwhile");
                self.monitor.index(&name, IndexState::Building.into());
            }
            let done = table.upkeep().await;
            if builds {
                let progress = match &done {
                    // Something else of upkeep may have failed.
                    Err(error) if table.lacks_index().await.unwrap_or(true) => {
                        IndexProgress { reason: Some(told(error)), ..IndexState::Failed.into() }
                    }
                    _ => {
                        tracing::info!(table = name, "the vector index is built");
                        IndexState::Ready.into()
                    }
                };
                self.monitor.index(&name, progress);
            }
            self.tell(&name, done);
        }
        let done = self.letters.upkeep().await;
        self.tell(LETTERS, done);
        let done = self.positions.table().upkeep().await;
        self.tell(POSITIONS, done);
    }

    /// Removes old versions from all tables, so that what did not fit on the disk may. Whatever fails here, the write that comes next tells.
    pub(super) async fn make_room(&mut self) {
        for table in &mut self.tables {
            let done = table.prune().await;
            made_room(table.name(), &done);
        }
        made_room(LETTERS, &self.letters.prune().await);
        made_room(POSITIONS, &self.positions.table().prune().await);
    }

    fn tell(&mut self, table: &str, done: Result<Option<Tidied>, Error>) {
        match done {
            Ok(None) => {}
            // What was told of the step that rests still holds.
            Ok(Some(tidied)) if tidied.rests => tracing::debug!(table, ?tidied, "tidied in part"),
            Ok(Some(tidied)) => {
                tracing::debug!(table, ?tidied, "tidied");
                self.monitor.tidied(table, Ok(tidied.bytes_freed));
            }
            Err(error) => {
                let text = told(&error);
                tracing::warn!(
                    table, error = %text,
                    "a part of upkeep has failed; the rest of it and writing go on, and this is tried again later"
                );
                self.monitor.tidied(table, Err(text));
            }
        }
    }
}

fn told(error: &Error) -> String {
    error.remedy().map_or_else(|| error.to_string(), |remedy| format!("{error}. {remedy}"))
}

fn made_room(table: &str, done: &Result<u64, Error>) {
    match done {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(table, bytes, "old versions were removed, for the disk is full"),
        Err(error) => tracing::debug!(table, %error, "old versions could not be removed"),
    }
}
