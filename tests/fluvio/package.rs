//! The connector as a package of the framework: `cdk` builds, tests, deploys and publishes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::stage::{TOPIC, UNEVEN};
use crate::support::connector::Connector;
use crate::support::postgres::{Database, settled};
use crate::support::turn::alone;
use crate::support::wait::at_most;
use crate::way::{line, produce};

/// `cdk` builds the whole crate for a target of its own, the first time from nothing.
const BUILD: std::time::Duration = std::time::Duration::from_secs(1800);

#[tokio::test]
async fn cdk_tests_deploys_lists_logs_stops_and_publishes_the_connector() {
    let _alone = alone().await;
    let stage = Package::new().await;
    let (config, name) = (stage.connector.path(), stage.connector.name());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));

    // cdk build, cdk test: in the foreground.
    stage.cdk(root, &["build", "--target", &stage.target]);
    produce(&stage.cluster, 0, &[line(0, 0)]);
    let mut foreground = stage.command(root);
    foreground.args(["test", "--target", &stage.target, "--config", &config, "--secrets", &stage.secrets()]);
    let mut foreground = foreground.spawn().unwrap();
    stage.settles(1).await;
    end_child_of(&mut foreground).await;

    // cdk deploy start, list, log, shutdown, from the repository.
    let deploy =
        |arguments: &[&'static str]| [&["deploy", "--target", stage.target.as_str()], arguments].concat();
    let start = [deploy(&["start"]), vec!["--config", &config, "--secrets"]].concat();
    let secrets = stage.secrets();
    let started = stage.cdk(root, &[start, vec![secrets.as_str()]].concat());
    assert!(started.contains("Connector runs with process id"), "{started}");
    let _log = Left(root.join(format!("{name}.log")));
    stage.watched_until_stopped(root, 2).await;

    // cdk publish --pack, and a deploy of the package from elsewhere.
    stage.cdk(root, &["publish", "--pack", "--target", &stage.target]);
    let package = root.join(format!(".hub/embedsink-{}.ipkg", env!("CARGO_PKG_VERSION")));
    let elsewhere = stage.cluster.home();
    let started = stage.cdk(
        &elsewhere,
        &["deploy", "start", "--ipkg", package.to_str().unwrap(), "--config", &config, "--secrets", &secrets],
    );
    assert!(started.contains("Connector runs with process id"), "{started}");
    stage.watched_until_stopped(&elsewhere, 3).await;
}

struct Package {
    cluster: Cluster,
    connector: Connector,
    client: Client,
    target: String,
    _database: Database,
}

impl Package {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        cluster.cli(&["topic", "create", TOPIC]);
        let database = Database::create().await;
        let mut connector = Connector::on_fluvio(TOPIC, &cluster.home(), &database, &UNEVEN);
        connector.meta = "secrets: [{name: POSTGRES_PASSWORD}]".to_owned();
        connector.postgres.push_str("password: ${{ secrets.POSTGRES_PASSWORD }}\n");
        connector.write();
        let client = database.connect().await;
        let rustc = Command::new("rustc").arg("-vV").output().unwrap();
        let rustc = String::from_utf8(rustc.stdout).unwrap();
        let target = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
        let stage = Self { cluster, connector, client, target, _database: database };
        fs::write(stage.secrets(), "POSTGRES_PASSWORD=canary-9c1f\n").unwrap();
        stage
    }

    fn secrets(&self) -> String {
        self.cluster.home().join("secrets").to_str().unwrap().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.cluster.home().join("metrics.sock")
    }

    /// `cdk` in a folder, with this cluster's home; the toolchain stays the user's.
    fn command(&self, folder: &Path) -> Command {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let mut command = self.cluster.command("cdk");
        command.current_dir(folder).env("FLUVIO_METRIC_CONNECTOR", self.socket());
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, home.join(folder));
            }
        }
        command
    }

    fn cdk(&self, folder: &Path, arguments: &[&str]) -> String {
        let done = self.command(folder).args(arguments).output().unwrap();
        let output = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "cdk {arguments:?}: {output}{errors}");
        println!("$ cdk {}\n{output}", arguments.join(" "));
        output
    }

    /// Waits, as long as a build may take, until this many records are settled.
    async fn settles(&self, records: i64) {
        let settled = at_most(BUILD, async || (settled(&self.client).await >= records).then_some(())).await;
        settled.unwrap_or_else(|| panic!("waited in vain for {records} records"));
    }

    /// A deployed connector writes one more record, is listed, answers for its status, and drains when it is
    /// shut down.
    async fn watched_until_stopped(&self, folder: &Path, records: i64) {
        let name = self.connector.name();
        produce(&self.cluster, 0, &[line(0, records)]);
        self.settles(records).await;
        let list = self.cdk(folder, &["deploy", "list"]);
        assert!(list.lines().any(|line| line.contains(name) && line.contains("Running")), "{list}");
        let log = self.cdk(folder, &["deploy", "log", "--name", name]);
        assert!(log.contains("partition begins") && !log.contains("canary"), "{log}");
        let status = Command::new(env!("CARGO_BIN_EXE_embedsink"))
            .args(["status", "--socket", self.socket().to_str().unwrap()])
            .output()
            .unwrap();
        let shown = String::from_utf8(status.stdout).unwrap();
        assert!(status.status.success() && shown.contains("running"), "{shown}");
        println!("$ embedsink status\n{shown}");

        let stopped = self.cdk(folder, &["deploy", "shutdown", "--name", name]);
        assert!(stopped.contains(&format!("Shutting down connector: {name}")), "{stopped}");
        let log = folder.join(format!("{name}.log"));
        let drained = at_most(std::time::Duration::from_secs(30), async || {
            fs::read_to_string(&log).unwrap().contains("drained=true").then_some(())
        });
        assert!(drained.await.is_some(), "{}", fs::read_to_string(&log).unwrap());
        let list = self.cdk(folder, &["deploy", "list"]);
        assert!(!list.contains(name), "{list}");
    }
}

/// Sends SIGTERM to the connector that `cdk test` runs, and waits for `cdk` to end.
async fn end_child_of(cdk: &mut Child) {
    let id = cdk.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let sent = Command::new("sh").args(["-c", &format!("kill -s TERM {children}")]).status().unwrap();
    assert!(sent.success(), "no connector to end: {children:?}");
    let ended = at_most(std::time::Duration::from_secs(30), async || cdk.try_wait().unwrap()).await;
    assert!(ended.is_some_and(|status| status.success()), "cdk test: {ended:?}");
}

/// A file that is deleted in the end.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(fs::remove_file(&self.0));
        }
    }
}
