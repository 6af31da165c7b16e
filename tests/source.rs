//! The Kafka source alone, against the mock cluster of librdkafka.
//!
//! The mock lets a group wait for its members: 3 s before the first rebalance, then one second less than
//! `session.timeout.ms`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use embedsink::config::{KafkaSettings, Secret, StartAt};
use embedsink::source::kafka::KafkaSource;
use embedsink::source::{
    Budget, Fetched, HandOver, Partition, Retained, Source, SourceError, SourceEvent, Tenure,
};
use rdkafka::ClientConfig;
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::wait::PATIENCE;

const TOPIC: &str = "topic";
const BUDGET: usize = 8 << 20;
/// Of a payload no more is kept.
const LONGEST: usize = 2 << 20;
/// Long enough for anything that is under way to show itself.
const QUIET: Duration = Duration::from_secs(2);

/// A cluster with one topic.
struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    group: String,
}

impl Cluster {
    fn new(brokers: i32, partitions: i32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mock = MockCluster::new(brokers).unwrap();
        mock.create_topic(TOPIC, partitions, 1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("linger.ms", "5")
            .create()
            .unwrap();
        Self { mock, producer, group: format!("group {}", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    fn settings(&self, topic: &str, properties: &[(&str, &str)]) -> KafkaSettings {
        let own = [
            ("session.timeout.ms", "8000"),
            ("heartbeat.interval.ms", "300"),
            ("max.poll.interval.ms", "8000"),
            ("reconnect.backoff.max.ms", "500"),
            ("fetch.wait.max.ms", "100"),
        ];
        let property = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
        KafkaSettings {
            bootstrap_servers: self.mock.bootstrap_servers().split(',').map(str::to_owned).collect(),
            topics: vec![topic.to_owned()],
            group_id: self.group.clone(),
            start: StartAt::Beginning,
            properties: own.iter().chain(properties).map(property).collect(),
        }
    }

    /// A member of the group.
    fn join(&self) -> KafkaSource {
        self.join_with(&[], BUDGET)
    }

    fn join_with(&self, properties: &[(&str, &str)], budget: usize) -> KafkaSource {
        KafkaSource::start(&self.settings(TOPIC, properties), LONGEST, Budget::new(budget)).unwrap()
    }

    /// Produces records whose key is their offset, and `payload` their payload.
    fn produce(&self, number: i32, offsets: std::ops::Range<i64>, payload: &str) {
        for offset in offsets {
            let key = offset.to_string();
            let mut record = BaseRecord::to(TOPIC).partition(number).key(&key).payload(payload);
            while let Err((_, back)) = self.producer.send(record) {
                self.producer.flush(PATIENCE).unwrap();
                record = back;
            }
        }
        self.producer.flush(PATIENCE).unwrap();
    }
}

fn partition(number: i32) -> Partition {
    Partition::new(TOPIC, number)
}

/// The next event that matters here. Cancel-safe.
async fn heard(source: &mut KafkaSource) -> Result<SourceEvent, SourceError> {
    loop {
        let event = source.next().await?;
        if !matches!(
            event,
            SourceEvent::Given(_) | SourceEvent::Ends(_) | SourceEvent::Paused(_) | SourceEvent::Trouble(_)
        ) {
            return Ok(event);
        }
    }
}

/// The next event, in time.
async fn next(source: &mut KafkaSource) -> SourceEvent {
    match tokio::time::timeout(PATIENCE, heard(source)).await {
        Ok(event) => event.unwrap(),
        Err(_) => panic!("waited in vain for an event"),
    }
}

/// Why the source ends, whatever it says before.
async fn failure(source: &mut KafkaSource) -> SourceError {
    loop {
        match tokio::time::timeout(PATIENCE, heard(source)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => panic!("waited in vain for an error"),
        }
    }
}

/// Waits until these many partitions are assigned; everything else that happens before is an error.
async fn assigned(source: &mut KafkaSource, count: usize) -> BTreeMap<i32, Retained> {
    let mut found = BTreeMap::new();
    while found.len() < count {
        match next(source).await {
            SourceEvent::Assigned { partition, retained } => {
                assert!(found.insert(partition.number(), retained).is_none(), "{partition} came twice");
            }
            other => panic!("{other:?} while {count} partitions were waited for"),
        }
    }
    found
}

/// Waits until partitions are revoked. Records that were under way are passed over.
async fn revoked(source: &mut KafkaSource) -> (Vec<i32>, HandOver) {
    loop {
        match next(source).await {
            SourceEvent::Revoked { partitions, done } => {
                return (partitions.iter().map(Partition::number).collect(), done);
            }
            SourceEvent::Fetched(_) => {}
            other => panic!("{other:?} instead of a revocation"),
        }
    }
}

/// Nothing happens for a while.
async fn assert_quiet(source: &mut KafkaSource) {
    if let Ok(event) = tokio::time::timeout(QUIET, heard(source)).await {
        panic!("{event:?} while nothing should happen");
    }
}

/// The offsets of a run; checks that each record is the one that was produced there.
fn offsets(run: &Fetched) -> Vec<i64> {
    assert_eq!(run.len(), run.records().count());
    for record in run.records() {
        assert_eq!(record.key, Some(record.offset.to_string().as_bytes()));
        assert!(record.payload.is_some() && record.timestamp.is_some());
    }
    run.records().map(|record| record.offset).collect()
}

/// Reads until each of these partitions is at its end: number, tenure, first offset and end. Every
/// record must come once, in order, under its tenure.
async fn read(source: &mut KafkaSource, wanted: &[(i32, i64, i64, i64)]) {
    let mut at: BTreeMap<i32, (Tenure, i64, i64)> =
        wanted.iter().map(|(number, tenure, from, end)| (*number, (Tenure(*tenure), *from, *end))).collect();
    while at.values().any(|(_, next, end)| next < end) {
        let SourceEvent::Fetched(run) = next(source).await else { panic!("not a run of records") };
        let (tenure, next, end) = at.get_mut(&run.partition().number()).unwrap();
        assert_eq!(run.tenure(), *tenure, "{}", run.partition());
        for offset in offsets(&run) {
            assert_eq!(offset, *next, "{}", run.partition());
            *next += 1;
        }
        assert!(*next <= *end);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_delivers_nothing_before_begin_and_then_everything_in_order() {
    let cluster = Cluster::new(1, 2);
    cluster.produce(0, 0..3_000, "payload");
    cluster.produce(1, 0..500, "payload");
    let mut source = cluster.join();
    let retained = assigned(&mut source, 2).await;
    assert_eq!(retained[&0], Retained { earliest: 0, end: 3_000 });
    assert_eq!(retained[&1], Retained { earliest: 0, end: 500 });
    assert_quiet(&mut source).await;

    source.begin(&partition(0), Tenure(3), 0);
    read(&mut source, &[(0, 3, 0, 3_000)]).await;
    source.begin(&partition(1), Tenure(4), 123);
    read(&mut source, &[(1, 4, 123, 500)]).await;
    assert_quiet(&mut source).await;
    cluster.produce(0, 3_000..3_010, "payload");
    cluster.produce(1, 500..510, "payload");
    read(&mut source, &[(0, 3, 3_000, 3_010), (1, 4, 500, 510)]).await;
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_begins_at_its_end_delivers_what_comes_then() {
    let cluster = Cluster::new(1, 1);
    cluster.produce(0, 0..10, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    source.begin(&partition(0), Tenure(1), 10);
    assert_quiet(&mut source).await;
    cluster.produce(0, 10..20, "payload");
    read(&mut source, &[(0, 1, 10, 20)]).await;
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_key_or_payload_come_as_they_are() {
    let cluster = Cluster::new(1, 1);
    let send = |record: BaseRecord<'_, [u8], [u8]>| {
        cluster.producer.send(record.partition(0)).map_err(|(error, _)| error).unwrap();
    };
    send(BaseRecord::to(TOPIC).key(&b"k"[..]).timestamp(77));
    send(BaseRecord::to(TOPIC).payload(&b"p"[..]));
    send(BaseRecord::to(TOPIC).key(&b""[..]).payload(&b""[..]));
    send(BaseRecord::to(TOPIC));
    cluster.producer.flush(PATIENCE).unwrap();
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    source.begin(&partition(0), Tenure(1), 0);
    let mut found = Vec::new();
    while found.len() < 4 {
        let SourceEvent::Fetched(run) = next(&mut source).await else { panic!("not a run of records") };
        found.extend(run.records().map(|record| {
            (record.offset, record.key.map(<[u8]>::to_vec), record.payload.map(<[u8]>::to_vec))
        }));
        if let Some(first) = run.records().find(|record| record.offset == 0) {
            assert_eq!(first.timestamp, Some(77));
        }
    }
    let wanted = [
        (0, Some(b"k".to_vec()), None),
        (1, None, Some(b"p".to_vec())),
        (2, Some(vec![]), Some(vec![])),
        (3, None, None),
    ];
    assert_eq!(found, wanted);
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_payload_that_is_longer_than_any_may_be_only_the_beginning_is_kept() {
    let cluster = Cluster::new(1, 1);
    for (number, length) in [999, 1_000, 1_001, 300_000, 5].into_iter().enumerate() {
        let payload = "x".repeat(length);
        cluster.produce(0, number as i64..number as i64 + 1, &payload);
    }
    let settings = cluster.settings(TOPIC, &[]);
    let mut source = KafkaSource::start(&settings, 1_000, Budget::new(BUDGET)).unwrap();
    assigned(&mut source, 1).await;
    source.begin(&partition(0), Tenure(1), 0);
    let mut found = Vec::new();
    while found.len() < 5 {
        let SourceEvent::Fetched(run) = next(&mut source).await else { panic!("not a run of records") };
        assert!(run.memory() < 20_000, "{} bytes", run.memory());
        found.extend(run.records().map(|record| (record.payload.map(<[u8]>::len), record.omitted)));
    }
    assert_eq!(
        found,
        [(Some(999), 0), (Some(1_000), 0), (Some(1_000), 1), (Some(1_000), 299_000), (Some(5), 0)]
    );
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_begins_anew_goes_on_from_there_without_a_gap() {
    let cluster = Cluster::new(1, 1);
    let end = 2_000;
    cluster.produce(0, 0..end, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    let mut tenure = 0;
    // Forwards, backwards, to the end, and at once after the one before.
    for from in [0, 100, 50, 1_999, 0, 0, 1_000, 999, 2_000, 1, 1_500, 3] {
        tenure += 1;
        source.begin(&partition(0), Tenure(tenure), from);
        if from == end {
            continue;
        }
        // The first run of the new tenure; of the ones before only what was under way.
        let mut next_offset = from;
        while next_offset == from {
            let SourceEvent::Fetched(run) = next(&mut source).await else { panic!("not a run of records") };
            assert!(run.tenure() <= Tenure(tenure));
            if run.tenure() == Tenure(tenure) {
                assert!(offsets(&run).into_iter().eq(from..from + run.len() as i64), "a gap under {tenure}");
                next_offset += run.len() as i64;
            }
        }
        if from % 2 == 1 {
            read(&mut source, &[(0, tenure, next_offset, end)]).await;
        }
    }
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_announced_again_waits_for_the_next_begin() {
    let cluster = Cluster::new(1, 2);
    cluster.produce(0, 0..100, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 2).await;
    source.begin(&partition(0), Tenure(1), 0);
    source.begin(&partition(1), Tenure(1), 0);
    read(&mut source, &[(0, 1, 0, 100)]).await;

    cluster.produce(0, 100..150, "payload");
    source.announce(&partition(0));
    let retained = loop {
        match next(&mut source).await {
            SourceEvent::Assigned { partition, retained } => break (partition.number(), retained),
            SourceEvent::Fetched(run) => assert_eq!(run.tenure(), Tenure(1), "it was under way"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(retained, (0, Retained { earliest: 0, end: 150 }));
    cluster.produce(0, 150..200, "payload");
    while let Ok(event) = tokio::time::timeout(QUIET, heard(&mut source)).await {
        let SourceEvent::Fetched(run) = event.unwrap() else { panic!("not a run of records") };
        let was_under_way = run.tenure() == Tenure(1) && offsets(&run).iter().all(|offset| *offset < 150);
        assert!(was_under_way, "{:?} of {:?}", offsets(&run), run.tenure());
    }
    cluster.produce(1, 0..10, "payload");
    read(&mut source, &[(1, 1, 0, 10)]).await;
    source.begin(&partition(0), Tenure(2), 100);
    read(&mut source, &[(0, 2, 100, 200)]).await;
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_crosses_an_announcement_does_not_swallow_it() {
    let cluster = Cluster::new(1, 1);
    cluster.produce(0, 0..100, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    source.announce(&partition(0));
    source.begin(&partition(0), Tenure(1), 0);
    loop {
        match next(&mut source).await {
            SourceEvent::Assigned { .. } => break,
            SourceEvent::Fetched(_) => {}
            other => panic!("{other:?}"),
        }
    }
    source.begin(&partition(0), Tenure(2), 0);
    read(&mut source, &[(0, 2, 0, 100)]).await;
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_assigned_can_neither_begin_nor_be_announced() {
    let cluster = Cluster::new(1, 1);
    cluster.produce(0, 0..10, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    for other in [Partition::new(TOPIC, 7), Partition::new("another topic", 0)] {
        source.begin(&other, Tenure(1), 0);
        source.announce(&other);
    }
    assert_quiet(&mut source).await;
    source.close(PATIENCE).await;
}

/// One member reads four partitions, another joins, and gets half of them. `held` says what is done
/// with the permission to go.
async fn rebalance(strategy: &str, revoked_count: usize) {
    let cluster = Cluster::new(1, 4);
    for number in 0..4 {
        cluster.produce(number, 0..100, "payload");
    }
    let properties = [("partition.assignment.strategy", strategy)];
    let mut first = cluster.join_with(&properties, BUDGET);
    assigned(&mut first, 4).await;
    for number in 0..4 {
        first.begin(&partition(number), Tenure(1), 0);
    }
    read(&mut first, &[(0, 1, 0, 100), (1, 1, 0, 100), (2, 1, 0, 100), (3, 1, 0, 100)]).await;

    let mut second = cluster.join_with(&properties, BUDGET);
    let (gone, done) = revoked(&mut first).await;
    assert_eq!(gone.len(), revoked_count, "{strategy}");
    // Nothing of what is revoked is delivered any more, and nobody else gets it yet.
    cluster.produce(gone[0], 100..110, "payload");
    tokio::select! {
        () = assert_quiet(&mut second) => {}
        event = heard(&mut first) => panic!("{event:?} while the hand-over is held back"),
    }
    drop(done);
    for number in 0..4 {
        cluster.produce(number, if number == gone[0] { 110..120 } else { 100..120 }, "payload");
    }
    if strategy == "range" {
        return share_out(&cluster, first, second).await;
    }
    let its = assigned(&mut second, 2).await;
    let kept: Vec<i32> = (0..4).filter(|number| !gone.contains(number)).collect();
    assert!(its.keys().all(|number| !kept.contains(number)), "{its:?} and {kept:?}");
    for number in its.keys() {
        second.begin(&partition(*number), Tenure(2), 50);
    }
    let wanted_of_first: Vec<_> = kept.iter().map(|number| (*number, 1, 100, 120)).collect();
    let wanted_of_second: Vec<_> = its.keys().map(|number| (*number, 2, 50, 120)).collect();
    tokio::join!(read(&mut first, &wanted_of_first), read(&mut second, &wanted_of_second));

    // Who closes leaves the group, and the other gets its share without waiting for the session's end.
    second.close(PATIENCE).await;
    let back = assigned(&mut first, 2).await;
    assert!(back.keys().eq(its.keys()));
    first.close(PATIENCE).await;
}

/// In an eager group everything is dealt out anew, in one round or several, as members happen to come back. Each
/// begin goes on where the partition's last tenure was; in the end everything is read, under its own tenure, once.
async fn share_out(cluster: &Cluster, mut first: KafkaSource, mut second: KafkaSource) {
    let mut deal = Deal { read: [0; 4], tenures: [1; 4], of_second: 0 };
    while !deal.is_read_to(120) || deal.of_second == 0 {
        tokio::select! {
            event = next(&mut first) => deal.heed(&mut first, event),
            event = next(&mut second) => {
                let begun = deal.heed(&mut second, event);
                deal.of_second += begun;
                begun
            },
        };
    }
    // Who closes leaves the group, and the other gets everything without waiting for the session's end.
    second.close(PATIENCE).await;
    for number in 0..4 {
        cluster.produce(number, 120..130, "payload");
    }
    while !deal.is_read_to(130) {
        let event = next(&mut first).await;
        deal.heed(&mut first, event);
    }
    first.close(PATIENCE).await;
}

/// The tenure of each of four partitions, and how many records of it are read beyond the first 100.
struct Deal {
    read: [i64; 4],
    tenures: [i64; 4],
    of_second: usize,
}

impl Deal {
    fn is_read_to(&self, end: i64) -> bool {
        self.read.iter().all(|read| 100 + read == end)
    }

    /// Does what a pipeline does with an event; returns how many partitions were begun.
    fn heed(&mut self, member: &mut KafkaSource, event: SourceEvent) -> usize {
        match event {
            SourceEvent::Assigned { partition, .. } => {
                let number = partition.number() as usize;
                self.tenures[number] += 1;
                member.begin(&partition, Tenure(self.tenures[number]), 100 + self.read[number]);
                return 1;
            }
            SourceEvent::Revoked { done, .. } => drop(done),
            SourceEvent::Given(_)
            | SourceEvent::Ends(_)
            | SourceEvent::Paused(_)
            | SourceEvent::Trouble(_) => {}
            SourceEvent::Fetched(run) => {
                let number = run.partition().number() as usize;
                if run.tenure() == Tenure(self.tenures[number]) {
                    for offset in offsets(&run) {
                        assert_eq!(offset, 100 + self.read[number], "{}", run.partition());
                        self.read[number] += 1;
                    }
                }
            }
        }
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cooperative_group_only_what_moves_is_revoked_and_waits_for_its_last_write() {
    rebalance("cooperative-sticky", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_eager_group_everything_is_revoked_and_waits_for_its_last_write() {
    rebalance("range", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_nobody_grants_goes_on_by_itself() {
    let cluster = Cluster::new(1, 2);
    let mut first = cluster.join();
    assigned(&mut first, 2).await;
    let mut second = cluster.join();
    let (_, done) = revoked(&mut first).await;
    let since = Instant::now();
    assigned(&mut second, 1).await;
    assert!(since.elapsed() > Duration::from_secs(3), "it was held back");
    drop(done);
    tokio::join!(first.close(PATIENCE), second.close(PATIENCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_while_a_hand_over_is_held_back_leaves_the_group_at_once() {
    for strategy in ["cooperative-sticky", "range"] {
        let cluster = Cluster::new(1, 2);
        let properties = [("partition.assignment.strategy", strategy)];
        let mut first = cluster.join_with(&properties, BUDGET);
        assigned(&mut first, 2).await;
        let mut second = cluster.join_with(&properties, BUDGET);
        let (_, done) = revoked(&mut first).await;
        let since = Instant::now();
        first.close(Duration::from_secs(20)).await;
        assert!(since.elapsed() < Duration::from_secs(10), "{strategy}: it took {:?}", since.elapsed());
        drop(done);
        let mut its = BTreeMap::new();
        while its.len() < 2 {
            match next(&mut second).await {
                SourceEvent::Assigned { partition, retained } => {
                    its.insert(partition.number(), retained);
                }
                SourceEvent::Revoked { partitions, .. } => {
                    its.retain(|number, _| partitions.iter().all(|partition| partition.number() != *number));
                }
                SourceEvent::Fetched(run) => panic!("{run:?} before begin"),
                SourceEvent::Given(_)
                | SourceEvent::Ends(_)
                | SourceEvent::Paused(_)
                | SourceEvent::Trouble(_) => {}
            }
        }
        second.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_in_time_when_the_broker_is_away() {
    let cluster = Cluster::new(1, 2);
    cluster.produce(0, 0..100, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 2).await;
    source.begin(&partition(0), Tenure(1), 0);
    read(&mut source, &[(0, 1, 0, 100)]).await;
    cluster.mock.broker_down(1).unwrap();
    let since = Instant::now();
    source.close(Duration::from_secs(5)).await;
    assert!(since.elapsed() < Duration::from_secs(6), "it took {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_in_time_when_no_broker_was_ever_there() {
    let cluster = Cluster::new(1, 1);
    cluster.mock.broker_down(1).unwrap();
    let mut source = cluster.join();
    assert_quiet(&mut source).await;
    let since = Instant::now();
    source.close(Duration::from_secs(5)).await;
    assert!(since.elapsed() < Duration::from_secs(6), "it took {:?}", since.elapsed());
}

/// Does what a pipeline does: begins what is assigned where it was, and drops what is of the past.
#[derive(Default)]
struct Reader {
    tenures: BTreeMap<i32, i64>,
    next_offsets: BTreeMap<i32, i64>,
}

impl Reader {
    fn on(&mut self, source: &mut KafkaSource, event: SourceEvent) {
        match event {
            SourceEvent::Assigned { partition, retained } => {
                let next = *self.next_offsets.entry(partition.number()).or_default();
                assert!(retained.covers(next));
                let tenure = self.tenures.entry(partition.number()).or_default();
                *tenure += 1;
                source.begin(&partition, Tenure(*tenure), next);
            }
            SourceEvent::Fetched(run) => {
                let number = run.partition().number();
                if run.tenure() == Tenure(self.tenures[&number]) {
                    let next = self.next_offsets.entry(number).or_default();
                    assert!(
                        offsets(&run).into_iter().eq(*next..*next + run.len() as i64),
                        "{number} at {next}"
                    );
                    *next += run.len() as i64;
                }
            }
            SourceEvent::Revoked { .. }
            | SourceEvent::Given(_)
            | SourceEvent::Ends(_)
            | SourceEvent::Paused(_)
            | SourceEvent::Trouble(_) => {}
        }
    }

    async fn read_until(&mut self, source: &mut KafkaSource, end: i64) {
        while self.next_offsets.len() < 2 || self.next_offsets.values().any(|next| *next < end) {
            let event = next(source).await;
            self.on(source, event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_read_on_without_gap_or_repetition() {
    let cluster = Cluster::new(1, 2);
    let mut source = cluster.join();
    let mut reader = Reader::default();
    for outage in 0..4 {
        let (from, end) = (outage * 500, (outage + 1) * 500);
        cluster.produce(0, from..end, "payload");
        cluster.produce(1, from..end, "payload");
        reader.read_until(&mut source, end).await;
        cluster.mock.broker_down(1).unwrap();
        // The outage may cost the membership, and that comes back, too.
        while let Ok(event) = tokio::time::timeout(QUIET, heard(&mut source)).await {
            reader.on(&mut source, event.unwrap());
        }
        cluster.mock.broker_up(1).unwrap();
    }
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_leader_is_away_does_not_hold_up_the_others() {
    let cluster = Cluster::new(2, 3);
    cluster.mock.coordinator(MockCoordinator::Group(cluster.group.clone()), 1).unwrap();
    for (number, leader) in [(0, 2), (1, 1), (2, 1)] {
        cluster.mock.partition_leader(TOPIC, number, Some(leader)).unwrap();
        cluster.produce(number, 0..10, "payload");
    }
    cluster.mock.broker_down(2).unwrap();
    let mut source = cluster.join();
    assert!(assigned(&mut source, 2).await.into_keys().eq([1, 2]));
    source.begin(&partition(1), Tenure(1), 0);
    source.begin(&partition(2), Tenure(1), 0);
    read(&mut source, &[(1, 1, 0, 10), (2, 1, 0, 10)]).await;
    cluster.mock.broker_up(2).unwrap();
    assert!(assigned(&mut source, 1).await.into_keys().eq([0]));
    source.begin(&partition(0), Tenure(1), 0);
    read(&mut source, &[(0, 1, 0, 10)]).await;
    source.close(PATIENCE).await;
}

/// Takes runs, and keeps them, until no more come. Returns them.
async fn take_until_quiet(source: &mut KafkaSource) -> Vec<Fetched> {
    let mut runs = Vec::new();
    while let Ok(event) = tokio::time::timeout(QUIET, heard(source)).await {
        let SourceEvent::Fetched(run) = event.unwrap() else { panic!("not a run of records") };
        runs.push(run);
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_records_nobody_takes_stays_in_the_group_within_its_budget() {
    let cluster = Cluster::new(1, 2);
    let budget = 256 << 10;
    let payload = "x".repeat(1_000);
    cluster.produce(0, 0..3_000, &payload);
    cluster.produce(1, 0..3_000, &payload);
    let mut slow = cluster.join_with(&[], budget);
    assigned(&mut slow, 2).await;
    let mut other = cluster.join();
    let (gone, done) = revoked(&mut slow).await;
    drop(done);
    assert!(assigned(&mut other, 1).await.into_keys().eq(gone.clone()));
    let kept = 1 - gone[0];

    slow.begin(&partition(kept), Tenure(1), 0);
    // Twice the longest time between polls. Were it thrown out, the other would get its partition.
    let thrown_out = tokio::time::timeout(Duration::from_secs(16), heard(&mut other)).await;
    assert!(thrown_out.is_err(), "{thrown_out:?}");
    let mut next_offset = 0;
    while next_offset < 3_000 {
        let runs = take_until_quiet(&mut slow).await;
        let held: usize = runs.iter().map(Fetched::bytes).sum();
        assert!(held <= budget || runs.len() == 1, "{held} bytes in {} runs", runs.len());
        assert!(!runs.is_empty(), "it went on at {next_offset}");
        for run in runs {
            assert_eq!(run.tenure(), Tenure(1));
            assert!(offsets(&run).into_iter().eq(next_offset..next_offset + run.len() as i64));
            next_offset += run.len() as i64;
        }
    }
    tokio::join!(slow.close(PATIENCE), other.close(PATIENCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_records_count_with_what_keeps_account_of_them() {
    let cluster = Cluster::new(1, 1);
    for _ in 0..60_000 {
        let mut record = BaseRecord::<[u8], [u8]>::to(TOPIC).partition(0);
        while let Err((_, back)) = cluster.producer.send(record) {
            cluster.producer.flush(PATIENCE).unwrap();
            record = back;
        }
    }
    cluster.producer.flush(PATIENCE).unwrap();
    let budget = 256 << 10;
    let mut source = cluster.join_with(&[], budget);
    assigned(&mut source, 1).await;
    source.begin(&partition(0), Tenure(1), 0);
    let held: usize = take_until_quiet(&mut source).await.iter().map(Fetched::len).sum();
    // An offset and a timestamp alone are 16 bytes.
    assert!(held <= budget / 16, "{held} records of no bytes are held by a budget of {budget} bytes");
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_refused_by_name() {
    let cluster = Cluster::new(1, 1);
    let mut source =
        KafkaSource::start(&cluster.settings("missing", &[]), LONGEST, Budget::new(BUDGET)).unwrap();
    let error = failure(&mut source).await;
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("there is no topic missing"), "{error}");
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_allow_it_is_not_asked_again() {
    let cluster = Cluster::new(1, 1);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.mock.topic_error(TOPIC, denied).unwrap();
    let mut source = cluster.join();
    let error = failure(&mut source).await;
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    source.close(PATIENCE).await;

    let cluster = Cluster::new(1, 1);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    cluster.mock.request_errors(RDKafkaApiKey::JoinGroup, &[denied; 100]);
    let mut source = cluster.join();
    let error = failure(&mut source).await;
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_end_or_before_the_beginning_stops_the_source() {
    // The mock keeps 5 MB of a partition.
    let cluster = Cluster::new(1, 1);
    cluster.produce(0, 0..8_000, &"x".repeat(1_000));
    for (offset, word) in [(9_000, "deleted and created again"), (0, "Retention has deleted")] {
        let mut source = cluster.join();
        let retained = assigned(&mut source, 1).await[&0];
        assert!(retained.earliest > 0 && retained.end == 8_000, "{retained:?}");
        source.begin(&partition(0), Tenure(1), offset);
        let error = failure(&mut source).await;
        let said = error.to_string();
        assert!(matches!(&error, SourceError::OutOfRange { wanted, .. } if *wanted == offset), "{said}");
        assert!(said.contains(word) && said.contains(&retained.earliest.to_string()), "{said}");
        source.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_of_the_broker_cost_no_record() {
    let cluster = Cluster::new(1, 2);
    cluster.produce(0, 0..1_000, "payload");
    cluster.produce(1, 0..1_000, "payload");
    use RDKafkaRespErr as E;
    cluster.mock.request_errors(
        RDKafkaApiKey::Metadata,
        &[E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    cluster.mock.request_errors(
        RDKafkaApiKey::ListOffsets,
        &[E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    cluster.mock.request_errors(
        RDKafkaApiKey::JoinGroup,
        &[E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR],
    );
    let mut source = cluster.join();
    assigned(&mut source, 2).await;
    cluster.mock.request_errors(
        RDKafkaApiKey::Fetch,
        &[
            E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            E::RD_KAFKA_RESP_ERR_UNKNOWN,
            E::RD_KAFKA_RESP_ERR__TRANSPORT,
        ],
    );
    source.begin(&partition(0), Tenure(1), 0);
    source.begin(&partition(1), Tenure(1), 10);
    read(&mut source, &[(0, 1, 0, 1_000), (1, 1, 10, 1_000)]).await;
    source.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_broker_refused_by_mistake_is_read_on() {
    let cluster = Cluster::new(1, 1);
    cluster.produce(0, 0..100, "payload");
    let mut source = cluster.join();
    assigned(&mut source, 1).await;
    // A new leader may say so while it catches up.
    let wrong = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[wrong]);
    source.begin(&partition(0), Tenure(1), 10);
    read(&mut source, &[(0, 1, 10, 100)]).await;
    source.close(PATIENCE).await;
}
