//! Asking a running connector how it is, through the metrics socket.

mod prometheus;
mod table;

use std::io::{self, IsTerminal};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::output;
use super::run::report_failure;
use crate::config::Settings;
use crate::error::ConnectorError;
use crate::framework::monitoring::{self, Document};
use crate::monitoring::Phase;

pub(super) use table::plain;

/// Exit code: it runs, but is not healthy.
const NOT_HEALTHY: u8 = 1;
/// Exit code: nobody answers, or somebody else.
const NOT_RUNNING: u8 = 3;

/// How long one question may take in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a connector that was too busy to answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// More than any document has; a socket of somebody else may send without end.
const MOST_BYTES: u64 = 64 << 20;

/// How the answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// The document as it is served.
    Json,
    /// The text format of Prometheus.
    Prometheus,
}

/// What `embedsink status` is asked for.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    /// A configuration whose connector is meant; otherwise whoever answers.
    pub config: Option<PathBuf>,
    /// The file of that configuration's secrets.
    pub secrets: Option<PathBuf>,
    /// The socket, if not the usual one.
    pub socket: Option<PathBuf>,
    /// The time between two looks; without it there is one.
    pub watch: Option<Duration>,
    /// How the answer is printed.
    pub form: Form,
}

/// An answer: the bytes as they came, and what they say.
#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    document: Document,
    /// The word for a phase that only a later version knows. The document then says that it is starting.
    later: Option<String>,
}

impl Answer {
    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        if let Ok(document) = serde_json::from_slice(&bytes) {
            return Some(Self { bytes, document, later: None });
        }
        // Perhaps it is only the phase that is not understood: something runs there all the same.
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let phase = value.pointer_mut("/health/phase")?;
        let later = Some(phase.as_str()?.to_owned());
        *phase = Phase::Starting.as_str().into();
        let document = serde_json::from_value(value).ok()?;
        Some(Self { bytes, document, later })
    }

    /// `None` for a phase that only a later version knows.
    fn phase(&self) -> Option<Phase> {
        self.later.is_none().then_some(self.document.report.health.phase)
    }
}

/// Prints how the connector is. Returns the exit code: 0 healthy, 1 not healthy, 3 not running, 78 for a bad
/// configuration. With `watch` it goes on until SIGINT, and returns the code of the last look.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub async fn status(options: &StatusOptions) -> io::Result<u8> {
    let name = match options.config.as_deref().map(|config| connector_name(config, options)) {
        Some(Ok(name)) => Some(name),
        Some(Err(error)) => return Ok(report_failure(&error)),
        None => None,
    };
    let path = options.socket.clone().unwrap_or_else(monitoring::socket_path);
    let Some(period) = options.watch else {
        return Ok(look(&path, name.as_deref(), options).await?.0);
    };
    let mut period = tokio::time::interval(period);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut code = NOT_RUNNING;
    loop {
        let looked = async {
            period.tick().await;
            look(&path, name.as_deref(), options).await
        };
        let reader_is_there;
        (code, reader_is_there) = tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(code),
            looked = looked => looked?,
        };
        if !reader_is_there {
            return Ok(code);
        }
    }
}

fn connector_name(config: &Path, options: &StatusOptions) -> Result<String, ConnectorError> {
    Ok(Settings::from_file(config, options.secrets.as_deref())?.connector)
}

/// Asks and prints once. Returns the exit code, and whether anybody still reads what is printed.
async fn look(path: &Path, name: Option<&str>, options: &StatusOptions) -> io::Result<(u8, bool)> {
    let answer = ask(path).await.and_then(|answer| match name {
        Some(name) if name != answer.document.report.sink.connector => Err(format!(
            "the connector {} answers, not {name}",
            table::plain(&answer.document.report.sink.connector)
        )),
        _ => Ok(answer),
    });
    let code = match &answer {
        Ok(answer) if answer.phase().is_some_and(Phase::is_healthy) => 0,
        Ok(_) => NOT_HEALTHY,
        Err(_) => NOT_RUNNING,
    };
    if let Err(why) = &answer {
        output::tell(&format!("{}: {why}\n", path.display()));
    }
    let is_terminal = io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match (&answer, options.form) {
        (Ok(answer), Form::Table) => {
            table::render(&answer.document, answer.later.as_deref(), colour).into_bytes()
        }
        (Ok(answer), Form::Json) => [answer.bytes.as_slice(), b"\n"].concat(),
        (Ok(answer), Form::Prometheus) => prometheus::render(&answer.document, answer.phase())?.into_bytes(),
        (Err(_), Form::Prometheus) => prometheus::render_absence(name)?.into_bytes(),
        (Err(_), _) => Vec::new(),
    };
    let is_watched = options.watch.is_some();
    // Home, and clear from there on.
    let before: &[u8] = if is_watched && is_terminal { b"\x1b[H\x1b[J" } else { b"" };
    let is_apart = is_watched && !is_terminal && options.form == Form::Table && !text.is_empty();
    let behind: &[u8] = if is_apart { b"\n" } else { b"" };
    match output::print([before, &text, behind].concat()) {
        Ok(()) => Ok((code, true)),
        Err(error) if output::is_gone(&error) => Ok((code, false)),
        Err(error) => Err(error),
    }
}

/// Asks whoever answers at the socket. The error completes "PATH: …".
async fn ask(path: &Path) -> Result<Answer, String> {
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            // One that has too many clients lets nobody in, or closes without a word, or in the middle of it.
            match read_all(path).await {
                Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset => {}
                    _ => return Err(error),
                },
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    });
    let bytes = match asked.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => "no connector is running: there is no such socket".to_owned(),
                io::ErrorKind::ConnectionRefused if is_no_socket(path) => {
                    "no connector is running: what is there is no socket".to_owned()
                }
                io::ErrorKind::ConnectionRefused => {
                    "no connector is running: the socket is left from one that was killed".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    "only the user that runs the connector may ask it (permission denied)".to_owned()
                }
                _ => format!("the connector cannot be asked: {error}"),
            });
        }
        Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    // The text of the parser's error could quote what somebody else has sent.
    Answer::from_bytes(bytes)
        .ok_or_else(|| "what answers is not embedsink, or not this version of it".to_owned())
}

/// What the other side sends until it closes.
async fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    UnixStream::connect(path).await?.take(MOST_BYTES).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Whether something else than a socket is there: files and folders refuse a connection too.
fn is_no_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

#[cfg(test)]
mod tests;
