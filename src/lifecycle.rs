//! Start, stop and health of a connector. THE interface at the edge of the house: who runs a connector needs
//! [`Connector::start`], [`Running::health`] and [`Running::stop`], and nothing else.
//!
//! Start: sink, migrations, table contract, source, running. Stop: take no more, finish what was
//! gathered, commit, leave the group, close, report. [`Running::stop`] takes the value, so nothing
//! stops twice.

mod import;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::breaker::BreakerSettings;
use crate::config::{Settings, SourceSettings, StartAt, TargetSettings};
use crate::error::{ConnectorError, FAILED, WriteError};
use crate::index::Indexes;
use crate::monitoring::{Health, Monitor, Phase, Totals};
use crate::pipeline::{self, Pipeline, PipelineSettings};
use crate::source::file::FileInput;
#[cfg(feature = "fluvio")]
use crate::source::fluvio::FluvioSource;
use crate::source::kafka::KafkaSource;
use crate::source::{Budget, Source, SourceError};
use crate::target::{self, Again, Ready};
use crate::write::Writer;
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
    /// How long it ran, without the upkeep that follows an import.
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
    /// Also cancelled by an import that is at its end.
    asked: CancellationToken,
    /// Only by [`Running::stop`], once the deadline is set.
    by_hand: CancellationToken,
    deadline: OnceLock<tokio::time::Instant>,
}

impl StopSignal {
    /// When all has to be over: as whoever asked for the stop says, or the configuration where nobody did.
    fn by(&self, settings: &Settings) -> tokio::time::Instant {
        let by = self.deadline.get().copied();
        by.unwrap_or_else(|| tokio::time::Instant::now() + settings.shutdown_timeout)
    }

    /// What comes of `future`; `None` when it is asked to stop before.
    async fn unless_asked<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked.cancelled() => None,
            done = future => Some(done),
        }
    }
}

impl Connector {
    /// Starts the connector in the background and returns at once; [`Running::health`] tells how far
    /// it is. A database or broker that is away is waited for.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(settings: Settings) -> Running {
        Self::launch(settings, Feed::Configured)
    }

    /// Starts to write what is in `input`, in the same way, and ends by itself when all of it is durable, and what a LanceDB
    /// dataset then needs is done. With `again` it begins at the first line, whatever is stored.
    ///
    /// Must be called within a tokio runtime.
    pub fn import(settings: Settings, input: FileInput, again: bool) -> Running {
        Self::launch(settings, Feed::File { input, again })
    }

    fn launch(settings: Settings, feed: Feed) -> Running {
        // Each lane fills a batch, has one waiting and writes one; two more are on their way to them. Batches keep
        // the records they were made of, so all of that is charged.
        let budget = Budget::new((3 * lane_count(&settings, &feed) + 2) * settings.batch.max_bytes);
        let monitor = Arc::new(Monitor::new(&settings.connector, budget.clone()));
        let (asked, by_hand) = (CancellationToken::new(), CancellationToken::new());
        let stop = Arc::new(StopSignal { asked, by_hand, deadline: OnceLock::new() });
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
        self.stop.by_hand.cancel();
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
    /// An input that is to be written from its first line on.
    fn again(&self) -> Option<Again> {
        match self {
            Self::File { input, again: true } => Some(Again { topic: input.topic().to_owned(), offset: 1 }),
            Self::File { .. } | Self::Configured => None,
        }
    }

    /// The topic of an input that will never be read again.
    fn passing_topic(&self) -> Option<&str> {
        match self {
            Self::File { input, .. } if input.is_standard() => Some(input.topic()),
            Self::File { .. } | Self::Configured => None,
        }
    }
}

/// How many lanes there are.
fn lane_count(settings: &Settings, feed: &Feed) -> usize {
    match (&settings.target, feed) {
        // A dataset has one writer.
        (TargetSettings::Lance(_), _) => 1,
        // It is one partition.
        (_, Feed::File { .. }) => 1,
        (TargetSettings::Postgres(_), Feed::Configured) => {
            std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LANES)
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
    let passing = feed.passing_topic().map(str::to_owned);
    let again = feed.again();
    let life = Life { settings: &settings, budget, monitor: &monitor, stop: &stop };
    let ((drained, ended), ran_for) = match &settings.target {
        TargetSettings::Postgres(postgres) => {
            let lanes = lane_count(&settings, &feed);
            let prepared =
                target::postgres::prepare(&settings, postgres, lanes, again, &stop.asked, &monitor);
            let ended = Box::pin(life.lead(feed, prepared)).await;
            let by = stop.by(&settings);
            forgotten(passing.as_deref(), by, |topic| target::postgres::forget(&settings, postgres, topic))
                .await;
            (ended, born.elapsed())
        }
        #[cfg(feature = "lancedb")]
        TargetSettings::Lance(lance) => {
            let is_import = matches!(feed, Feed::File { .. });
            let prepared =
                target::lancedb::prepare(&settings, lance, again, is_import, &stop.asked, &monitor);
            let ended = Box::pin(life.lead(feed, prepared)).await;
            let by = stop.by(&settings);
            forgotten(passing.as_deref(), by, |topic| target::lancedb::forget(&settings, lance, topic)).await;
            let ran_for = born.elapsed();
            if is_import && matches!(ended, (true, Ok(()))) {
                // Nobody may come after it who would do it. It takes as long as it takes, unless it is to stop.
                target::lancedb::tend(&settings, lance, &stop.by_hand, &monitor).await;
            }
            (ended, ran_for)
        }
        // The configuration refuses it before.
        #[cfg(not(feature = "lancedb"))]
        TargetSettings::Lance(_) => {
            ((true, Err(ConnectorError::Defect("this build has no LanceDB".to_owned()))), born.elapsed())
        }
    };
    match &ended {
        Ok(()) => monitor.enter(Phase::Stopped, "stopped"),
        Err(error) => monitor.failed(error),
    }
    Ending { drained, error: ended.err(), ran_for }
}

/// Forgets the position of an input that nobody can take for another's; it would only be in the way. Nobody waits for that
/// beyond the deadline of the stop.
async fn forgotten<'t, F: Future<Output = Result<(), ConnectorError>>>(
    topic: Option<&'t str>,
    by: tokio::time::Instant,
    forget: impl FnOnce(&'t str) -> F,
) {
    let Some(topic) = topic else { return };
    match tokio::time::timeout_at(by, forget(topic)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the position of an input that is over stays behind"),
        Err(_) => {
            tracing::debug!("the position of an input that is over stays behind: there was no time left");
        }
    }
}

/// What a connector lives with, whatever it reads from and writes to.
struct Life<'l> {
    settings: &'l Settings,
    budget: Budget,
    monitor: &'l Arc<Monitor>,
    stop: &'l StopSignal,
}

