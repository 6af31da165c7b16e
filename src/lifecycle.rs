//! Start, stop and health of a connector. THE interface at the edge of the house: who runs a connector needs
//! [`Connector::start`], [`Running::health`] and [`Running::stop`], and nothing else.
//!
//! Start: sink, migrations, table contract, source, running. Stop: take no more, finish what was
//! gathered, commit, leave the group, close, report. [`Running::stop`] takes the value, so nothing
//! stops twice.

mod import;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sink_postgres_vector::{Connection, VectorTable};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::attempt::pauses;
use crate::breaker::BreakerSettings;
use crate::config::{MigrateMode, Settings, SourceSettings, StartAt};
use crate::error::{ConnectorError, FAILED, WriteError};
use crate::index::{self, Indexes};
use crate::monitoring::{Health, LaneMonitor, Monitor, Phase, Totals};
use crate::pipeline::{Pipeline, PipelineSettings};
use crate::source::file::FileInput;
#[cfg(feature = "fluvio")]
use crate::source::fluvio::FluvioSource;
use crate::source::kafka::KafkaSource;
use crate::source::{Budget, Source, SourceError};
use crate::target;
use crate::write::topic::LetterTopic;

/// Lanes beyond this many do not pay: the database's work per row outweighs ours.
const MAX_LANES: usize = 4;

/// A connector from its configuration.
#[derive(Debug)]
pub struct Connector;

/// A connector that was started. It lives until it is stopped, or fails.
#[derive(Debug)]
pub struct Running {
    monitor: Arc<Monitor>,
    stop: Arc<StopSignal>,
    /// Cancelled when the task is at its end, however it got there.
    over: CancellationToken,
    task: JoinHandle<Ending>,
}

/// How a connector ended.
#[derive(Debug)]
pub struct StopReport {
    /// What it wrote, and how far.
    pub totals: Totals,
    /// How long it ran.
    pub ran_for: Duration,
    /// Whether everything that had been gathered was written before the deadline. What was not
    /// comes again with the next start.
    pub drained: bool,
    /// Why it ended, if that was not the stop.
    pub error: Option<ConnectorError>,
}

impl StopReport {
    /// 0 after a clean stop, 78 for a bad configuration, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match &self.error {
            Some(error) => error.exit_code(),
            None if self.drained => 0,
            None => FAILED,
        }
    }
}

#[derive(Debug)]
struct Ending {
    drained: bool,
    error: Option<ConnectorError>,
    ran_for: Duration,
}

/// The wish to stop, and by when.
#[derive(Debug)]
struct StopSignal {
    asked: CancellationToken,
    deadline: OnceLock<tokio::time::Instant>,
}

impl Connector {
    /// Starts the connector in the background and returns at once; [`Running::health`] tells how far
    /// it is. A database or broker that is away is waited for.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(settings: Settings) -> Running {
        Self::launch(settings, Feed::Configured)
    }

    /// Starts to write what is in `input`, in the same way, and ends by itself when all of it is durable. With `again`
    /// it begins at the first line, whatever is stored.
    ///
    /// Must be called within a tokio runtime.
    pub fn import(settings: Settings, input: FileInput, again: bool) -> Running {
        Self::launch(settings, Feed::File { input, again })
    }

    fn launch(settings: Settings, feed: Feed) -> Running {
        // Each lane fills a batch, has one waiting and writes one; two more are on their way to them. Batches keep
        // the records they were made of, so all of that is charged.
        let budget = Budget::new((3 * feed.lane_count() + 2) * settings.batch.max_bytes);
        let monitor = Arc::new(Monitor::new(&settings.connector, budget.clone()));
        let stop = Arc::new(StopSignal { asked: CancellationToken::new(), deadline: OnceLock::new() });
        let over = CancellationToken::new();
        let life = Box::pin(live(settings, feed, budget, Arc::clone(&monitor), Arc::clone(&stop)));
        let at_the_end = over.clone().drop_guard();
        let task = tokio::task::spawn(async move {
            let ending = life.await;
            drop(at_the_end);
            ending
        });
        Running { monitor, stop, over, task }
    }
}

