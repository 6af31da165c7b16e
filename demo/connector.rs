//! The connector as a child process: started, watched, stopped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::settings::{Settings, root};

/// Where the connector's output goes, relative to the root of the repository.
pub(crate) const LOG: &str = ".local/demo/connector.log";

/// How many lines of the log an error shows.
const TAIL: usize = 15;

/// How long the connector may take to stop. Its own `shutdown-timeout` is 25 seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// A running connector. Dropping it asks the process to stop.
pub(crate) struct Connector {
    command: String,
    pid: u32,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
    running: bool,
}

impl Connector {
    /// Starts the release build on the demo's configuration.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let program = program()?;
        let log = File::create(root().join(LOG)).with_context(|| format!("{LOG} cannot be created"))?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&settings.file)
            .current_dir(root())
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let shown = program.strip_prefix(root()).unwrap_or(&program);
        Ok(Self {
            command: format!("{} --config {}", shown.display(), settings.file.display()),
            pid: child.id(),
            exit: wait_in_background(child),
            running: true,
        })
    }

    /// The command line that was started.
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// Does some work while the connector runs. Fails at once if the connector ends before.
    pub(crate) async fn watch<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            status = &mut self.exit => {
                self.running = false;
                let how = describe(status)?;
                Err(with_log(&format!("The connector ended early: {how}.")))
            }
            result = work => result.map_err(|error| anyhow!("{error:#}\nThe connector's log is {LOG}")),
        }
    }

    /// Stops the connector with SIGTERM. Returns how long that took, and fails unless the exit code is 0.
    pub(crate) async fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        terminate(self.pid)?;
        let Ok(status) = timeout(STOP_DEADLINE, &mut self.exit).await else {
            bail!("The connector did not stop within {} s. Its log is {LOG}", STOP_DEADLINE.as_secs());
        };
        self.running = false;
        let took = asked.elapsed();
        match status {
            Ok(Ok(status)) if status.success() => Ok(took),
            other => {
                let how = describe(other)?;
                Err(with_log(&format!("The connector did not stop cleanly: {how}.")))
            }
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if self.running
            && let Err(error) = terminate(self.pid)
        {
            eprintln!("The connector, process {}, still runs: {error:#}", self.pid);
        }
    }
}

/// The connector's program. It lies beside the folder that holds this example.
pub(crate) fn program() -> Result<PathBuf> {
    let example = env::current_exe().context("The demo cannot find its own program")?;
    let target = example.parent().and_then(|examples| examples.parent());
    let program = target.context("The demo's program has no parent folder")?.join("embedsink");
    if !program.exists() {
        bail!("{} is missing. make demo and make demo-lancedb build it", program.display());
    }
    Ok(program)
}

/// Waits for the child on a thread of its own, so that its end is seen at once.
fn wait_in_background(mut child: Child) -> oneshot::Receiver<io::Result<ExitStatus>> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        // Nobody listens any more when the demo itself is ending.
        sender.send(child.wait()).ok();
    });
    receiver
}

/// Sends SIGTERM. The shell's own `kill` is there on every machine.
fn terminate(pid: u32) -> Result<()> {
    let status = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid.to_string()]).status()?;
    if !status.success() {
        bail!("SIGTERM could not be sent to process {pid}");
    }
    Ok(())
}

/// Says in words how the process ended.
fn describe(status: Result<io::Result<ExitStatus>, oneshot::error::RecvError>) -> Result<String> {
    let status = status.context("The thread that waits for the connector is gone")??;
    Ok(match status.code() {
        Some(78) => "exit code 78, its configuration is refused".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    })
}

/// An error with the last lines of the connector's log below it.
fn with_log(message: &str) -> Error {
    let log = fs::read(root().join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
    anyhow!("{message} The end of {LOG}:\n  {tail}")
}
