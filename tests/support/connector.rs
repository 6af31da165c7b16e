//! The connector as a process of its own: the binary as it is shipped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::{OpenptyResult, Winsize, openpty};
use tokio_postgres::Client;

use super::kafka::Topic;
use super::postgres::{Database, settled};
use super::record::Shape;
use super::wait::{PATIENCE, at_most, until};

/// What a connector is to do, and a folder for its files.
pub(crate) struct Connector {
    /// Lines under `source.kafka`; with none there is no such source.
    pub(crate) kafka: String,
    /// Lines under `meta`.
    pub(crate) meta: String,
    /// Lines at the top.
    pub(crate) top: String,
    /// The home of the user, for programs that look for something there.
    home: Option<PathBuf>,
    /// The key under `sink`.
    target: &'static str,
    /// Lines under it.
    pub(crate) postgres: String,
    /// Lines under `tables`.
    pub(crate) tables: String,
    /// Lines under `embedsink`.
    pub(crate) more: String,
    /// `RUST_LOG`.
    pub(crate) log: &'static str,
    /// The topic's name.
    pub(crate) topic: String,
    /// No file that it writes may be longer than so many blocks of 512 bytes, as if the disk were full.
    pub(crate) largest_file: Option<u32>,
    /// A metrics socket for all its processes; otherwise each has its own.
    pub(crate) socket: Option<PathBuf>,
    name: String,
    folder: PathBuf,
    starts: AtomicU32,
}

/// Client settings with which the group notices a dead member soon.
pub(crate) const SHORT_SESSION: &str = "properties: {session.timeout.ms: 1500, heartbeat.interval.ms: 300}";

/// Batches so small that whatever happens, happens in the middle of one.
pub(crate) const SMALL_BATCHES: &str = "batch: {max-rows: 500, max-wait: 20ms}";

impl Connector {
    /// One that reads `topic` into the tables of `shape`, with the defaults for all else.
    pub(crate) fn new(topic: &Topic, database: &Database, shape: &Shape) -> Self {
        let kafka = format!("bootstrap-servers: ['{}']\n", topic.broker());
        Self::over(kafka, None, topic.name(), database, shape)
    }

    /// One that writes to a LanceDB dataset in its own folder.
    pub(crate) fn on_lance(topic: &Topic, shape: &Shape) -> Self {
        let kafka = format!("bootstrap-servers: ['{}']\n", topic.broker());
        let target = ("lancedb", "uri: ./data\n".to_owned());
        Self::between(kafka, None, topic.name(), target, shape)
    }

    /// One whose broker nobody can reach, for commands that need none.
    pub(crate) fn without_source(database: &Database, shape: &Shape) -> Self {
        Self::over("bootstrap-servers: ['127.0.0.1:1']\n".to_owned(), None, "no-topic", database, shape)
    }

    /// One that reads the Fluvio topic `topic` of the cluster whose profile stands in `home`.
    pub(crate) fn on_fluvio(topic: &str, home: &Path, database: &Database, shape: &Shape) -> Self {
        Self::over(String::new(), Some(home.to_owned()), topic, database, shape)
    }

    fn over(kafka: String, home: Option<PathBuf>, topic: &str, database: &Database, shape: &Shape) -> Self {
        let target = ("postgres", format!("url: {}\n", database.url()));
        Self::between(kafka, home, topic, target, shape)
    }

    fn between(
        kafka: String,
        home: Option<PathBuf>,
        topic: &str,
        (target, lines): (&'static str, String),
        shape: &Shape,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&folder).unwrap();
        let tables: Vec<String> = shape
            .tables
            .iter()
            .map(|(name, dimensions)| format!("{name}: {{dimensions: {dimensions}}}"))
            .collect();
        Self {
            kafka,
            meta: String::new(),
            top: String::new(),
            home,
            target,
            postgres: lines,
            tables: tables.join("\n"),
            more: String::new(),
            log: "info",
            name,
            topic: topic.to_owned(),
            largest_file: None,
            socket: None,
            folder,
            starts: AtomicU32::new(0),
        }
    }

    /// The same with short sessions and small batches.
    pub(crate) fn restless(topic: &Topic, database: &Database, shape: &Shape) -> Self {
        let mut connector = Self::new(topic, database, shape);
        connector.kafka.push_str(SHORT_SESSION);
        connector.more.push_str(SMALL_BATCHES);
        connector
    }

