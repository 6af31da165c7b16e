//! A consumer of a Fluvio topic, over the published client. Part of the framework's room.
//!
//! Mirrors `consumer_stream_from_config` and `ensure_topic_exists`: cluster profile and TLS as the client
//! finds them, the framework's client id, transforms as SmartModule invocations. Goes further: one
//! stream per partition from any absolute offset, read-committed, without retries of its own (those
//! move the offset of partitions that had no fault); and an offset can be reported that is not the
//! last one yielded, which the client's own stream does not offer.
//!
//! Every question has a time limit. An answer that does not come drops the connection it was asked
//! on, so the next question goes over a new one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use fluvio::dataplane::api::Request;
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{Batch, ReplicaKey};
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, SegmentBasedPolicy, TopicSpec, TopicStorageConfig,
};
use fluvio::metrics::ClientMetrics;
use fluvio::spu::SpuDirectory;
use fluvio::{
    ConsumerConfig, FluvioAdmin, FluvioClusterConfig, FluvioError, Isolation, Offset, PartitionConsumer,
    SmartModuleExtraParams, SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use fluvio_socket::{
    AsyncResponse, ClientConfig, MultiplexerSocket, SharedMultiplexerSocket, VersionedSerialSocket, Versions,
};
use fluvio_spu_schema::server::consumer_offset::UpdateConsumerOffsetRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::Mutex;

use super::config::{Compression, FluvioSettings, Lookback, TopicSettings, Transform};
use crate::source::Retained;

/// How long an answer may take, connecting included.
const ANSWER: Duration = Duration::from_secs(10);
/// One answer's bytes when the configuration says nothing: what the client itself asks for.
const MAX_BYTES: u32 = 1_000_000;
/// The same with transforms. A cluster silently skips a produced batch whose transformed records are
/// larger than an answer may be, so this is the most that its producers send at once.
const MAX_BYTES_TRANSFORMED: u32 = 32 << 20;

/// Batches of one partition as the client streams them, in order.
pub type Batches = BoxStream<'static, Result<Batch, ErrorCode>>;

/// Why the cluster did not do what it was asked.
#[derive(Debug)]
pub enum Fault {
    /// It may do it later.
    Passing(String),
    /// There is no such topic.
    NoTopic,
    /// The offset asked for is not there, or not any more.
    OutOfRange,
    /// The operator must act.
    Refused {
        /// What was refused, in words that hold nothing of a record.
        reason: String,
        /// What the operator can do.
        remedy: &'static str,
    },
}

impl Fault {
    fn passing(error: impl std::fmt::Display) -> Self {
        Self::Passing(error.to_string())
    }

    /// What follows from an error code of the cluster. Says nothing of a record: the text that the client
    /// makes of a SmartModule's error holds the record's key and value.
    pub fn of(code: &ErrorCode) -> Self {
        match code {
            ErrorCode::OffsetOutOfRange | ErrorCode::OffsetEvicted { .. } => Self::OutOfRange,
            ErrorCode::TopicNotFound | ErrorCode::TopicDeleted => Self::NoTopic,
            ErrorCode::PermissionDenied => Self::Refused {
                reason: "permission denied".to_owned(),
                remedy: "Look at the profile's certificate and the cluster's policy: the connector reads topics and \
                         partitions, and consumes",
            },
            ErrorCode::SmartModuleRuntimeError(error) => Self::Refused {
                reason: format!(
                    "a transform failed at offset {} (its words may quote the record, so they are left out)",
                    error.offset
                ),
                remedy: "Try the record with `fluvio consume` and the SmartModule, then mend one of the two",
            },
            ErrorCode::SmartModuleNotFound { name } => Self::Refused {
                reason: format!("there is no SmartModule {name}"),
                remedy: "Load it (fluvio hub sm download, or fluvio sm create), or mend `transforms`",
            },
            ErrorCode::SmartModuleInvalid { .. }
            | ErrorCode::SmartModuleInvalidExports { .. }
            | ErrorCode::SmartModuleChainInitError(_)
            | ErrorCode::SmartModuleInitError(_)
            | ErrorCode::SmartModuleLookBackError(_)
            | ErrorCode::SmartModuleMemoryLimitExceeded { .. }
            | ErrorCode::SmartModuleError => Self::Refused {
                reason: code.to_string(),
                remedy: "Look at `transforms`: the SmartModule, and what stands under its `with`",
            },
            other => Self::passing(other),
        }
    }

    fn of_fluvio(error: &FluvioError) -> Self {
        match error {
            FluvioError::TopicNotFound(_) => Self::NoTopic,
            other => Self::passing(other),
        }
    }

    fn of_any(error: &anyhow::Error) -> Self {
        if let Some(code) = error.downcast_ref::<ErrorCode>() {
            Self::of(code)
        } else if let Some(error) = error.downcast_ref::<FluvioError>() {
            Self::of_fluvio(error)
        } else {
            Self::passing(error)
        }
    }
}

/// A consumer of one topic. Cheap to clone; all clones share its connections.
#[derive(Clone)]
pub struct Consumer {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: FluvioClusterConfig,
    topic: String,
    id: String,
    transforms: Vec<SmartModuleInvocation>,
    max_bytes: u32,
    metrics: Arc<ClientMetrics>,
    admin: Mutex<Option<Arc<FluvioAdmin>>>,
    /// The way to each partition's leader, as far as it is known.
    leaders: Mutex<HashMap<u32, i32>>,
    spus: Mutex<HashMap<i32, Line>>,
    /// Streams that were opened only so that offsets can be reported under their number.
    sessions: Mutex<HashMap<u32, Session>>,
}

/// A connection to one SPU, shared by all that talk with it.
#[derive(Clone)]
struct Line {
    socket: SharedMultiplexerSocket,
    config: Arc<ClientConfig>,
    versions: Versions,
}

struct Session {
    line: SharedMultiplexerSocket,
    id: u32,
    /// The cluster ends the session with the stream.
    _stream: AsyncResponse<DefaultStreamFetchRequest>,
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

    async fn stream<R: Request + Send + Sync>(
        &self,
        request: R,
        version: Option<i16>,
    ) -> Result<AsyncResponse<R>, FluvioError> {
        let request = self.serial().new_request(request, version);
        // The cluster sends one answer ahead of what was acknowledged.
        Ok(self.socket.create_stream(request, 4).await?)
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
        let transformed = !settings.transforms.is_empty();
        let max_bytes = settings.consumer.max_bytes.unwrap_or(if transformed {
            MAX_BYTES_TRANSFORMED
        } else {
            MAX_BYTES
        });
        Ok(Self {
            shared: Arc::new(Shared {
                cluster,
                topic: settings.topic.name.clone(),
                id: settings.consumer.id.clone(),
                transforms: settings.transforms.iter().map(invocation).collect(),
                max_bytes,
                metrics: Arc::new(ClientMetrics::new()),
                admin: Mutex::new(None),
                leaders: Mutex::default(),
                spus: Mutex::default(),
                sessions: Mutex::default(),
            }),
        })
    }

    /// Where the cluster is, for messages.
    pub fn endpoint(&self) -> &str {
        &self.shared.cluster.endpoint
    }

    /// The bytes of one answer, unless a reader needs more.
    pub fn max_bytes(&self) -> u32 {
        self.shared.max_bytes
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

    /// Streams a partition's batches from the one that holds `offset`, at most `max_bytes` at once.
    /// The stream ends, or yields an error, at the first fault.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(&self, partition: u32, offset: i64, max_bytes: u32) -> Result<Batches, Fault> {
        let config = ConsumerConfig::builder()
            .max_bytes(i32::try_from(max_bytes).unwrap_or(i32::MAX))
            .isolation(Isolation::ReadCommitted)
            .smartmodule(self.shared.transforms.clone())
            .build()
            .map_err(|error| Fault::of_any(&error))?;
        let offset = Offset::absolute(offset).map_err(|error| Fault::of_fluvio(&error))?;
        let (topic, metrics) = (self.shared.topic.clone(), Arc::clone(&self.shared.metrics));
        let consumer = PartitionConsumer::new(topic, partition, Arc::new(self.clone()), metrics);
        let stream = self.in_time(partition, consumer.stream_batches_with_config(offset, config));
        Ok(stream.await?.map_err(|error| Fault::of_any(&error))?.boxed())
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
        let offset = next_offset - 1;
        let told = self.on_line(partition, |line| async move {
            let mut sessions = self.shared.sessions.lock().await;
            if sessions.get(&partition).is_none_or(|session| !Arc::ptr_eq(&session.line, &line.socket)) {
                sessions.insert(partition, self.open_session(&line, partition, offset).await?);
            }
            let id = sessions.get(&partition).map_or(0, |session| session.id);
            let request = UpdateConsumerOffsetRequest::new(offset, id);
            let answer = line.serial().send_receive(request).await.map_err(Fault::passing)?;
            match answer.error_code {
                ErrorCode::None => Ok(()),
                code => {
                    sessions.remove(&partition);
                    Err(Fault::of(&code))
                }
            }
        });
        told.await
    }

    /// Offsets are reported under the number of a stream that has the consumer's name. The streams that
    /// are read from hide theirs, so one more is opened, of which only the first answer is taken.
    async fn open_session(&self, line: &Line, partition: u32, offset: i64) -> Result<Session, Fault> {
        let request = DefaultStreamFetchRequest::builder()
            .topic(self.shared.topic.clone())
            .partition(partition)
            .fetch_offset(offset)
            .isolation(Isolation::ReadCommitted)
            .max_bytes(1)
            .consumer_id(Some(self.shared.id.clone()))
            .build()
            .map_err(Fault::passing)?;
        let version = line.versions.lookup_version::<DefaultStreamFetchRequest>();
        let mut stream = line.stream(request, version).await.map_err(|error| Fault::of_fluvio(&error))?;
        match stream.next().await {
            Some(Ok(answer)) if answer.partition.error_code == ErrorCode::None => {
                Ok(Session { line: Arc::clone(&line.socket), id: answer.stream_id, _stream: stream })
            }
            Some(Ok(answer)) => Err(Fault::of(&answer.partition.error_code)),
            Some(Err(error)) => Err(Fault::passing(error)),
            None => Err(Fault::passing("the stream ended")),
        }
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
        let answer = answer.await.unwrap_or_else(|_| Err(self.silence()));
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

    /// Waits for an answer of the partition's leader. One that does not come, or that the connection
    /// failed to bring, takes the connection out of use.
    async fn in_time<T>(&self, partition: u32, answer: impl Future<Output = T>) -> Result<T, Fault> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.hang_up(partition).await;
                Err(self.silence())
            }
        }
    }

    fn silence(&self) -> Fault {
        Fault::passing(format!("{} did not answer within {} s", self.endpoint(), ANSWER.as_secs()))
    }

    async fn hang_up(&self, partition: u32) {
        if let Some(spu) = self.shared.leaders.lock().await.remove(&partition) {
            self.shared.spus.lock().await.remove(&spu);
        }
    }

    /// The connection to the partition's leader.
    async fn line(&self, partition: u32) -> Result<Line, Fault> {
        let known = self.shared.leaders.lock().await.get(&partition).copied();
        let spu = match known {
            Some(spu) => spu,
            None => {
                let spu = self.leader(partition).await?;
                self.shared.leaders.lock().await.insert(partition, spu);
                spu
            }
        };
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

    async fn leader(&self, partition: u32) -> Result<i32, Fault> {
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

/// What the client's partition consumer asks of whoever knows the way to the leaders.
#[async_trait]
impl SpuDirectory for Consumer {
    async fn create_serial_socket(&self, replica: &ReplicaKey) -> Result<VersionedSerialSocket, FluvioError> {
        Ok(self.line(replica.partition).await.map_err(fluvio_error)?.serial())
    }

    async fn create_stream_with_version<R: Request>(
        &self,
        replica: &ReplicaKey,
        request: R,
        version: i16,
    ) -> Result<AsyncResponse<R>, FluvioError>
    where
        R: Sync + Send,
    {
        self.line(replica.partition).await.map_err(fluvio_error)?.stream(request, Some(version)).await
    }
}

fn fluvio_error(fault: Fault) -> FluvioError {
    FluvioError::Other(match fault {
        Fault::Passing(what) => what,
        other => format!("{other:?}"),
    })
}

fn invocation(transform: &Transform) -> SmartModuleInvocation {
    let lookback = transform
        .lookback
        .map(|Lookback { last, age }| fluvio_smartmodule::dataplane::smartmodule::Lookback { last, age });
    SmartModuleInvocation {
        wasm: SmartModuleInvocationWasm::Predefined(transform.uses.clone()),
        kind: SmartModuleKind::Generic(Default::default()),
        params: SmartModuleExtraParams::new(transform.with.clone(), lookback),
        name: Some(transform.uses.clone()),
    }
}

fn topic_spec(topic: &TopicSettings) -> TopicSpec {
    let mut spec = TopicSpec::new_computed(topic.partitions, topic.replication, None);
    if let Some(retention) = topic.retention {
        let time_in_seconds = u32::try_from(retention.as_secs()).unwrap_or(u32::MAX);
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds }));
    }
    if topic.segment_size.is_some() || topic.max_partition_size.is_some() {
        let (segment_size, max_partition_size) = (topic.segment_size, topic.max_partition_size);
        spec.set_storage(TopicStorageConfig { segment_size, max_partition_size });
    }
    if let Some(compression) = topic.compression {
        spec.set_compression_type(match compression {
            Compression::Any => CompressionAlgorithm::Any,
            Compression::None => CompressionAlgorithm::None,
            Compression::Gzip => CompressionAlgorithm::Gzip,
            Compression::Snappy => CompressionAlgorithm::Snappy,
            Compression::Lz4 => CompressionAlgorithm::Lz4,
            Compression::Zstd => CompressionAlgorithm::Zstd,
        });
    }
    spec
}
