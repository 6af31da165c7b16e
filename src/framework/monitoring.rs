//! The framework's metrics socket, with more to tell. Part of the framework's room.
//!
//! Mirrors `fluvio_connector_common::monitoring`: a Unix socket at `$FLUVIO_METRIC_CONNECTOR`, or else at
//! `/tmp/fluvio-connector.sock`; to whoever connects it writes one JSON document, and closes. The document has
//! the framework's keys, `consumer`, `producer_connector`, `producer_client` and `smartmodules`, which is empty:
//! of SmartModules no figures are kept.
//!
//! Goes further:
//! - `health` and `sink` beside the framework's keys.
//! - A socket on which somebody answers is never taken away; what is no socket is left alone.
//! - Only the connector's own user can connect (mode 0600).
//! - Each client has a task and a deadline, and there are at most [`MOST_CLIENTS`]: one that hangs up, stalls
//!   or floods keeps nobody else from an answer for long, and never ends the monitoring.
//! - A connector that cannot serve, or has lost its socket, says so in the log, runs on, and tries again.
//!
//! [`Connector::start`](crate::lifecycle::Connector::start) does not serve by itself: a path in the file system
//! belongs to a process, and a process may hold several connectors, or want none of this. The program does.

mod socket;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::monitoring::{Flow, Monitor, Report};
use socket::Socket;

/// The environment variable that names the socket's path.
pub const PATH_VARIABLE: &str = "FLUVIO_METRIC_CONNECTOR";
/// The framework's path, where the variable is not set.
pub const DEFAULT_PATH: &str = "/tmp/fluvio-connector.sock";

/// Clients that are answered at the same time. A connection beyond them is closed at once.
pub const MOST_CLIENTS: usize = 16;
/// How long a client may take to read its document.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a path that is not ours is tried again, and one that is ours is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The pause after a connection could not be accepted, as for want of file descriptors.
const RECOVERY: Duration = Duration::from_millis(500);

/// What a client of the socket reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// What was read from the topic, Fluvio's or Kafka's.
    pub consumer: Flow,
    /// What a source connector would have produced: nothing.
    pub producer_connector: Flow,
    /// What other producers of the process would have produced: nothing.
    pub producer_client: Flow,
    /// What SmartModules did, by their names. Empty: it is not counted.
    #[serde(default)]
    pub smartmodules: BTreeMap<String, serde_json::Value>,
    /// `health` and `sink`.
    #[serde(flatten)]
    pub report: Report,
}

impl Document {
    /// What is told now.
    pub fn of(monitor: &Monitor) -> Self {
        let report = monitor.report();
        Self {
            consumer: report.sink.received,
            producer_connector: Flow::default(),
            producer_client: Flow::default(),
            smartmodules: BTreeMap::new(),
            report,
        }
    }
}

/// Where the socket is: as [`PATH_VARIABLE`] says, or else at [`DEFAULT_PATH`].
pub fn socket_path() -> PathBuf {
    let named = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from)
}

/// A socket that is being served, or tried for.
#[derive(Debug)]
#[must_use = "it is served until it is closed or dropped"]
pub struct Served {
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// Serves documents of `monitor` at `path`, in the background, until [`Served::close`]. What stands in the way
/// is logged, and tried again every 5 s; so is a socket that somebody has removed or replaced.
///
/// Must be called within a tokio runtime.
pub fn serve(path: PathBuf, monitor: Arc<Monitor>) -> Served {
    serve_looking_every(LOOK, path, monitor)
}

fn serve_looking_every(look: Duration, path: PathBuf, monitor: Arc<Monitor>) -> Served {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stopped.cancelled() => {}
            () = keep_serving(&path, &monitor, look) => {}
        }
    });
    Served { stop: stop.drop_guard(), task }
}

impl Served {
    /// Ends it, and removes the socket if it is still the one that was made. Clients that are still reading
    /// are cut off. When this future is dropped, the end still comes, in the background.
    pub async fn close(self) {
        drop(self.stop);
        if let Err(fault) = self.task.await {
            tracing::warn!(%fault, "the monitoring ended with a panic");
        }
    }
}

/// Takes the path whenever it can be had, and answers there. Clients outlive the loss of a socket.
async fn keep_serving(path: &Path, monitor: &Arc<Monitor>, look: Duration) {
    let mut clients = JoinSet::new();
    let mut looks = tokio::time::interval(look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        match Socket::take(path).await {
            Ok(socket) => {
                told = false;
                tracing::info!(path = %path.display(), "monitoring is served");
                answer_until_lost(&socket, monitor, &mut clients, &mut looks).await;
                tracing::warn!(path = %path.display(), "the monitoring socket is gone from its path");
                // At once: whoever asks now finds nobody.
                continue;
            }
            Err(why) if told => {
                tracing::debug!(path = %path.display(), "monitoring is not served yet: {why}");
            }
            Err(why) => {
                told = true;
                tracing::warn!(
                    path = %path.display(),
                    "monitoring is not served: {why}. It is tried again and again; set {PATH_VARIABLE} to a path of \
                     its own for each connector. The connector itself is not affected"
                );
            }
        }
        looks.tick().await;
    }
}

/// Answers clients until the socket is no longer at its path.
async fn answer_until_lost(
    socket: &Socket,
    monitor: &Arc<Monitor>,
    clients: &mut JoinSet<()>,
    looks: &mut Interval,
) {
    let mut troubled = false;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = looks.tick() => {
                if socket.is_lost() {
                    return;
                }
                continue;
            }
        };
        match accepted {
            Ok(client) => {
                troubled = false;
                while clients.try_join_next().is_some() {}
                if clients.len() < MOST_CLIENTS {
                    clients.spawn(answer(client, Arc::clone(monitor)));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut troubled, true) {
                    tracing::warn!(%error, "a monitoring client could not be let in; trying again");
                }
                tokio::time::sleep(RECOVERY).await;
            }
        }
    }
}

/// Answers one client. Whatever it does is its own affair.
async fn answer(mut client: UnixStream, monitor: Arc<Monitor>) {
    let written = tokio::time::timeout(PATIENCE, async {
        let document = serde_json::to_vec_pretty(&Document::of(&monitor)).map_err(io::Error::other)?;
        client.write_all(&document).await?;
        client.shutdown().await
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a monitoring client went away"),
        Err(_) => tracing::debug!("a monitoring client did not read in time"),
    }
}

#[cfg(test)]
mod tests;
