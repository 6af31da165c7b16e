//! The source against a double of the cluster, which gives it the client's own streams with every fault.
//! Time is paused: a wait passes as soon as nothing else goes on.

use std::sync::atomic::AtomicU32;

use fluvio::dataplane::record::{Record, RecordKey};
use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::framework::config::{ConsumerSettings, Partitions, StartAt, Transform};
use crate::framework::smartmodule::Module;
use crate::source::Fetched;

const MAX_BYTES: u32 = 1 << 20;
/// Keeps the records whose value holds the parameter `contains`.
const FILTER: &[u8] = include_bytes!("../../../tests/fluvio/smartmodule/filter-contains.wasm");
/// Replaces in each value the parameter `from` by the parameter `to`.
const MAP: &[u8] = include_bytes!("../../../tests/fluvio/smartmodule/map-replace.wasm");
const FIRST_STAMP: i64 = 1_700_000_000_000;

/// Longer than anything takes; it passes at once where nothing else goes on.
const IN_VAIN: Duration = Duration::from_secs(400);

type Item = Result<Batch, ErrorCode>;

/// A cluster of which each answer is the test's.
#[derive(Clone)]
struct Double {
    state: Arc<Mutex<State>>,
    opened: mpsc::UnboundedSender<Opened>,
    created: Arc<AtomicU32>,
}

struct State {
    partitions: Option<u32>,
    retained: Retained,
    retained_faults: u32,
    reports: Vec<(u32, i64)>,
    modules: Vec<Module>,
}

/// A stream that the source has opened. Dropping it ends the stream.
struct Opened {
    partition: u32,
    offset: i64,
    max_bytes: u32,
    items: mpsc::UnboundedSender<Item>,
}

impl Opened {
    fn send(&self, item: Item) {
        self.items.send(item).expect("the stream is being read");
    }
}

impl Double {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test holds it")
    }
}

impl Double {
    /// The cluster's transforms: the module, and one parameter.
    fn run_modules(&self, modules: &[(&[u8], &str, &str)]) {
        let module = |(wasm, name, value): &(&[u8], &str, &str)| {
            let with = BTreeMap::from([((*name).to_owned(), (*value).to_owned())]);
            Module::new(Transform { uses: "module".to_owned(), with }, *wasm)
        };
        self.state().modules = modules.iter().map(module).collect();
    }
}

impl Cluster for Double {
    type Batches = stream::BoxStream<'static, Item>;

    async fn partition_count(&self) -> Result<Option<u32>, Fault> {
        Ok(self.state().partitions)
    }