    /// Its name, which is also its group's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The configuration.
    pub(crate) fn yaml(&self) -> String {
        let Self { name, topic, target, .. } = self;
        let indented = |text: &str, by: usize| text.replace('\n', &format!("\n{}", " ".repeat(by)));
        let source = match self.kafka.as_str() {
            "" => String::new(),
            kafka => format!("  source:\n    kafka:\n      {}\n", indented(kafka, 6)),
        };
        format!(
            "apiVersion: 0.1.0\nmeta:\n  version: 0.1.0\n  name: {name}\n  type: embedsink\n  topic: {topic}\n  {}\n{}\n\
             embedsink:\n{source}  sink:\n    {target}:\n      {}\n  tables:\n    {}\n  {}\n",
            indented(&self.meta, 2),
            self.top,
            indented(&self.postgres, 6),
            indented(&self.tables, 4),
            indented(&self.more, 2),
        )
    }

    /// The path of a file of its own, which is gone when this is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The configuration file's path.
    pub(crate) fn path(&self) -> String {
        self.folder.join("connector.yaml").to_str().unwrap().to_owned()
    }

    /// Writes the configuration file, in one step: another instance may be reading it.
    pub(crate) fn write(&self) {
        let draft = self.folder.join("draft.yaml");
        fs::write(&draft, self.yaml()).unwrap();
        fs::rename(draft, self.path()).unwrap();
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Process {
        self.write();
        self.run(&["--config", &self.path()])
    }

    /// Migrates the database as a subcommand, and waits for that.
    pub(crate) async fn migrate(&self) {
        self.write();
        self.run(&["migrate", "--config", &self.path()]).ends_with(0).await;
    }

    /// Starts the binary with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Process {
        self.spawn(arguments, Stdio::null(), None, None)
    }

    /// The same with this as standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: impl Into<Stdio>) -> Process {
        self.spawn(arguments, input.into(), None, None)
    }

    /// The same on a terminal, where somebody types this line.
    pub(crate) fn run_on_terminal(&self, arguments: &[&str], line: &str) -> (Process, Terminal) {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let mut terminal = File::from(master);
        let process = self.spawn(arguments, slave.into(), None, None);
        writeln!(terminal, "{line}").unwrap();
        (process, Terminal(terminal))
    }

    /// The same with a terminal for what it says beside its output.
    pub(crate) fn run_before_a_terminal(&self, arguments: &[&str]) -> (Process, Screen) {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let process = self.spawn(arguments, Stdio::null(), None, Some(slave.into()));
        (process, Screen::of(File::from(master)))
    }

    /// The same with a standard output that nobody reads any more.
    pub(crate) fn run_to_closed_pipe(&self, arguments: &[&str]) -> Process {
        self.spawn(arguments, Stdio::null(), Some(closed_pipe()), None)
    }

    /// The same with nobody who reads what it logs, either.
    pub(crate) fn run_to_nobody(&self, arguments: &[&str]) -> Process {
        self.spawn(arguments, Stdio::null(), Some(closed_pipe()), Some(closed_pipe()))
    }

    fn spawn(
        &self,
        arguments: &[&str],
        stdin: Stdio,
        stdout: Option<Stdio>,
        stderr: Option<Stdio>,
    ) -> Process {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.join(format!("{number}.log"));
        let output = self.folder.join(format!("{number}.out"));
        // Not in the folder: such a path may have some hundred bytes only.
        let socket = std::env::temp_dir().join(format!("es-{}-{number}.sock", self.name));
        let program = env!("CARGO_BIN_EXE_embedsink");
        let mut command = match self.largest_file {
            None => Command::new(program),
            Some(blocks) => {
                // Only the soft limit, so that it can be lifted.
                let limited = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &limited, program]);
                shell
            }
        };
        // Neither PG* variables nor a log level of the caller's.
        command.env_clear().env("RUST_LOG", self.log).env("TERM", "xterm").args(arguments);
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        command.env("FLUVIO_METRIC_CONNECTOR", self.socket.as_ref().unwrap_or(&socket));
        let logged = File::create(&log).unwrap();
        command
            .stdin(stdin)
            .stdout(stdout.unwrap_or_else(|| File::create(&output).unwrap().into()))
            .stderr(stderr.unwrap_or_else(|| logged.into()));
        Process { child: command.spawn().unwrap(), log, output, socket, status: None }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // What a failed test has left is wanted.
        if !std::thread::panicking() && fs::remove_dir_all(&self.folder).is_err() {
            eprintln!("the folder {} was left behind", self.folder.display());
        }
    }
}

