//! A consumer of a Fluvio topic, over the published client. Part of the framework's room.
//!
//! Mirrors `consumer_stream_from_config` and `ensure_topic_exists`: cluster profile and TLS as the client
//! finds them, the framework's client id, transforms as SmartModule invocations. Goes further: one
//! stream per partition from any absolute offset, read-committed, without retries of its own (the
//! client's move the offset of partitions that had no fault); no record is lost where an answer is cut
//! off; and an offset can be reported that is not the last one yielded.
//!
//! Every question has a time limit. An answer that does not come drops the connection it was asked
//! on, so the next question goes over a new one.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{BATCH_HEADER_SIZE, Batch, RawRecords, RecordSet, ReplicaKey};
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, SegmentBasedPolicy, TopicSpec, TopicStorageConfig,
};
use fluvio::{
    FluvioAdmin, FluvioClusterConfig, FluvioError, Isolation, SmartModuleExtraParams, SmartModuleInvocation,
    SmartModuleInvocationWasm, SmartModuleKind,
};
use fluvio_socket::{
    AsyncResponse, ClientConfig, MultiplexerSocket, SharedMultiplexerSocket, VersionedSerialSocket, Versions,
};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::consumer_offset::UpdateConsumerOffsetRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
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

const LOOK_AT_TRANSFORMS: &str = "Look at `transforms`: the SmartModule, and what stands under its `with`";

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
    /// The next batch does not fit into an answer.
    TooSmall,
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
            ErrorCode::MessageTooLarge => Self::TooSmall,
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
            | ErrorCode::SmartModuleMemoryLimitExceeded { .. } => {
                Self::Refused { reason: code.to_string(), remedy: LOOK_AT_TRANSFORMS }
            }
            // Their words may quote a parameter or a record.
            ErrorCode::SmartModuleChainInitError(_)
            | ErrorCode::SmartModuleInitError(_)
            | ErrorCode::SmartModuleLookBackError(_)
            | ErrorCode::SmartModuleError => {
                let reason = "the cluster cannot start the transforms; the SPU's log says why".to_owned();
                Self::Refused { reason, remedy: LOOK_AT_TRANSFORMS }
            }
            ErrorCode::Other(text) if text.starts_with("SmartModule err") => {
                let reason = "a transform broke off; the SPU's log says why".to_owned();
                Self::Refused { reason, remedy: LOOK_AT_TRANSFORMS }
            }
            ErrorCode::CompressionError => Self::Refused {
                reason: "a batch cannot be decompressed".to_owned(),
                remedy: "Look at the SPU's storage, and at what produced the batch",
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
    admin: Mutex<Option<Arc<FluvioAdmin>>>,
    /// The way to each partition's leader, as far as it is known.
    leaders: Mutex<HashMap<u32, i32>>,
    spus: Mutex<HashMap<i32, Line>>,
    /// The latest stream of each partition. Offsets are reported under its number.
    sessions: Mutex<HashMap<u32, Session>>,
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

/// The answers to one streaming request, taken apart into batches.
struct Answers {
    line: Line,
    answers: AsyncResponse<DefaultStreamFetchRequest>,
    batches: VecDeque<Batch<RawRecords>>,
    /// The session under which the first answer came.
    id: Option<u32>,
    /// An error that comes after the batches.
    failed: Option<ErrorCode>,
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

impl Answers {
    async fn open(line: Line, request: DefaultStreamFetchRequest) -> Result<Self, Fault> {
        let version = line.versions.lookup_version::<DefaultStreamFetchRequest>();
        let request = line.serial().new_request(request, version);
        // The cluster sends one answer ahead of what was acknowledged.
        let answers = line.socket.create_stream(request, 4).await.map_err(Fault::passing)?;
        Ok(Self { line, answers, batches: VecDeque::new(), id: None, failed: None })
    }

    /// The next batch, or why there is none; `None` when the stream has ended.
    async fn next(&mut self, consumer: &Consumer, partition: u32) -> Option<Result<Batch, ErrorCode>> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                // The client's own error text names the codec only.
                return Some(Batch::try_from(batch).map_err(|_| ErrorCode::CompressionError));
            }
            if let Some(code) = self.failed.take() {
                return Some(Err(code));
            }
            let answer = match self.answers.next().await? {
                Ok(answer) => answer,
                Err(error) => return Some(Err(ErrorCode::Other(error.to_string()))),
            };
            let is_open = answer.partition.error_code == ErrorCode::None;
            if is_open && self.id.replace(answer.stream_id).is_none() {
                let session = Session { line: self.line.clone(), id: answer.stream_id };
                consumer.shared.sessions.lock().await.insert(partition, session);
            }
            if let Err(code) = self.take(answer.partition).await {
                return Some(Err(code));
            }
        }
    }

    /// Takes the batches of an answer, and asks for what follows them.
    ///
    /// An answer is cut off where its bytes are used up, often in the middle of a batch. The client's own
    /// stream takes such a batch for a shorter one and goes on behind it, which loses its last records.
    async fn take(
        &mut self,
        answer: FetchablePartitionResponse<RecordSet<RawRecords>>,
    ) -> Result<(), ErrorCode> {
        let FetchablePartitionResponse { error_code, next_filter_offset, records, .. } = answer;
        let came = !records.batches.is_empty();
        self.batches.extend(records.batches.into_iter().take_while(is_whole));
        let next = match self.batches.back() {
            _ if error_code != ErrorCode::None => None,
            Some(last) => Some(last.get_last_offset() + 1),
            None if came => return Err(ErrorCode::MessageTooLarge),
            None => (next_filter_offset > 0).then_some(next_filter_offset),
        };
        if let (Some(offset), Some(session_id)) = (next, self.id) {
            let request = UpdateOffsetsRequest::new(vec![OffsetUpdate { offset, session_id }]);
            let told = tokio::time::timeout(ANSWER, self.line.serial().send_receive(request)).await;
            told.map_err(|_| ErrorCode::Other("the SPU does not answer".to_owned()))?
                .map_err(|error| ErrorCode::Other(error.to_string()))?;
        }
        self.failed = error_code.is_error().then_some(error_code);
        Ok(())
    }
}

/// Whether all bytes of the batch came.
fn is_whole(batch: &Batch<RawRecords>) -> bool {
    let schema = if batch.header.has_schema() { size_of::<u32>() } else { 0 };
    usize::try_from(batch.batch_len())
        .is_ok_and(|size| size == BATCH_HEADER_SIZE + schema + batch.records().0.len())
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
                .smartmodules(self.shared.transforms.clone())
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
        let session = self.shared.sessions.lock().await.get(&partition).cloned();
        let Some(Session { line, id }) = session else {
            return Err(Fault::passing("nothing was read of the partition yet"));
        };
        let request = UpdateConsumerOffsetRequest::new(next_offset - 1, id);
        let answer = tokio::time::timeout(ANSWER, async { line.serial().send_receive(request).await });
        let answer = answer.await.map_err(|_| self.silence())?.map_err(Fault::passing)?;
        match answer.error_code {
            ErrorCode::None => Ok(()),
            code => Err(Fault::of(&code)),
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
    let mut spec =
        TopicSpec::new_computed(topic.partitions, topic.replication, Some(topic.ignore_rack_assignment));
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
