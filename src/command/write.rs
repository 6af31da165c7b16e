//! Records from a file or from standard input, written by hand.

mod progress;
mod summary;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::files::Files;
use super::output;
use super::run::{Signals, report_failure};
use crate::config::Settings;
use crate::error::{ConnectorError, FAILED};
use crate::lifecycle::{Connector, StopReport};
use crate::monitoring::{Monitor, Phase};
use crate::source::file::FileInput;

use progress::{LOOK, Progress};
use summary::Summary;

/// What `embedsink write` is asked for.
#[derive(Debug, Args)]
pub struct WriteOptions {
    /// Which connector: its tables, and the name that positions and dead letters have.
    #[command(flatten)]
    files: Files,
    /// The records, one JSON object a line; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Begin at the first line, also where the file was written before.
    ///
    /// Every run with it does. To go on after an interruption, leave it out.
    #[arg(long)]
    again: bool,
    /// Print the summary as a JSON object.
    #[arg(long)]
    json: bool,
}

/// Writes the records. Returns the exit code: 0 when everything is written, 1 when it failed or was interrupted before, 78 for a
/// bad configuration.
///
/// # Errors
/// When the process cannot listen for signals, or standard output cannot be written. A reader that has gone away is no
/// error.
pub async fn write(options: &WriteOptions) -> io::Result<u8> {
    let mut signals = Signals::listen()?;
    let settings = match Settings::from_file(&options.files.config, options.files.secrets.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return Ok(report_failure(&ConnectorError::from(error))),
    };
    let input = tokio::select! {
        biased;
        name = signals.next() => {
            tracing::warn!(signal = name, "interrupted: {} could not be opened yet", options.input.display());
            return Ok(FAILED);
        }
        input = open(&options.input) => input,
    };
    let input = match input {
        Ok(input) => input,
        Err(why) => {
            tracing::error!("{}: {why}", options.input.display());
            return Ok(FAILED);
        }
    };
    let mut summary = Summary::of(&input, &settings.target, options.again);
    let (reading, shutdown_timeout) = (input.reading(), settings.shutdown_timeout);
    let mut progress = Progress::new(input.size());
    let running = Connector::import(settings, input, options.again);
    let monitor = running.monitor();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interrupted = loop {
        tokio::select! {
            biased;
            name = signals.next() => {
                let seconds = shutdown_timeout.as_secs_f64();
                tracing::info!(signal = name, seconds, "stopping: finishing what was taken");
                break true;
            }
            () = running.ended() => break false,
            _ = look.tick() => {
                progress.tell(&reading, monitor.totals().records, doing(&monitor));
            }
        }
    };
    progress.finish();
    let report = tokio::select! {
        report = running.stop(shutdown_timeout) => report,
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: giving up; what was not written comes with the next run");
            return Ok(FAILED);
        }
    };
    summary.close(&report, &reading);
    let text = if options.json { summary.json() } else { summary.text() };
    match output::print(text) {
        Err(error) if !output::is_gone(&error) => return Err(error),
        _ => {}
    }
    Ok(end(&report, &summary, interrupted))
}

/// Opens the input beside the runtime: a named pipe that nobody writes to is waited for, and signals are heard meanwhile.
async fn open(path: &Path) -> Result<FileInput, String> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            output::tell("reading records from the terminal, one a line; Ctrl-D ends them\n");
        }
        return FileInput::standard().map_err(|error| format!("standard input cannot be read: {error}"));
    }
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || FileInput::open(&path)).await;
    opened.unwrap_or_else(|fault| Err(format!("cannot be opened: {fault}")))
}

/// What goes on beside the writing, or behind it.
fn doing(monitor: &Monitor) -> Option<&'static str> {
    if monitor.builds_an_index() {
        return Some("building the vector index");
    }
    (monitor.health().phase == Phase::Draining).then_some("finishing")
}

/// Says how it ended, where that was not well, and how to go on.
fn end(report: &StopReport, summary: &Summary, interrupted: bool) -> u8 {
    if report.error.is_none() && summary.is_complete() {
        return 0;
    }
    let code = match &report.error {
        Some(error) => report_failure(error),
        None => FAILED,
    };
    if !report.drained {
        tracing::error!("shutdown-timeout passed before everything taken was written");
    }
    let how = if interrupted { "interrupted" } else { "ended early" };
    tracing::warn!("{how}: {}", summary.how_to_go_on());
    code
}