impl Running {
    /// The health now.
    pub fn health(&self) -> Health {
        self.monitor.health()
    }

    /// Where all parts report to, for those who publish it. It may be kept beyond the connector's end.
    pub fn monitor(&self) -> Arc<Monitor> {
        Arc::clone(&self.monitor)
    }

    /// Waits until the connector has ended by itself, which it does only when it fails.
    /// Cancel-safe.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Stops: finishes what was gathered, commits, leaves the group, closes. Takes at most about
    /// `deadline`; what is not written by then stays in the topic and comes again.
    pub async fn stop(self, deadline: Duration) -> StopReport {
        let by = tokio::time::Instant::now() + deadline;
        // Set once only: a value that is there already was set by an earlier stop, which took `self`.
        self.stop.deadline.get_or_init(|| by);
        self.stop.asked.cancel();
        let ending = self.task.await.unwrap_or_else(|fault| Ending {
            drained: false,
            error: Some(ConnectorError::Defect(fault.to_string())),
            ran_for: Duration::ZERO,
        });
        let totals = self.monitor.totals();
        StopReport { totals, ran_for: ending.ran_for, drained: ending.drained, error: ending.error }
    }
}

/// Where records come from.
#[derive(Debug)]
enum Feed {
    /// As the configuration has it.
    Configured,
    File {
        input: FileInput,
        again: bool,
    },
}

impl Feed {
    fn lane_count(&self) -> usize {
        match self {
            Self::Configured => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LANES),
            // It is one partition.
            Self::File { .. } => 1,
        }
    }
}

async fn live(
    settings: Settings,
    feed: Feed,
    budget: Budget,
    monitor: Arc<Monitor>,
    stop: Arc<StopSignal>,
) -> Ending {
    let born = Instant::now();
    let prepared = tokio::select! {
        biased;
        () = stop.asked.cancelled() => None,
        tables = prepare(&settings, &monitor) => Some(tables),
    };
    let (drained, ended) = match prepared {
        // Asked to stop before anything was taken.
        None => (true, Ok(())),
        Some(Err(error)) => (true, Err(error)),
        Some(Ok(tables)) => {
            let way = Way { start: settings.source.start(), lanes: feed.lane_count() };
            match (feed, &settings.source) {
                (Feed::File { input, again }, _) => {
                    import::import(input, again, &settings, &tables, budget, &monitor, &stop).await
                }
                (Feed::Configured, SourceSettings::Kafka(kafka)) => {
                    flow(KafkaSource::start(kafka, budget), way, &settings, &tables, &monitor, &stop).await
                }
                #[cfg(feature = "fluvio")]
                (Feed::Configured, SourceSettings::Fluvio(fluvio)) => {
                    let source = FluvioSource::start(fluvio, &settings.connector, budget);
                    flow(source, way, &settings, &tables, &monitor, &stop).await
                }
                // The configuration refuses it before.
                #[cfg(not(feature = "fluvio"))]
                (Feed::Configured, SourceSettings::Fluvio(_)) => {
                    (true, Err(SourceError::Gone("this build has no Fluvio".to_owned()).into()))
                }
            }
        }
    };
    match &ended {
        Ok(()) => monitor.enter(Phase::Stopped, "stopped"),
        Err(error) => monitor.failed(error),
    }
    Ending { drained, error: ended.err(), ran_for: born.elapsed() }
}

/// What differs between sources on the way of their records.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Where a partition begins for which nothing is stored.
    start: StartAt,
    lanes: usize,
}

