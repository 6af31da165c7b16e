//! The upkeep of the dataset's tables, between two writes.

use std::time::{Duration, Instant};

use sink_lancedb::{Error, Tidied};

use super::{LETTERS, LanceWriter, POSITIONS};

/// After an upkeep that failed, none is tried for so long: it may be as expensive as one that works.
const PAUSE: Duration = Duration::from_secs(60);

/// Until when upkeep rests, since it has failed.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Instant>,
}

impl LanceWriter {
    /// Does what is due, unless it is to stop. What fails here fails no write: it is told, and tried again later.
    ///
    /// Cancel-safe: what was begun and is dropped leaves the tables as they were, and files that later upkeep removes.
    pub(super) async fn tidy_up(&mut self) {
        if self.stopping.is_cancelled() || self.rest.until.is_some_and(|until| Instant::now() < until) {
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
        self.rest.until = None;
        for index in 0..self.tables.len() {
            let done = self.tables[index].upkeep().await;
            let name = self.tables[index].name().to_owned();
            self.tell(&name, done);
        }
        let done = self.letters.upkeep().await;
        self.tell(LETTERS, done);
        let done = self.positions.table().upkeep().await;
        self.tell(POSITIONS, done);
    }

    fn tell(&mut self, table: &str, done: Result<Option<Tidied>, Error>) {
        match done {
            Ok(None) => {}
            Ok(Some(tidied)) => {
                tracing::debug!(table, ?tidied, "tidied");
                self.monitor.tidied(table, Ok(tidied.bytes_freed));
            }
            Err(error) => {
                self.rest.until = Some(Instant::now() + PAUSE);
                let text =
                    error.remedy().map_or_else(|| error.to_string(), |remedy| format!("{error}. {remedy}"));
                tracing::warn!(
                    table, error = %text,
                    "files and versions that are no longer needed stay; writing goes on, and this is tried again in a minute"
                );
                self.monitor.tidied(table, Err(text));
            }
        }
    }
}
