//! Arguments to exit code.

// A reader that has gone away would end the process: see `command::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use embedsink::command::{
    self, ConfigCommand, DlqCommand, Files, Form, OffsetsCommand, QueryOptions, StatusOptions, WriteOptions,
};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Takes embedding records from Kafka or Fluvio into PostgreSQL with pgvector, exactly once; or into LanceDB.
///
/// Without a subcommand it runs until it gets SIGTERM, SIGINT or SIGHUP. It then finishes what it has
/// taken, within shutdown-timeout; a second signal ends it at once.
///
/// Exit codes: 0 clean stop, 1 failed, 2 wrong arguments, 78 bad configuration. Logs go to standard error; RUST_LOG
/// sets what is logged (default info).
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    files: Option<Files>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration file; opens no connection.
    Check {
        #[command(flatten)]
        files: Files,
    },
    /// Look at the configuration as it is in force.
    ///
    /// Exit codes: 0 done, 2 wrong arguments, 78 bad configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look at the records that could not be used, write them again, or delete them.
    ///
    /// They are kept in PostgreSQL, in embedsink.dead_letters; a connector sees its own only, by meta.name.
    /// docs/dead-letters.md is the guide. What a LanceDB dataset keeps is read as its other tables are (docs/lancedb.md).
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 bad configuration or a missing right.
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Ask the connector that runs on this host how it is.
    ///
    /// It reads the metrics socket, which only the connector's own user (and root) can do.
    ///
    /// Exit codes: 0 running, paused or draining; 1 starting, retrying, stopped or failed, or the question failed;
    /// 2 wrong arguments; 3 no connector answers, or another one than --config names; 78 bad configuration.
    Status {
        /// A configuration file: only the connector that it names is meant.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A file of NAME=VALUE lines for ${{ secrets.NAME }} in that file.
        #[arg(long, value_name = "FILE", requires = "config")]
        secrets: Option<PathBuf>,
        /// The metrics socket; without it FLUVIO_METRIC_CONNECTOR, or else /tmp/fluvio-connector.sock.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Ask again every so many seconds, until SIGINT; exits with the code of the last answer.
        #[arg(
            long,
            value_name = "SECONDS",
            num_args = 0..=1,
            default_missing_value = "2",
            value_parser = clap::value_parser!(u32).range(1..)
        )]
        watch: Option<u32>,
        /// Print the JSON document as the connector serves it.
        #[arg(long, conflicts_with = "prometheus")]
        json: bool,
        /// Print metrics in the text format of Prometheus.
        #[arg(long)]
        prometheus: bool,
    },
    /// Bring the database to the shape that this version needs, then check the tables.
    ///
    /// In LanceDB there is nothing to migrate: it makes the tables that are missing.
    Migrate {
        #[command(flatten)]
        files: Files,
    },
    /// Look at the positions that are stored beside the rows.
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 bad configuration, a missing right, or nothing is migrated.
    Offsets {
        #[command(subcommand)]
        command: OffsetsCommand,
    },
    /// Look into a target table: rows, one row, or the nearest to a vector.
    ///
    /// Neighbours come with their distance, by the metric of the table's vector index, and with the time it took and
    /// whether that index was used. Nothing is changed: a role of PostgreSQL needs no right but to select, and a dataset of
    /// LanceDB is not locked.
    ///
    /// Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 bad configuration, a missing right, or a table that does not fit.
    Query {
        #[command(flatten)]
        options: QueryOptions,
    },
    /// Write records from a file or from standard input, a JSON object a line.
    ///
    /// They go the way of live ones: transforms, decoding, tables, dead letters, and the limits of `errors`. A file that was
    /// written in part, since the command was interrupted, goes on behind the last line that was written; one that was
    /// changed meanwhile begins anew. Blank lines are skipped. A row whose record has no `timestamp` has none. It does not claim
    /// the metrics socket, and may run beside the connector; but a dataset of LanceDB takes one writer at a time.
    ///
    /// SIGINT or SIGTERM: what was taken is finished, within shutdown-timeout; a second signal ends it at once.
    ///
    /// Exit codes: 0 everything is written (bad records as dead letters), 1 failed or interrupted, 2 wrong arguments, 78 bad
    /// configuration, a missing right, or a table that does not fit.
    Write {
        #[command(flatten)]
        options: WriteOptions,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    keep_freed_memory();
    let arguments = Arguments::parse();
    start_logging(arguments.log_format);
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(embedsink::error::FAILED)
        }
    }
}