/// Reads and writes until it is asked to stop, or cannot go on; then drains. Returns whether all that was
/// gathered was written, and why it ended.
async fn flow<S: Source>(
    source: Result<S, SourceError>,
    way: Way,
    settings: &Settings,
    tables: &[VectorTable],
    monitor: &Arc<Monitor>,
    stop: &StopSignal,
) -> (bool, Result<(), ConnectorError>) {
    let source = match source {
        Ok(source) => source,
        Err(error) => return (true, Err(error.into())),
    };
    monitor.enter(Phase::Starting, "waiting for partitions");
    let mut pipeline = match join(source, way, settings, tables, monitor).await {
        Ok(pipeline) => pipeline,
        Err(error) => return (true, Err(error)),
    };
    let indexes = Indexes::keep(settings, tables, monitor);
    let ended = pipeline.run(&stop.asked).await;
    let reason = if ended.is_ok() { "asked to stop" } else { "stopping after an error" };
    monitor.enter(Phase::Draining, reason);
    let by = stop.deadline.get().copied();
    let by = by.unwrap_or_else(|| tokio::time::Instant::now() + settings.shutdown_timeout);
    let ((drained, finished), ()) = tokio::join!(pipeline.drain(by), indexes.stop(by));
    (drained, ended.and(finished))
}

async fn join<S: Source>(
    source: S,
    way: Way,
    settings: &Settings,
    tables: &[VectorTable],
    monitor: &Arc<Monitor>,
) -> Result<Pipeline<S>, ConnectorError> {
    let writers = (0..way.lanes).map(|_| target::writer(settings, tables)).collect();
    let letters = match (&settings.source, &settings.errors.dead_letter_topic) {
        (SourceSettings::Kafka(kafka), Some(topic)) => {
            let letters = LetterTopic::new(kafka, topic, &settings.connector)?;
            letters.look().await.map_err(WriteError::from)?;
            Some(letters)
        }
        _ => None,
    };
    let pipeline_settings = PipelineSettings {
        batch: settings.batch,
        tolerance: settings.errors.tolerance,
        start: way.start,
        breaker: BreakerSettings {
            max_ratio_permille: settings.errors.max_ratio_permille,
            window: settings.errors.window,
        },
        letters,
    };
    let router = Arc::new(target::router(settings, tables));
    Ok(Pipeline::new(source, writers, router, pipeline_settings, monitor))
}

/// What comes before the first record.
async fn prepare(settings: &Settings, monitor: &Arc<Monitor>) -> Result<Vec<VectorTable>, ConnectorError> {
    let tables = prepare_target(settings, monitor).await?;
    index::prepare(settings, &tables, monitor).await;
    Ok(tables)
}

/// Connects, migrates (or checks), and checks the tables and the right to index them. Passing faults are waited out.
async fn prepare_target(settings: &Settings, monitor: &Monitor) -> Result<Vec<VectorTable>, ConnectorError> {
    let listener = LaneMonitor { monitor, lane: 0 };
    let mut pauses = pauses();
    loop {
        let error = match try_prepare(settings).await {
            Ok(tables) => {
                listener.recovered();
                return Ok(tables);
            }
            Err(error) => match target::passing(error) {
                Ok(passing) => passing,
                Err(error) => return Err(error),
            },
        };
        listener.failed(&WriteError::Postgres(error));
        tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(10))).await;
    }
}

async fn try_prepare(settings: &Settings) -> Result<Vec<VectorTable>, ConnectorError> {
    let mut connection = Connection::open(&target::connect_options(settings))
        .await
        .map_err(|error| ConnectorError::Connect(error.into()))?;
    let specs = target::table_specs(settings)?;
    let migrator = target::migrator();
    match settings.postgres.migrate {
        MigrateMode::Auto => target::log_applied(&migrator.apply(&mut connection, &specs).await?),
        MigrateMode::Manual => migrator.check(connection.client(), &specs).await?,
    }
    migrator.check_rights(connection.client(), target::BOOKKEEPING_RIGHTS).await?;
    let tables = VectorTable::check_all(connection.client(), &specs).await?;
    index::check(&connection, settings, &tables).await?;
    connection.close().await;
    Ok(tables)
}