/// A pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A terminal that is there until this is dropped.
pub(crate) struct Terminal(#[expect(dead_code, reason = "it is only held")] File);

/// What a terminal has been sent. It is read all the time: a process waits for a terminal that nobody reads.
pub(crate) struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn of(mut terminal: File) -> Self {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&sent);
        // It ends with an error once the process has.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = terminal.read(&mut piece) {
                shared.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self(sent)
    }

    /// All of it so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A running connector. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    output: PathBuf,
    socket: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it writes standard output to.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// Its metrics socket, unless the connector has one for all.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8(fs::read(&self.log).unwrap()).unwrap()
    }

    /// Waits for the end with exit code 0. Returns what it wrote to standard output.
    pub(crate) async fn outputs(self) -> String {
        let output = self.output.clone();
        self.ends_with(0).await;
        fs::read_to_string(output).unwrap()
    }

    /// The lines of the log that hold `text`.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// How long the log is by now, so that what comes behind can be told from what was there before.
    pub(crate) fn logged(&self) -> usize {
        self.log().len()
    }

    /// Waits until the log has at least `count` lines that hold `text` behind its first `logged` bytes.
    pub(crate) async fn logs_behind(&mut self, logged: usize, count: usize, text: &str) {
        self.until(&format!("{count} more lines with {text:?} in the log"), async |process| {
            let lines = process.log()[logged..].lines().filter(|line| line.contains(text)).count();
            (lines >= count).then_some(())
        })
        .await;
    }

    /// Waits until the log has at least `count` lines that hold `text`. Says nothing of when they came.
    pub(crate) async fn logs(&mut self, count: usize, text: &str) {
        self.until(&format!("{count} lines with {text:?} in the log"), async |process| {
            (process.lines_with(text).len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until `probe` gives something, while the process runs.
    pub(crate) async fn until<T>(&mut self, what: &str, mut probe: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        until(what, async || {
            let found = probe(self).await;
            let status = self.child.try_wait().unwrap();
            assert!(found.is_some() || status.is_none(), "it ended, {status:?}, before {what}");
            found
        })
        .await
    }

    /// Waits until `count` records are settled, over all partitions.
    pub(crate) async fn settles(&mut self, client: &Client, count: usize) {
        let what = format!("{count} records to be settled");
        self.until(&what, async |_| (settled(client).await >= count as i64).then_some(())).await;
    }

    /// Sends a signal: `TERM`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        // The standard library can only kill.
        let sent =
            Command::new("sh").args(["-c", &format!("kill -s {name} {}", self.id())]).status().unwrap();
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// Whether it has a handler for this signal, `TERM` or `INT`.
    pub(crate) fn catches(&self, name: &str) -> bool {
        let number = match name {
            "INT" => 2,
            "TERM" => 15,
            other => panic!("the number of SIG{other} is not known here"),
        };
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() >> (number - 1) & 1 == 1
    }

    /// Lets it write files of any length again.
    pub(crate) fn lift_limit(&self) {
        let arguments = ["--pid", &self.id().to_string(), "--fsize=unlimited"];
        let lifted = Command::new("prlimit").args(arguments).status().unwrap();
        assert!(lifted.success(), "the limit could not be lifted");
    }

    /// `kill -9`. Returns what it had logged.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub(crate) fn kill(mut self) -> String {
        let ended = self.child.try_wait().unwrap();
        self.status = ended;
        assert_eq!(ended, None, "it runs until it is killed");
        self.child.kill().unwrap();
        self.status = Some(self.child.wait().unwrap());
        self.log()
    }

    /// SIGTERM, a drain, exit code 0. Returns what it logged.
    pub(crate) async fn stop(self) -> String {
        self.signal("TERM");
        self.ends_with(0).await
    }

    /// Waits for the end, and compares the exit code. Returns what it logged.
    pub(crate) async fn ends_with(self, code: i32) -> String {
        self.ends_within(PATIENCE, code).await
    }

    /// The same with a deadline.
    pub(crate) async fn ends_within(mut self, deadline: Duration, code: i32) -> String {
        let status = at_most(deadline, async || self.child.try_wait().unwrap()).await;
        let status = status.unwrap_or_else(|| panic!("it did not end within {deadline:?}"));
        self.status = Some(status);
        assert_eq!(status.code(), Some(code), "exit code of the connector ({status})");
        self.log()
    }

    /// Waits for the end with exit code 0. Returns the most memory that it had resident, in KiB, as it was looked at all the time.
    pub(crate) async fn peak(mut self) -> u64 {
        let mut peak = 0;
        let status = until("the end of the process", async || {
            let ended = self.child.try_wait().unwrap();
            peak = peak.max(self.size("VmHWM").unwrap_or(0));
            ended
        })
        .await;
        self.status = Some(status);
        assert_eq!(status.code(), Some(0), "exit code of the connector ({status})");
        peak
    }

    /// A size in KiB from the kernel's account of the process: `VmRSS`, or its peak, `VmHWM`.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        self.size(name).unwrap()
    }

    /// The same, unless it has ended.
    fn size(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        // One that was killed could not.
        drop(fs::remove_file(&self.socket));
        if std::thread::panicking() {
            let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "the end of {}:\n{}",
                self.log.display(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}