    async fn create_topic(&self, topic: &TopicSettings) -> Result<(), Fault> {
        self.state().partitions = Some(topic.partitions);
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn retained(&self, _partition: u32) -> Result<Retained, Fault> {
        let mut state = self.state();
        if state.retained_faults > 0 {
            state.retained_faults -= 1;
            return Err(Fault::Passing("the SPU is away".to_owned()));
        }
        Ok(state.retained)
    }

    async fn read(&self, partition: u32, offset: i64, max_bytes: u32) -> Result<Self::Batches, Fault> {
        let (items, receiver) = channel();
        self.opened.send(Opened { partition, offset, max_bytes, items }).expect("the test looks at it");
        let items = stream::unfold(receiver, async |mut receiver: UnboundedReceiver<Item>| {
            Some((receiver.recv().await?, receiver))
        });
        Ok(Box::pin(items))
    }

    async fn chain(&self) -> Result<Option<Chain>, Fault> {
        let modules = self.state().modules.clone();
        if modules.is_empty() { Ok(None) } else { Chain::start(&modules).map(Some) }
    }

    async fn report(&self, partition: u32, next_offset: i64) -> Result<(), Fault> {
        self.state().reports.push((partition, next_offset));
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the test sends a few items")]
fn channel<T>() -> (mpsc::UnboundedSender<T>, UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

/// A source over a double, and what the double sees.
struct Stage {
    double: Double,
    opened: UnboundedReceiver<Opened>,
    source: FluvioSource<Double>,
}

impl Stage {
    fn new(partitions: u32, retained: Retained) -> Self {
        Self::with(partitions, retained, &settings(), 1 << 20)
    }

    fn with(partitions: u32, retained: Retained, settings: &FluvioSettings, budget: usize) -> Self {
        let partitions = (partitions > 0).then_some(partitions);
        let (sender, opened) = channel();
        let state =
            State { partitions, retained, retained_faults: 0, reports: Vec::new(), modules: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let double = Double { state, opened: sender, created: Arc::default() };
        let source = FluvioSource::over(double.clone(), settings, Budget::new(budget));
        Self { double, opened, source }
    }

    /// One partition, begun at `offset` as tenure 1, and its stream.
    async fn reading(retained: Retained, offset: i64) -> (Self, Opened) {
        let mut stage = Self::new(1, retained);
        let opened = stage.begin(offset, 1).await;
        (stage, opened)
    }

    async fn begin(&mut self, offset: i64, tenure: i64) -> Opened {
        let partition = self.assigned().await;
        self.source.begin(&partition, Tenure(tenure), offset);
        self.opened().await
    }

    async fn assigned(&mut self) -> Partition {
        match self.event().await {
            SourceEvent::Assigned { partition, .. } => partition,
            other => panic!("{other:?} in place of a partition"),
        }
    }

    async fn opened(&mut self) -> Opened {
        let opened = tokio::time::timeout(IN_VAIN, self.opened.recv()).await;
        opened.expect("waited in vain for a stream").expect("a stream")
    }

    /// The next event that is not about ends.
    async fn event(&mut self) -> SourceEvent {
        self.said().await.expect("no error")
    }

    async fn said(&mut self) -> Event {
        loop {
            let next = tokio::time::timeout(IN_VAIN, self.source.next()).await;
            match next.expect("waited in vain for an event") {
                Ok(SourceEvent::Given(_) | SourceEvent::Ends(_) | SourceEvent::Trouble(_)) => {}
                other => return other,
            }
        }
    }

    async fn run(&mut self) -> Fetched {
        match self.event().await {
            SourceEvent::Fetched(run) => run,
            other => panic!("{other:?} in place of records"),
        }
    }

    /// Why the source ends, whatever it says before.
    async fn failure(&mut self) -> SourceError {
        loop {
            let next = tokio::time::timeout(IN_VAIN, self.source.next()).await;
            if let Err(error) = next.expect("waited in vain for the end") {
                return error;
            }
        }
    }
}

fn settings() -> FluvioSettings {
    FluvioSettings {
        topic: TopicSettings { partitions: 2, ..TopicSettings::named("embeddings") },
        create_topic: false,
        profile: None,
        consumer: ConsumerSettings {
            id: "docs".to_owned(),
            partitions: Partitions::All,
            max_bytes: Some(MAX_BYTES),
            start: StartAt::Beginning,
            report_every: Some(Duration::from_secs(10)),
        },
        transforms: Vec::new(),
    }
}

/// A batch from `base` on. Each record's value is its offset, and its time too.
fn batch(base: i64, records: i64) -> Batch {
    let values: Vec<String> = (base..base + records).map(|offset| offset.to_string()).collect();
    batch_of(base, values.iter().map(|value| Record::new(value.as_str())).collect())
}

fn batch_of(base: i64, mut records: Vec<Record>) -> Batch {
    let mut batch = Batch::default();
    batch.add_records(&mut records);
    batch.set_base_offset(base);
    batch.header.first_timestamp = FIRST_STAMP + base;
    for (index, record) in batch.mut_records().iter_mut().enumerate() {
        record.preamble.set_timestamp_delta(index as i64);
    }
    batch
}

/// A batch that lacks its last records.
fn cut_off(base: i64, span: i32, records: i64) -> Batch {
    let mut batch = batch(base, records);
    batch.set_offset_delta(span - 1);
    batch
}

fn offsets(run: &Fetched) -> Vec<i64> {
    run.records().map(|record| record.offset).collect()
}

fn held(earliest: i64, end: i64) -> Retained {
    Retained { earliest, end }
}

#[tokio::test(start_paused = true)]
async fn every_partition_is_announced_and_so_is_one_that_is_added_later() {
    let mut stage = Stage::new(2, held(3, 9));
    let first = stage.event().await;
    assert!(
        matches!(first, SourceEvent::Assigned { retained: Retained { earliest: 3, end: 9 }, .. }),
        "{first:?}"
    );
    let second = stage.assigned().await;
    assert_eq!(second.topic(), "embeddings");
    stage.double.state().partitions = Some(3);
    assert_eq!(stage.assigned().await.number(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_partitions_that_are_listed_are_announced() {
    let mut listed = settings();
    listed.consumer.partitions = Partitions::Listed(vec![1]);
    let mut stage = Stage::with(3, held(0, 0), &listed, 1 << 20);
    assert_eq!(stage.assigned().await.number(), 1);
    let other = tokio::time::timeout(Duration::from_secs(60), stage.event()).await;
    assert!(other.is_err(), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listed_partition_that_the_topic_does_not_have_is_an_error() {
    let mut listed = settings();
    listed.consumer.partitions = Partitions::Listed(vec![0, 3]);
    let mut stage = Stage::with(3, held(0, 0), &listed, 1 << 20);
    let text = stage.failure().await.to_string();
    assert!(text.contains("topic embeddings has 3 partitions, and so no partition 3"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_there_is_an_error_or_is_created() {
    let text = Stage::new(0, held(0, 0)).failure().await.to_string();
    assert!(text.contains("there is no topic embeddings") && text.contains("create-topic: true"), "{text}");

    let creating = FluvioSettings { create_topic: true, ..settings() };
    let mut stage = Stage::with(0, held(0, 0), &creating, 1 << 20);
    stage.assigned().await;
    stage.assigned().await;
    assert_eq!(stage.double.created.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_goes_away_ends_the_source() {
    let mut stage = Stage::new(1, held(0, 0));
    stage.assigned().await;
    stage.double.state().partitions = None;
    let text = stage.failure().await.to_string();
    assert!(text.contains("topic embeddings is gone"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_asked_until_it_does() {
    let mut stage = Stage::new(1, held(0, 0));
    stage.double.state().retained_faults = 20;
    stage.assigned().await;
    assert_eq!(stage.double.state().retained_faults, 0);
}

#[tokio::test(start_paused = true)]
async fn reading_begins_at_the_offset_asked_for_though_its_batch_begins_before() {
    let (mut stage, stream) = Stage::reading(held(0, 10), 7).await;
    assert_eq!((stream.partition, stream.offset, stream.max_bytes), (0, 7, MAX_BYTES));
    stream.send(Ok(batch(5, 5)));
    let run = stage.run().await;
    assert_eq!(offsets(&run), [7, 8, 9]);
    let record = run.records().next().expect("a record");
    assert_eq!(
        (record.payload, record.key, record.timestamp),
        (Some(&b"7"[..]), None, Some(FIRST_STAMP + 7))
    );
}

#[tokio::test(start_paused = true)]
async fn small_batches_that_are_there_already_make_one_run() {
    let (mut stage, stream) = Stage::reading(held(0, 30), 0).await;
    for base in 0..30 {
        stream.send(Ok(batch(base, 1)));
    }
    assert_eq!(offsets(&stage.run().await), (0..30).collect::<Vec<i64>>());
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_is_handed_on_in_several_runs() {
    let (mut stage, stream) = Stage::reading(held(0, 2500), 0).await;
    stream.send(Ok(batch(0, 2500)));
    let mut next = 0;
    while next < 2500 {
        let run = stage.run().await;
        assert!(run.len() <= 1024, "{}", run.len());
        assert_eq!(offsets(&run), (next..next + run.len() as i64).collect::<Vec<i64>>());
        next += run.len() as i64;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_fault_reading_goes_on_where_it_was_with_no_gap_and_no_repeat() {
    let faults: [Option<ErrorCode>; 4] = [
        None,
        Some(ErrorCode::Other("the connection is closed".to_owned())),
        Some(ErrorCode::NotLeaderForPartition),
        Some(ErrorCode::SpuOffline),
    ];
    for fault in faults {
        let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
        stream.send(Ok(batch(0, 5)));
        if let Some(code) = fault.clone() {
            stream.send(Err(code));
        }
        drop(stream);
        assert_eq!(offsets(&stage.run().await), [0, 1, 2, 3, 4]);
        let stream = stage.opened().await;
        assert_eq!(stream.offset, 4, "the last record bears witness after {fault:?}");
        stream.send(Ok(batch(0, 5)));
        stream.send(Ok(batch(5, 5)));
        assert_eq!(offsets(&stage.run().await), [5, 6, 7, 8, 9], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_until_it_can() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stage.double.state().retained_faults = 3;
    drop(stream);
    let mut told = Vec::new();
    let stream = loop {
        tokio::select! {
            event = stage.source.next() => {
                if let Ok(SourceEvent::Trouble(trouble)) = event {
                    told.push(trouble);
                }
            }
            Some(stream) = stage.opened.recv() => break stream,
        }
    };
    stream.send(Ok(batch(0, 5)));
    while told.last().is_none_or(Option::is_some) {
        if let Ok(SourceEvent::Trouble(trouble)) = stage.source.next().await {
            told.push(trouble);
        }
    }
    assert_eq!(told, [Some("Fluvio cannot be read: the stream ended".to_owned()), None]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_one_partition_is_none_of_the_others() {
    let mut stage = Stage::new(2, held(0, 20));
    let first = stage.begin(0, 1).await;
    let second = stage.begin(0, 1).await;
    first.send(Ok(batch(0, 5)));
    first.send(Err(ErrorCode::SpuError));
    let run = stage.run().await;
    assert_eq!((run.partition().number().unsigned_abs(), run.len()), (first.partition, 5));
    let again = stage.opened().await;
    assert_eq!(again.partition, first.partition);
    second.send(Ok(batch(0, 3)));
    second.send(Ok(batch(3, 3)));
    let run = stage.run().await;
    assert_eq!(
        (run.partition().number().unsigned_abs(), offsets(&run)),
        (second.partition, vec![0, 1, 2, 3, 4, 5])
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_comes_twice_is_read_once() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    for base in [0, 0, 5, 0, 5, 10] {
        stream.send(Ok(batch(base, 5)));
    }
    assert_eq!(offsets(&stage.run().await), (0..15).collect::<Vec<i64>>());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_leaves_records_out_is_opened_again_where_they_were() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 5)));
    stream.send(Ok(batch(10, 5)));
    assert_eq!(offsets(&stage.run().await), [0, 1, 2, 3, 4]);
    let stream = stage.opened().await;
    stream.send(Ok(batch(4, 16)));
    assert_eq!(offsets(&stage.run().await), (5..20).collect::<Vec<i64>>());
}

#[tokio::test(start_paused = true)]
async fn records_that_retention_took_before_they_were_read_end_the_source() {
    for code in [ErrorCode::OffsetEvicted { offset: 5, next_available: 10 }, ErrorCode::OffsetOutOfRange] {
        let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
        stream.send(Ok(batch(0, 5)));
        assert_eq!(stage.run().await.len(), 5);
        stage.double.state().retained = held(10, 20);
        stream.send(Err(code));
        match stage.failure().await {
            SourceError::OutOfRange { wanted: 5, earliest: 10, end: 20, cause, .. } => {
                assert!(cause.contains("Retention"), "{cause}");
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_just_started_may_know_a_shorter_log_for_a_while() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 5)));
    stage.run().await;
    stage.double.state().retained = held(0, 0);
    drop(stream);
    let early = tokio::time::timeout(Duration::from_secs(10), stage.opened()).await;
    assert!(early.is_err(), "a stream at an offset that is not there");
    stage.double.state().retained = held(0, 20);
    assert_eq!(stage.opened().await.offset, 4);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_stays_shorter_than_what_was_read_ends_the_source() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 5)));
    stage.run().await;
    stage.double.state().retained = held(0, 2);
    drop(stream);
    match stage.failure().await {
        SourceError::OutOfRange { wanted: 5, cause, .. } => {
            assert!(cause.contains("created again"), "{cause}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn another_log_under_the_same_name_ends_the_source() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 5)));
    stage.run().await;
    drop(stream);
    let stream = stage.opened().await;
    let mut other = batch(0, 10);
    other.header.first_timestamp += 1;
    stream.send(Ok(other));
    match stage.failure().await {
        SourceError::Recreated { offset: 4, .. } => {}
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_fit_is_asked_for_again_in_a_larger_answer() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 3)));
    stream.send(Err(ErrorCode::MessageTooLarge));
    assert_eq!(offsets(&stage.run().await), [0, 1, 2]);
    let stream = stage.opened().await;
    assert_eq!((stream.offset, stream.max_bytes), (2, 4 * MAX_BYTES));
    stream.send(Ok(batch(0, 3)));
    stream.send(Ok(batch(3, 10)));
    assert_eq!(offsets(&stage.run().await), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let stream = stage.opened().await;
    assert_eq!((stream.offset, stream.max_bytes), (12, MAX_BYTES), "the next ones fit again");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_lacks_records_ends_the_source() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(cut_off(0, 10, 3)));
    assert_eq!(offsets(&stage.run().await), [0, 1, 2]);
    let text = stage.failure().await.to_string();
    assert!(text.contains("the batch at offset 0 lacks records from offset 3 to 9"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_brings_nothing_though_there_is_something_is_opened_again() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    let again = stage.opened().await;
    assert_eq!((again.offset, again.max_bytes), (0, MAX_BYTES));
    drop(stream);
    again.send(Ok(batch(0, 20)));
    assert_eq!(stage.run().await.len(), 20);
    let idle = tokio::time::timeout(Duration::from_secs(300), stage.opened()).await;
    assert!(idle.is_err(), "all is read, so silence is as it should be");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_fits_ends_the_source() {
    let (mut stage, mut stream) = Stage::reading(held(0, 20), 0).await;
    for _ in 0..3 {
        stream.send(Err(ErrorCode::MessageTooLarge));
        stream = stage.opened().await;
    }
    assert_eq!(stream.max_bytes, 64 << 20);
    stream.send(Err(ErrorCode::MessageTooLarge));
    let text = stage.failure().await.to_string();
    assert!(text.contains("meta.consumer.max-bytes"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_leaves_keeps_its_offsets_and_the_position_moves_over_the_rest() {
    let mut stage = Stage::new(1, held(0, 40));
    stage.double.run_modules(&[(FILTER, "contains", "7")]);
    let stream = stage.begin(0, 1).await;
    stream.send(Ok(batch(0, 20)));
    stream.send(Ok(batch(20, 20)));
    let run = stage.run().await;
    assert_eq!(offsets(&run), [7, 17, 27, 37]);
    assert_eq!(run.passed(), Some((40, Some(FIRST_STAMP + 39))));
    drop(stream);
    let stream = stage.opened().await;
    assert_eq!(stream.offset, 39, "the last record read bears witness, though it was dropped");
    stream.send(Ok(batch(20, 20)));
    stream.send(Ok(batch(40, 5)));
    let run = stage.run().await;
    assert_eq!((run.len(), run.passed()), (0, Some((45, Some(FIRST_STAMP + 44)))));
}

#[tokio::test(start_paused = true)]
async fn what_a_map_changes_keeps_its_key_its_time_and_its_offset() {
    let mut stage = Stage::new(1, held(0, 40));
    stage.double.run_modules(&[(FILTER, "contains", "2"), (MAP, "from", "2")]);
    let stream = stage.begin(20, 1).await;
    let records = (20..26).map(|offset| Record::new_key_value(RecordKey::from("k"), format!("{offset}!")));
    stream.send(Ok(batch_of(20, records.collect())));
    let run = stage.run().await;
    let seen: Vec<_> =
        run.records().map(|record| (record.offset, record.timestamp, record.key, record.payload)).collect();
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[5], (25, Some(FIRST_STAMP + 25), Some(&b"k"[..]), Some(&b"5!"[..])));
}

#[tokio::test(start_paused = true)]
async fn a_transform_that_fails_ends_the_source_at_its_record_and_the_record_is_not_shown() {
    let mut stage = Stage::new(1, held(0, 40));
    stage.double.run_modules(&[(MAP, "from", "canary-9c1f")]);
    let stream = stage.begin(0, 1).await;
    let mut records: Vec<Record> = (0..5).map(|offset: i32| Record::new(offset.to_string())).collect();
    // More than the module may take in memory.
    records[3] = Record::new(vec![b'x'; 100 << 20]);
    stream.send(Ok(batch_of(0, records)));
    assert_eq!(offsets(&stage.run().await), [0, 1, 2], "what came before is good");
    let error = stage.failure().await;
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("failed at offset 3") && !text.contains("canary") && !text.contains("xxx"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn something_that_is_no_smartmodule_ends_the_source() {
    let mut stage = Stage::new(1, held(0, 40));
    stage.double.run_modules(&[(b"\0asm nothing", "secret", "canary-9c1f")]);
    let partition = stage.assigned().await;
    stage.source.begin(&partition, Tenure(1), 0);
    let text = stage.failure().await.to_string();
    assert!(text.contains("the SmartModules module cannot be started") && !text.contains("canary"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn announcing_ends_reading_and_the_next_begin_has_its_own_tenure() {
    let (mut stage, stream) = Stage::reading(held(0, 20), 0).await;
    stream.send(Ok(batch(0, 5)));
    let run = stage.run().await;
    assert_eq!(run.tenure(), Tenure(1));
    stage.source.announce(run.partition());
    let stream_again = stage.begin(3, 2).await;
    assert!(stream.items.is_closed(), "the first stream is still read");
    assert_eq!(stream_again.offset, 3);
    stream_again.send(Ok(batch(0, 5)));
    let run = stage.run().await;
    assert_eq!((run.tenure(), offsets(&run)), (Tenure(2), vec![3, 4]));
}

#[tokio::test(start_paused = true)]
async fn reading_waits_for_room_and_says_so() {
    let mut stage = Stage::with(1, held(0, 200), &settings(), 1000);
    let stream = stage.begin(0, 1).await;
    stream.send(Ok(batch(0, 100)));
    let first = stage.run().await;
    stream.send(Ok(batch(100, 100)));
    match stage.event().await {
        SourceEvent::Paused(true) => {}
        other => panic!("{other:?}"),
    }
    drop(first);
    let (mut paused, mut run) = (true, None);
    while paused || run.is_none() {
        match stage.event().await {
            SourceEvent::Paused(now) => paused = now,
            SourceEvent::Fetched(fetched) => run = Some(fetched),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(run.map(|run| run.len()), Some(100));
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_is_reported_now_and_then_and_at_the_end() {
    let mut stage = Stage::new(1, held(0, 20));
    let partition = stage.assigned().await;
    let point = |next| CommitPoint::new(vec![(partition.clone(), next)]);
    stage.source.commit(&point(3));
    stage.source.commit(&point(7));
    assert!(stage.double.state().reports.is_empty(), "each is reported at once");
    tokio::time::advance(Duration::from_secs(11)).await;
    while stage.double.state().reports.is_empty() {
        tokio::task::yield_now().await;
    }
    stage.source.commit(&point(9));
    stage.source.close(Duration::from_secs(1)).await;
    assert_eq!(stage.double.state().reports, [(0, 7), (0, 9)]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_key_is_none_and_an_empty_value_is_a_tombstone() {
    let (mut stage, stream) = Stage::reading(held(0, 3), 0).await;
    let records = vec![
        Record::new_key_value(RecordKey::from("a"), ""),
        Record::new_key_value(RecordKey::from(""), "b"),
        Record::new_key_value(RecordKey::NULL, "c"),
    ];
    stream.send(Ok(batch_of(0, records)));
    let run = stage.run().await;
    let seen: Vec<_> = run.records().map(|record| (record.key, record.payload)).collect();
    assert_eq!(seen, [(Some(&b"a"[..]), None), (None, Some(&b"b"[..])), (None, Some(&b"c"[..]))]);
}