/// Lets glibc keep up to twice [`KEPT`] of free memory at the end of each of its arenas.
///
/// What is fetched comes and goes by megabytes. Where the writer is faster than the source, all of it has gone again and again, and
/// each new piece was put together from cleared pages: a twelfth of all work. glibc raises its threshold by itself to twice
/// the largest piece that was mapped and freed (mallopt(3), `M_MMAP_THRESHOLD`), unless the environment sets
/// `MALLOC_TRIM_THRESHOLD_`. Other allocators only map and free a piece.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT)));
}

/// Bytes. Twice what one answer of the broker has at most, unless somebody sets another `fetch.max.bytes`.
const KEPT: usize = 16 << 20;

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = match (arguments.command, arguments.files) {
        (Some(Command::Check { files }), _) => command::check(&files.config, files.secrets.as_deref())?,
        (Some(Command::Migrate { files }), _) => {
            runtime.block_on(command::migrate(&files.config, files.secrets.as_deref()))
        }
        (Some(Command::Config { command }), _) => command::config(&command)?,
        (Some(Command::Dlq { command }), _) => runtime.block_on(command::dlq(&command))?,
        (Some(Command::Offsets { command }), _) => runtime.block_on(command::offsets(&command))?,
        (Some(Command::Query { options }), _) => runtime.block_on(command::query(&options))?,
        (Some(Command::Status { config, secrets, socket, watch, json, prometheus }), _) => {
            let form = match (json, prometheus) {
                (true, _) => Form::Json,
                (_, true) => Form::Prometheus,
                _ => Form::Table,
            };
            let watch = watch.map(|seconds| Duration::from_secs(seconds.into()));
            let options = StatusOptions { config, secrets, socket, watch, form };
            runtime.block_on(command::status(&options))?
        }
        (Some(Command::Write { options }), _) => runtime.block_on(command::write(&options))?,
        (None, Some(files)) => runtime.block_on(command::run(&files.config, files.secrets.as_deref()))?,
        (None, None) => anyhow::bail!("nothing to do: give --config FILE, or a subcommand (see --help)"),
    };
    // A thread that ends while the process exits frees what OpenSSL's exit handler frees too. So all are
    // waited for, but not for long: those of a connector that was given up may be stuck.
    // A Kafka client whose broker does not answer is left as it is: its threads are none of the runtime's.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Fluvio's client tells of every connection, and at the level trace it shows whole records; its engine shows
    // those that a transform fails on. The one is told to those who ask for it by name, the others to nobody. The
    // client for Postgres shows the parameters of its statements.
    let asked = std::env::var("RUST_LOG").is_ok_and(|directives| directives.contains("fluvio"));
    let most = if asked { Level::DEBUG } else { Level::WARN };
    let is_for_all = filter_fn(move |line| {
        let target = line.target();
        if target.starts_with("tokio_postgres") || target.starts_with("postgres_types") {
            return *line.level() <= Level::WARN;
        }
        // They quote filters, and with them keys.
        if ["lance", "datafusion", "object_store"].iter().any(|library| target.starts_with(library)) {
            return false;
        }
        !target.starts_with("fluvio") || (*line.level() <= most && !target.starts_with("fluvio_smartengine"))
    });
    // It would tell of a line that cannot be written with a panic, when standard error is a pipe that nobody reads.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter).with(is_for_all);
    match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(is_terminal)).init();
        }
        LogFormat::Json => registry.with(lines.json()).init(),
    }
}
