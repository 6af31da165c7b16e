//! A consumer of a Fluvio topic, over the published client. Part of the framework's room.
//!
//! Mirrors `consumer_stream_from_config` and `ensure_topic_exists`: cluster profile and TLS as the client
//! finds them, the framework's client id. Goes further: one stream per partition from any absolute offset, read-committed, without retries of its own (the
//! client's move the offset of partitions that had no fault); no record is lost where an answer is cut
//! off; and an offset can be reported that is not the last one yielded.
//!
//! Every question has a time limit. An answer that does not come drops the connection it was asked
//! on, so the next question goes over a new one.

mod answers;
mod fault;
mod spec;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{Batch, ReplicaKey};
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::smartmodule::SmartModuleSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::TopicSpec;
use fluvio::{FluvioAdmin, FluvioClusterConfig, Isolation};
use fluvio_socket::{
    ClientConfig, MultiplexerSocket, SharedMultiplexerSocket, VersionedSerialSocket, Versions,
};
use fluvio_spu_schema::server::consumer_offset::UpdateConsumerOffsetRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{Mutex, OnceCell};

use super::config::{FluvioSettings, TopicSettings, Transform};
use super::smartmodule::{Chain, Module};
use crate::source::Retained;
use answers::Answers;
use spec::topic_spec;

pub use fault::Fault;

/// How long an answer may take, connecting included.
const ANSWER: Duration = Duration::from_secs(10);
/// One answer's bytes when the configuration says nothing: what the client itself asks for.
pub const MAX_BYTES: u32 = 1_000_000;

/// Batches of one partition as the client streams them, in order.
pub type Batches = BoxStream<'static, Result<Batch, ErrorCode>>;

/// A consumer of one topic. Cheap to clone; all clones share its connections.
#[derive(Clone)]
pub struct Consumer {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: FluvioClusterConfig,
    topic: String,
    id: String,
    transforms: Vec<Transform>,
    modules: OnceCell<Vec<Module>>,
    admin: Mutex<Option<Arc<FluvioAdmin>>>,
    /// The way to each partition's leader, as far as it is known.
    leaders: Mutex<HashMap<u32, i32>>,
    spus: Mutex<HashMap<i32, Line>>,
    /// The latest stream of each partition. Offsets are reported under its number.
    sessions: std::sync::Mutex<HashMap<u32, Session>>,
}

/// A connection to one SPU, shared by all that talk with it.
#[derive(Clone)]
struct Line {
    socket: SharedMultiplexerSocket,
    config: Arc<ClientConfig>,
    versions: Versions,
}

/// A stream, as the cluster knows it.
#[derive(Clone)]
struct Session {
    line: Line,
    id: u32,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("topic", &self.shared.topic)
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl Line {
    async fn open(config: ClientConfig) -> Result<Self, Fault> {
        let (socket, config, versions) = config.connect().await.map_err(Fault::passing)?.split();
        Ok(Self { socket: MultiplexerSocket::shared(socket), config, versions })
    }

    fn serial(&self) -> VersionedSerialSocket {
        VersionedSerialSocket::new(Arc::clone(&self.socket), Arc::clone(&self.config), self.versions.clone())
    }
}

impl Consumer {
    /// A consumer of the topic in `settings`, for the connector called `connector`. Reads the client's
    /// profile; connects when it is first asked for something.
    ///
    /// # Errors
    /// The profile cannot be used, as a sentence.
    pub fn new(settings: &FluvioSettings, connector: &str) -> Result<Self, String> {
        let mut cluster = match &settings.profile {
            None => FluvioClusterConfig::load()
                .map_err(|error| format!("the Fluvio client's profile cannot be used: {error}"))?,
            Some(profile) => FluvioClusterConfig::load_with_profile(profile)
                .map_err(|error| format!("the Fluvio client's profile cannot be used: {error}"))?
                .ok_or_else(|| format!("the Fluvio client has no profile {profile}"))?,
        };
        cluster.client_id = Some(format!("fluvio_connector_{connector}"));
        Ok(Self {
            shared: Arc::new(Shared {
                cluster,
                topic: settings.topic.name.clone(),
                id: settings.consumer.id.clone(),
                transforms: settings.transforms.clone(),
                modules: OnceCell::new(),
                admin: Mutex::new(None),
                leaders: Mutex::default(),
                spus: Mutex::default(),
                sessions: std::sync::Mutex::default(),
            }),
        })
    }

    /// Where the cluster is, for messages.
    pub fn endpoint(&self) -> &str {
        &self.shared.cluster.endpoint
    }

    /// How many partitions the topic has; `None` when there is no topic. Cancel-safe.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn partition_count(&self) -> Result<Option<u32>, Fault> {
        let topic = &self.shared.topic;
        let topics = self
            .ask(|admin| async move { admin.list::<TopicSpec, String>(vec![topic.clone()]).await })
            .await?;
        Ok(topics.iter().find(|found| found.name == *topic).map(|found| found.spec.replicas().partitions()))
    }

