//! How far an import is: a bar on a terminal, otherwise a line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::file::Reading;

/// How often is looked.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// The time between two lines of the log.
const PERIOD: Duration = Duration::from_secs(5);

/// Tells of the bytes that are read, and the records that are durable.
pub(super) struct Progress {
    size: Option<u64>,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    /// Nothing is read yet, of so many bytes, if that is known.
    pub(super) fn new(size: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, template) = match size {
                Some(size) => (
                    ProgressBar::new(size),
                    "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {msg}",
                ),
                None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}"),
            };
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        // One that a terminal cannot draw (`TERM=dumb`) would be nothing at all.
        let bar = bar.filter(|bar| !bar.is_hidden());
        Self { size, bar, told: Instant::now() }
    }

    /// So many records are durable. `doing` is what goes on beside the writing, or behind it.
    pub(super) fn tell(&mut self, reading: &Reading, records: u64, doing: Option<&str>) {
        match &self.bar {
            Some(bar) => {
                let doing = doing.map_or_else(String::new, |doing| format!(", {doing}"));
                bar.set_position(reading.bytes());
                bar.set_message(format!("{records} records written{doing}"));
            }
            None if self.told.elapsed() >= PERIOD => {
                let doing = doing.unwrap_or("writing");
                self.told = Instant::now();
                tracing::info!(records, bytes_read = reading.bytes(), bytes = self.size, "{doing}");
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
