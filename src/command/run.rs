//! Running the connector, and what prepares it: `check` and `migrate`.

use std::io;
use std::path::Path;

use sink_postgres_vector::VectorTable;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{self, Failure};
use super::output;
use crate::config::{PostgresSettings, Settings, SourceSettings, TargetSettings};
use crate::error::{ConnectorError, FAILED};
use crate::framework::monitoring;
use crate::index;
use crate::lifecycle::{Connector, StopReport};
use crate::source::kafka;
#[cfg(feature = "lancedb")]
use crate::target;
use crate::target::postgres;

/// Runs the connector until SIGTERM, SIGINT or SIGHUP, or until it fails. Returns the exit code.
///
/// # Errors
/// When the process cannot listen for signals.
pub async fn run(config: &Path, secrets: Option<&Path>) -> io::Result<u8> {
    let mut signals = Signals::listen()?;
    let settings = match load(config, secrets) {
        Ok(settings) => settings,
        Err(error) => return Ok(report_failure(&error)),
    };
    log_start(&settings);
    let shutdown_timeout = settings.shutdown_timeout;
    let running = Connector::start(settings);
    // Before anything is connected, and until everything is over.
    let monitoring = monitoring::serve(monitoring::socket_path(), running.monitor());
    tokio::select! {
        name = signals.next() => {
            let seconds = shutdown_timeout.as_secs_f64();
            tracing::info!(signal = name, seconds, "stopping: finishing what was taken");
        }
        () = running.ended() => {}
    }
    let code = tokio::select! {
        report = running.stop(shutdown_timeout) => report_stop(&report),
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal: giving up; what was not written comes again");
            FAILED
        }
    };
    monitoring.close().await;
    Ok(code)
}

/// Checks the configuration file, and says what it describes. Returns the exit code.
///
/// What it says does not depend on the log filter: it is the command's result.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub fn check(config: &Path, secrets: Option<&Path>) -> io::Result<u8> {
    let checked = load(config, secrets).map_err(Failure::from).and_then(|settings| {
        let (name, what) = (config.display(), summary(&settings));
        let connector = &settings.connector;
        Ok(output::print(format!(
            "{name} is valid; no connection was opened\nconnector {connector}: {what}\n"
        ))?)
    });
    failure::report(checked)
}

/// Migrates the database and checks the tables, whatever `migrate` says. Returns the exit code.
pub async fn migrate(config: &Path, secrets: Option<&Path>) -> u8 {
    let migrated = async {
        let settings = load(config, secrets)?;
        match &settings.target {
            TargetSettings::Postgres(postgres) => migrate_database(&settings, postgres).await?,
            #[cfg(feature = "lancedb")]
            TargetSettings::Lance(lance) => target::lancedb::make(&settings, lance).await?,
            // The configuration refuses it before.
            #[cfg(not(feature = "lancedb"))]
            TargetSettings::Lance(_) => return Err(ConnectorError::Defect("no LanceDB in it".to_owned())),
        }
        Ok(settings.target.postgres().map_or("dataset", |_| "database"))
    };
    match migrated.await {
        Ok(what) => {
            tracing::info!("the {what} is up to date, and its tables fit");
            0
        }
        Err(error) => report_failure(&error),
    }
}

async fn migrate_database(settings: &Settings, server: &PostgresSettings) -> Result<(), ConnectorError> {
    let options = postgres::connect_options(&settings.connector, server);
    let mut connection = postgres::connect(&options).await?;
    let specs = postgres::table_specs(settings)?;
    let migrator = postgres::migrator();
    postgres::log_applied(&migrator.apply(&mut connection, &specs).await?);
    migrator.check_rights(connection.client(), postgres::BOOKKEEPING_RIGHTS).await?;
    let tables = VectorTable::check_all(connection.client(), &specs).await?;
    index::check(&connection, settings, &tables).await?;
    connection.close().await;
    index::build_missing(settings, server.migrate, &options, &tables).await
}

/// The settings, checked as far as that goes without a connection.
fn load(config: &Path, secrets: Option<&Path>) -> Result<Settings, ConnectorError> {
    let settings = Settings::from_file(config, secrets)?;
    if let SourceSettings::Kafka(kafka) = &settings.source {
        kafka::check_settings(kafka)?;
    }
    Ok(settings)
}

/// The signals on which it drains. SIGHUP is one: a terminal that is closed must not cut a batch off.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    /// `None` under `nohup`: to listen would undo that.
    hup: Option<Signal>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let hup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())?, hup })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        let Self { term, int, hup } = self;
        let hangup = async {
            match hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether whoever started this process wants hangups ignored. Only Linux says so.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1, SIGHUP.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn log_start(settings: &Settings) {
    let (version, connector) = (env!("CARGO_PKG_VERSION"), &settings.connector);
    tracing::info!(version, connector, "embedsink: {}", summary(settings));
    if let SourceSettings::Kafka(kafka) = &settings.source {
        for property in kafka.unchecked() {
            tracing::warn!(
                property,
                "anyone between here and the brokers can pretend to be one: a check of their certificates is \
                 switched off; remove the property, and give `ca-file` if the authority is your own"
            );
        }
    }
}

/// Where from and where to, in a line. Holds no secret.
fn summary(settings: &Settings) -> String {
    let tables: Vec<String> =
        settings.tables.iter().map(|table| format!("{}({})", table.name, table.dimensions)).collect();
    let source = match &settings.source {
        SourceSettings::Kafka(kafka) => {
            format!("topics {} on {}", kafka.topics.join(","), kafka.bootstrap_servers.join(","))
        }
        SourceSettings::Fluvio(fluvio) => format!("Fluvio topic {}", fluvio.topic.name),
    };
    let target = match &settings.target {
        TargetSettings::Postgres(server) => {
            format!("on {}:{}/{}", server.host, server.port, server.database)
        }
        TargetSettings::Lance(dataset) => format!("in LanceDB at {}", dataset.uri),
    };
    format!("{source} into tables {} {target}", tables.join(","))
}

pub(super) fn report_failure(error: &ConnectorError) -> u8 {
    let text = error.with_remedy();
    if matches!(error, ConnectorError::Config(_)) {
        output::tell(&format!("{text}\n"));
    } else {
        for line in text.lines() {
            tracing::error!("{line}");
        }
    }
    error.exit_code()
}

fn report_stop(report: &StopReport) -> u8 {
    for (partition, next_offset) in &report.totals.next_offsets {
        tracing::info!(%partition, next_offset, "partition ends");
    }
    let effect = report.totals.effect;
    tracing::info!(
        records = report.totals.records,
        upserted = effect.upserted,
        unchanged = effect.unchanged,
        deleted = effect.deleted,
        stale = effect.stale,
        dead_lettered = effect.dead_lettered,
        retries = report.totals.retries,
        seconds = report.ran_for.as_secs_f64(),
        drained = report.drained,
        "embedsink ends"
    );
    if let Some(error) = &report.error {
        return report_failure(error);
    }
    if !report.drained {
        tracing::error!(
            "shutdown-timeout passed before everything taken was written; the rest comes again with the next start"
        );
    }
    report.exit_code()
}