    /// Creates the topic. Cancel-safe: it may have been created.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn create_topic(&self, topic: &TopicSettings) -> Result<(), Fault> {
        let spec = topic_spec(topic);
        self.ask(|admin| async move { admin.create(topic.name.clone(), false, spec).await }).await
    }

    /// What the cluster holds of a partition, as far as it is committed. Cancel-safe.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn retained(&self, partition: u32) -> Result<Retained, Fault> {
        let replica = self.replica(partition);
        let request = FetchOffsetsRequest::new(self.shared.topic.clone(), partition);
        let answer = self.on_line(partition, |line| async move {
            line.serial().send_receive(request).await.map_err(Fault::passing)
        });
        let answer = answer.await?.find_partition(&replica);
        let answer =
            answer.ok_or_else(|| Fault::passing(format!("the cluster said nothing of {replica}")))?;
        match answer.error_code {
            ErrorCode::None => Ok(Retained { earliest: answer.start_offset, end: answer.last_stable_offset }),
            code => {
                self.shared.leaders.lock().await.remove(&partition);
                Err(Fault::of(&code))
            }
        }
    }

    /// Streams a partition's batches from the one that holds `offset`, at most `max_bytes` at once, over a
    /// connection of its own. The stream ends, or yields an error, at the first fault;
    /// [`ErrorCode::MessageTooLarge`] says that not even the first batch fits into an answer.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(&self, partition: u32, offset: i64, max_bytes: u32) -> Result<Batches, Fault> {
        let opened = self.in_time(partition, async {
            let request = DefaultStreamFetchRequest::builder()
                .topic(self.shared.topic.clone())
                .partition(partition)
                .fetch_offset(offset)
                .isolation(Isolation::ReadCommitted)
                .max_bytes(i32::try_from(max_bytes).unwrap_or(i32::MAX))
                .consumer_id(Some(self.shared.id.clone()))
                .build()
                .map_err(Fault::passing)?;
            let spu = self.leader_of(partition).await?;
            let line = self.dial(spu).await?;
            Answers::open(line, request).await
        });
        let answers = opened.await??;
        let stream = futures_util::stream::unfold(
            (answers, self.clone(), partition),
            async |(mut answers, consumer, partition)| {
                let item = answers.next(&consumer, partition).await?;
                Some((item, (answers, consumer, partition)))
            },
        );
        Ok(stream.boxed())
    }

    /// Tells Fluvio that all before `next_offset` is done, for `fluvio consumer list`. Fluvio keeps the
    /// offset of the last record done, so nothing is told while there is none. Cancel-safe.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn report(&self, partition: u32, next_offset: i64) -> Result<(), Fault> {
        if next_offset < 1 {
            return Ok(());
        }
        // Fluvio takes an offset under the number of a stream that was opened in the consumer's name.
        let session = self.sessions().get(&partition).cloned();
        let Some(Session { line, id }) = session else {
            return Err(Fault::passing("nothing was read of the partition yet"));
        };
        let request = UpdateConsumerOffsetRequest::new(next_offset - 1, id);
        let answer = tokio::time::timeout(ANSWER, async { line.serial().send_receive(request).await });
        let answer = answer.await.map_err(|_| self.silence("an SPU"))?.map_err(Fault::passing)?;
        match answer.error_code {
            ErrorCode::None => Ok(()),
            code => Err(Fault::of(&code)),
        }
    }

    /// The transforms, ready for one reader; `None` where there are none. The modules are loaded once.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn chain(&self) -> Result<Option<Chain>, Fault> {
        if self.shared.transforms.is_empty() {
            return Ok(None);
        }
        let modules = self.shared.modules.get_or_try_init(|| self.load_modules()).await?.clone();
        // Compiling takes a core for a while.
        let started = tokio::task::spawn_blocking(move || Chain::start(&modules)).await;
        started.map_err(Fault::passing)?.map(Some)
    }

    async fn load_modules(&self) -> Result<Vec<Module>, Fault> {
        let mut modules = Vec::new();
        for transform in &self.shared.transforms {
            let name = &transform.uses;
            let mut found = self
                .ask(|admin| async move { admin.list::<SmartModuleSpec, String>(vec![name.clone()]).await })
                .await?;
            // Which versions a name means is known to the cluster alone; the client takes the last too.
            let module = found.pop().ok_or_else(|| Fault::Refused {
                reason: format!("there is no SmartModule {name}"),
                remedy: "Load it (fluvio hub sm download, or fluvio sm create), or mend `transforms`",
            })?;
            let wasm = module.spec.wasm.as_raw_wasm().map_err(Fault::passing)?;
            modules.push(Module::new(transform.clone(), wasm));
        }
        Ok(modules)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Session>> {
        self.shared.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn replica(&self, partition: u32) -> ReplicaKey {
        ReplicaKey::new(self.shared.topic.clone(), partition)
    }

    /// Asks the cluster's controller.
    async fn ask<'a, T, F>(&'a self, question: impl FnOnce(Arc<FluvioAdmin>) -> F) -> Result<T, Fault>
    where
        F: Future<Output = anyhow::Result<T>> + 'a,
    {
        let answer = tokio::time::timeout(ANSWER, async {
            let admin = self.admin().await?;
            question(admin).await.map_err(|error| Fault::of_any(&error))
        });
        let answer = answer.await.unwrap_or_else(|_| Err(self.silence("the controller")));
        if answer.is_err() {
            *self.shared.admin.lock().await = None;
        }
        answer
    }

    async fn admin(&self) -> Result<Arc<FluvioAdmin>, Fault> {
        let mut admin = self.shared.admin.lock().await;
        if let Some(admin) = &*admin {
            return Ok(Arc::clone(admin));
        }
        let fresh = FluvioAdmin::connect_with_config(&self.shared.cluster).await;
        let fresh = Arc::new(fresh.map_err(|error| Fault::of_any(&error))?);
        Ok(Arc::clone(admin.insert(fresh)))
    }

    /// Asks the partition's leader, in time.
    async fn on_line<T, F>(&self, partition: u32, question: impl FnOnce(Line) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.in_time(partition, async { question(self.line(partition).await?).await }).await?
    }

    /// Waits for an answer of the partition's leader. One that does not come takes the connection out of use.
    async fn in_time<T>(&self, partition: u32, answer: impl Future<Output = T>) -> Result<T, Fault> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.hang_up(partition).await;
                Err(self.silence(&format!("the SPU of partition {partition}")))
            }
        }
    }

    fn silence(&self, who: &str) -> Fault {
        Fault::passing(format!("{who} of {} did not answer within {} s", self.endpoint(), ANSWER.as_secs()))
    }

    async fn hang_up(&self, partition: u32) {
        if let Some(spu) = self.shared.leaders.lock().await.remove(&partition) {
            self.shared.spus.lock().await.remove(&spu);
        }
    }

    /// The connection to the partition's leader.
    async fn line(&self, partition: u32) -> Result<Line, Fault> {
        let spu = self.leader_of(partition).await?;
        let mut spus = self.shared.spus.lock().await;
        if let Some(line) = spus.get(&spu).filter(|line| !line.socket.is_stale()) {
            return Ok(line.clone());
        }
        spus.remove(&spu);
        drop(spus);
        match self.dial(spu).await {
            Ok(line) => Ok(self.shared.spus.lock().await.entry(spu).or_insert(line).clone()),
            Err(fault) => {
                // The leader may be another by now.
                self.shared.leaders.lock().await.remove(&partition);
                Err(fault)
            }
        }
    }

    /// The SPU that leads the partition, as far as is known.
    async fn leader_of(&self, partition: u32) -> Result<i32, Fault> {
        let known = self.shared.leaders.lock().await.get(&partition).copied();
        if let Some(spu) = known {
            return Ok(spu);
        }
        let spu = self.ask_leader(partition).await?;
        self.shared.leaders.lock().await.insert(partition, spu);
        Ok(spu)
    }

    async fn ask_leader(&self, partition: u32) -> Result<i32, Fault> {
        let name = self.replica(partition).to_string();
        let partitions = self.ask(|admin| async move { admin.all::<PartitionSpec>().await }).await?;
        let found = partitions.iter().find(|found| found.name == name);
        found
            .map(|found| found.spec.leader)
            .ok_or_else(|| Fault::passing(format!("there is no partition {name} yet")))
    }

    async fn dial(&self, id: i32) -> Result<Line, Fault> {
        let spus = self.ask(|admin| async move { admin.all::<SpuSpec>().await }).await?;
        let spu = spus.iter().find(|spu| spu.spec.id == id);
        let spu = spu.ok_or_else(|| Fault::passing(format!("the cluster knows no SPU {id}")))?;
        let config =
            ClientConfig::try_from(self.shared.cluster.clone()).map_err(|error| Fault::of_any(&error))?;
        let mut config = config.with_prefix_sni_domain(&spu.name);
        if let Some(client_id) = &self.shared.cluster.client_id {
            config.set_client_id(client_id);
        }
        let address = match &spu.spec.public_endpoint_local {
            Some(local) if config.use_spu_local_address() => format!("{}:{}", local.host, local.port),
            _ => spu.spec.public_endpoint.addr(),
        };
        config.set_addr(address);
        Line::open(config).await
    }
}
