//! What a run was made on, for whoever reads its figures.

use std::fs;
use std::process::Command;

use anyhow::Result;
use tokio_postgres::Client;

use crate::report::Report;

/// Notes the processor, the memory, the servers and the commit.
pub(crate) async fn note(report: &mut Report, client: &Client, broker: &str) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    report.on("processor", format!("{processor} with {cores} cores"));
    let kibibytes =
        field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(kibibytes) = kibibytes {
        report.on("memory", format!("{:.0} GiB", kibibytes / 1024.0 / 1024.0));
    }
    let sql = "select current_setting('server_version'), \
               (select default_version from pg_available_extensions where name = 'vector')";
    let versions = client.query_one(sql, &[]).await?;
    report.on("PostgreSQL", versions.get(0));
    report.on("pgvector", versions.get(1));
    report.on("broker", broker.to_owned());
    if let Some(commit) = commit() {
        report.on("commit", commit);
    }
    Ok(())
}

/// The value of the first such line of one of the kernel's files.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit that is measured, where git knows it.
fn commit() -> Option<String> {
    let done = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