impl Life<'_> {
    /// Gets ready, then reads and writes until it is asked to stop, or cannot go on; then drains. Returns whether all
    /// that was gathered was written, and why it ended.
    async fn lead<W: Writer>(
        self,
        feed: Feed,
        preparing: impl Future<Output = Result<Ready<W>, ConnectorError>>,
    ) -> (bool, Result<(), ConnectorError>) {
        let mut preparing = std::pin::pin!(preparing);
        let ready = tokio::select! {
            biased;
            // Asked to stop before anything was taken.
            () = self.stop.asked.cancelled() => {
                // A build breaks itself off. Dropped, it would go on in the server until that notices.
                if self.monitor.builds_an_index() {
                    drop(tokio::time::timeout(self.settings.shutdown_timeout, preparing).await);
                }
                return (true, Ok(()));
            }
            ready = &mut preparing => ready,
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => return (true, Err(error)),
        };
        let (settings, budget, start) = (self.settings, self.budget.clone(), self.settings.source.start());
        match (feed, &settings.source) {
            (Feed::File { input, .. }, _) => {
                let opening = import::source(input, settings, budget, &self.stop.asked);
                let Some(source) = self.stop.unless_asked(opening).await else { return (true, Ok(())) };
                self.flow(source, StartAt::Beginning, ready).await
            }
            (Feed::Configured, SourceSettings::Kafka(kafka)) => {
                let most = settings.batch.max_bytes.max(settings.errors.max_payload);
                self.flow(KafkaSource::start(kafka, most, budget), start, ready).await
            }
            #[cfg(feature = "fluvio")]
            (Feed::Configured, SourceSettings::Fluvio(fluvio)) => {
                let source = FluvioSource::start(fluvio, &settings.connector, budget);
                self.flow(source, start, ready).await
            }
            // The configuration refuses it before.
            #[cfg(not(feature = "fluvio"))]
            (Feed::Configured, SourceSettings::Fluvio(_)) => {
                (true, Err(SourceError::Gone("this build has no Fluvio".to_owned()).into()))
            }
        }
    }

    async fn flow<S: Source, W: Writer>(
        self,
        source: Result<S, SourceError>,
        start: StartAt,
        ready: Ready<W>,
    ) -> (bool, Result<(), ConnectorError>) {
        let source = match source {
            Ok(source) => source,
            Err(error) => return (true, Err(error.into())),
        };
        self.monitor.enter(Phase::Starting, "waiting for partitions");
        let Some(letters) = self.stop.unless_asked(self.letter_topic()).await else {
            source.close(pipeline::goodbye(self.stop.by(self.settings))).await;
            return (true, Ok(()));
        };
        let letters = match letters {
            Ok(letters) => letters,
            Err(error) => return (true, Err(error)),
        };
        let Ready { writers, router, indexed, beside } = ready;
        let settings = PipelineSettings {
            batch: self.settings.batch,
            tolerance: self.settings.errors.tolerance,
            start,
            breaker: BreakerSettings {
                max_ratio_permille: self.settings.errors.max_ratio_permille,
                window: self.settings.errors.window,
            },
            letters,
        };
        let mut pipeline = Pipeline::new(source, writers, router, settings, self.monitor);
        let indexes =
            indexed.map(|(options, tables)| Indexes::keep(self.settings, &options, &tables, self.monitor));
        let ended = pipeline.run(&self.stop.asked).await;
        let reason = if ended.is_ok() { "asked to stop" } else { "stopping after an error" };
        self.monitor.enter(Phase::Draining, reason);
        let by = self.stop.by(self.settings);
        let indexes = async {
            if let Some(indexes) = indexes {
                indexes.stop(by).await;
            }
        };
        let ((drained, finished), ()) = tokio::join!(pipeline.drain(by), indexes);
        drop(beside);
        (drained, ended.and(finished))
    }

    /// Where a copy of each dead letter goes, if that is asked for.
    async fn letter_topic(&self) -> Result<Option<LetterTopic>, ConnectorError> {
        let (SourceSettings::Kafka(kafka), Some(topic)) =
            (&self.settings.source, &self.settings.errors.dead_letter_topic)
        else {
            return Ok(None);
        };
        let letters = LetterTopic::new(kafka, topic, &self.settings.connector)?;
        letters.look().await.map_err(WriteError::from)?;
        Ok(Some(letters))
    }
}
