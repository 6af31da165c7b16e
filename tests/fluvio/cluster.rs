//! A Fluvio cluster of one controller (SC) and one SPU, which a test may kill and start again.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::wait::until;

const SPU: &str = "5001";

/// The programs that the tests need. Says how to get them where they are missing.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Some(home) = std::env::var_os("HOME") {
        folders.push(Path::new(&home).join(".fluvio/bin"));
        folders.push(Path::new(&home).join(".fluvio/extensions"));
        folders.push(Path::new(&home).join(".fvm/bin"));
    }
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not on the path. Install Fluvio 0.18 (https://www.fluvio.io/docs/fluvio/quickstart), which \
             brings fluvio, fluvio-run and cdk, and put ~/.fluvio/bin on the path"
        )
    })
}

/// A running cluster. It is ended, and its data deleted, when dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    sc: String,
    sc_private: String,
    spu: String,
    spu_private: String,
    controller: Child,
    unit: Option<Child>,
}

impl Cluster {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("embedsink-fluvio-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("home/.fluvio")).unwrap();
        let [sc, sc_private, spu, spu_private] = free_addresses();
        let metadata = folder.join("metadata");
        let arguments =
            ["sc", "--local", path(&metadata), "--bind-public", &sc, "--bind-private", &sc_private];
        let controller = run(&folder, "sc", &arguments);
        let mut cluster = Self { folder, sc, sc_private, spu, spu_private, controller, unit: None };
        until("the controller to answer", async || std::net::TcpStream::connect(&cluster.sc).ok()).await;
        cluster.cli(&["profile", "add", "local", &cluster.sc, "local"]);
        let (spu, private) = (&cluster.spu, &cluster.spu_private);
        cluster.cli(&["cluster", "spu", "register", "--id", SPU, "-p", spu, "-v", private]);
        cluster.start_spu().await;
        cluster
    }

    /// Where the controller answers.
    pub(crate) fn endpoint(&self) -> &str {
        &self.sc
    }

    /// The home in which the cluster's profile stands.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Starts the SPU, on the data that it had, and waits until the controller knows of it.
    pub(crate) async fn start_spu(&mut self) {
        let (spu, private, sc, folder) = (&self.spu, &self.spu_private, &self.sc_private, path(&self.folder));
        let arguments =
            ["spu", "-i", SPU, "-p", spu, "-v", private, "--sc-addr", sc, "--log-base-dir", folder];
        self.unit = Some(run(&self.folder, "spu", &arguments));
        until("the SPU to be online", async || {
            self.cli(&["cluster", "spu", "list"]).contains("Online").then_some(())
        })
        .await;
    }

    /// `kill -9` of the SPU.
    pub(crate) fn kill_spu(&mut self) {
        let mut unit = self.unit.take().unwrap();
        unit.kill().unwrap();
        unit.wait().unwrap();
    }

    /// What `fluvio` with these arguments writes to standard output.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let done = self.command("fluvio").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "fluvio {arguments:?}: {errors}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// A program of Fluvio's that sees this cluster and nothing of the user's.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("HOME", self.home()).env("TMPDIR", &self.folder).stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in [Some(&mut self.controller), self.unit.as_mut()].into_iter().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            println!("what the cluster logged stands in {}", self.folder.display());
        } else if fs::remove_dir_all(&self.folder).is_err() {
            eprintln!("the folder {} was left behind", self.folder.display());
        }
    }
}

fn run(folder: &Path, name: &str, arguments: &[&str]) -> Child {
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program("fluvio-run"));
    command.env("HOME", folder.join("home")).env("RUST_LOG", "info");
    // Its metrics would go to a path that all SPUs of the machine share.
    command.env("FLUVIO_METRIC_SPU", folder.join("spu.sock"));
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn free_addresses<const N: usize>() -> [String; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
