//! Records from a file or from standard input, one a line.
//!
//! It is one partition, in which a record's offset is the number of its line, from 1. The topic's name holds what a
//! file is known again by: its path, size, time of modification, and what stands at its beginning and its end. So an
//! import that was interrupted goes on, and a file that was changed is another one. Standard input cannot be known again,
//! and has another name each time.
//!
//! The end of the input is a position too, right behind the last line: what it is stored for was written completely.
//!
//! Invariant: of a line no more is in memory than the limit, and of the file no more than a buffer, two runs of
//! records, and what the budget holds.

mod input;
mod reader;
mod transform;

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Budget, Fetched, Partition, Retained, Source, SourceError, SourceEvent, Tenure};
use crate::commit::CommitPoint;

pub use input::FileInput;
pub(crate) use input::Reading;
pub(crate) use transform::Transforms;

use reader::Reader;

/// How many runs may wait for the lanes.
const RUNS: usize = 2;

/// What the reader says.
enum Event {
    Run(Fetched),
    /// The position behind the end, and whether it had been stored before.
    End {
        position: i64,
        was_stored: bool,
    },
}

/// A file, or standard input, as a [`Source`] that comes to an end.
pub struct FileSource {
    partition: Partition,
    /// Whether the partition was told of.
    told: bool,
    refused: Option<SourceError>,
    /// Until reading begins.
    reader: Option<Reader>,
    thread: Option<JoinHandle<()>>,
    /// A thread that waits for somebody to type cannot be waited for.
    is_file: bool,
    events: mpsc::Receiver<Result<Event, SourceError>>,
    end: Option<i64>,
    settled: i64,
    done: CancellationToken,
}

impl FileSource {
    /// Begins with `input`. Of a line at most `max_line` bytes are kept. `done` is cancelled once all that was read is
    /// durable, the end included.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) fn new(
        input: FileInput,
        max_line: usize,
        transforms: Option<Transforms>,
        budget: Budget,
        done: CancellationToken,
    ) -> Self {
        let (sender, events) = mpsc::channel(RUNS);
        let partition = Partition::new(input.topic(), 0);
        let is_file = !input.is_standard();
        let runtime = tokio::runtime::Handle::current();
        let reader = Reader { input, max_line, transforms, budget, runtime, events: sender };
        Self {
            partition,
            told: false,
            refused: None,
            reader: Some(reader),
            thread: None,
            is_file,
            events,
            end: None,
            settled: 0,
            done,
        }
    }

    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.settled >= end)
    }
}

impl Source for FileSource {
    async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        if !std::mem::replace(&mut self.told, true) {
            // How long it is, nobody knows before it was read.
            let retained = Retained { earliest: 1, end: i64::MAX };
            return Ok(SourceEvent::Assigned { partition: self.partition.clone(), retained });
        }
        match self.events.recv().await {
            Some(Ok(Event::Run(run))) => Ok(SourceEvent::Fetched(run)),
            Some(Ok(Event::End { position, was_stored })) => {
                self.end = Some(position);
                if was_stored {
                    self.settled = position;
                }
                if self.is_done() {
                    self.done.cancel();
                }
                Ok(SourceEvent::Ends(vec![(self.partition.clone(), position)]))
            }
            Some(Err(error)) => Err(error),
            // All is read; the lanes are still at it.
            None if self.end.is_some() => std::future::pending().await,
            None => Err(SourceError::Gone("the thread that reads the input has ended".to_owned())),
        }
    }

    fn begin(&mut self, partition: &Partition, tenure: Tenure, offset: i64) {
        if *partition != self.partition {
            return;
        }
        let Some(reader) = self.reader.take() else { return };
        let partition = partition.clone();
        let spawned = std::thread::Builder::new()
            .name("file".to_owned())
            .spawn(move || reader.run(&partition, tenure, offset));
        match spawned {
            Ok(thread) => self.thread = Some(thread),
            Err(fault) => self.refused = Some(SourceError::Gone(fault.to_string())),
        }
    }

    fn announce(&mut self, partition: &Partition) {
        // It is asked for once more only when somebody else has taken it.
        self.refused = Some(SourceError::refused(
            format!("{} is being written by somebody else, who has taken it over", partition.topic()),
            "Let one `embedsink write` of this file run at a time; what both have written is written once",
        ));
    }

    fn commit(&mut self, point: &CommitPoint) {
        for (partition, next) in point.next_offsets() {
            if *partition == self.partition {
                self.settled = *next;
            }
        }
        if self.is_done() {
            self.done.cancel();
        }
    }

    async fn close(mut self, deadline: Duration) {
        // The reader ends when nobody takes what it has.
        drop(self.events);
        let thread = self.thread.take().filter(|_| self.is_file);
        let Some(thread) = thread else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(deadline, joined).await.is_err() {
            tracing::debug!("the file was still being read when it was closed");
        }
    }
}

#[cfg(test)]
mod tests;
