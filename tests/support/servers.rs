//! Servers: the common ones, and such that a test has for itself.

use std::process::Command;

/// Where the common Postgres listens.
pub(crate) fn postgres_port() -> u16 {
    port("POSTGRES_PORT", 5432)
}

/// Where the common Kafka broker listens.
pub(crate) fn kafka_port() -> u16 {
    port("KAFKA_PORT", 9092)
}

fn port(variable: &str, default: u16) -> u16 {
    std::env::var(variable).map_or(default, |port| port.parse().unwrap())
}

/// A server that one test may stop, kill and start again. Its data is deleted in the end.
pub(crate) struct OwnServer {
    kind: &'static str,
    instance: String,
    port: u16,
}

impl OwnServer {
    /// Starts a server: `postgres` or `kafka`.
    pub(crate) fn start(kind: &'static str, test: &str) -> Self {
        let mut server = Self { kind, instance: format!("test-{test}-{}", std::process::id()), port: 0 };
        server.port = server.run("start", &[]).trim().rsplit_once(':').unwrap().1.parse().unwrap();
        server
    }

    /// Where it listens, also after it was stopped and started.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it: `fast`, `immediate` or `kill`.
    pub(crate) fn stop(&self, mode: &str) {
        self.run("stop", &["--mode", mode]);
    }

    /// Starts it again, on the same data and port. Returns when it answers.
    pub(crate) fn start_again(&self) {
        let answer = self.run("start", &[]);
        assert!(answer.trim().ends_with(&format!(":{}", self.port)), "it came back elsewhere: {answer}");
    }

    /// Whether it keeps its data when it is killed. The broker tansu does not.
    pub(crate) fn is_durable(&self) -> bool {
        !is_tansu(self.port)
    }

    fn run(&self, command: &str, options: &[&str]) -> String {
        let arguments = [command, self.kind, "--instance", &self.instance];
        let done = servers().args(arguments).args(options).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "dev/servers {command} {} failed: {errors}", self.kind);
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let arguments = ["remove", self.kind, "--instance", &self.instance];
        if !servers().args(arguments).status().is_ok_and(|status| status.success()) {
            eprintln!("the server {} was left behind", self.instance);
        }
    }
}

/// Whether the broker at this port is tansu, which stands in where Apache Kafka cannot be had.
pub(crate) fn is_tansu(port: u16) -> bool {
    let status = servers().arg("status").output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    status.lines().any(|line| line.starts_with("tansu") && line.contains(&format!(":{port},")))
}

fn servers() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/servers"))
}
