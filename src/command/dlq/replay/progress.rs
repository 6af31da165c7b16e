//! How far a replay is: a bar on a terminal, otherwise a line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two lines of the log.
const PERIOD: Duration = Duration::from_secs(5);

/// Tells of the letters that are done, out of all.
pub(super) struct Progress {
    total: i64,
    done: usize,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    /// None is done yet.
    pub(super) fn new(total: i64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total.unsigned_abs());
            match ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { total, done: 0, bar, told: Instant::now() }
    }

    /// So many more are done.
    pub(super) fn advance(&mut self, letters: usize) {
        self.done += letters;
        match &self.bar {
            Some(bar) => bar.inc(letters as u64),
            None if self.told.elapsed() >= PERIOD => {
                self.told = Instant::now();
                tracing::info!(done = self.done, total = self.total, "replaying");
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
