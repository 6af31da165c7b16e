use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::reject::RejectReason;
use crate::route::TableLimits;
use crate::source::{FetchedBuilder, Headers, HeadersBuilder};

const DIMENSIONS: [usize; 2] = [2, 3];
const KEYS: [&str; 5] = ["a", "b", "ä", "", "a0"];

/// What the log asks for, record by record.
#[derive(Clone, Debug)]
enum Ask {
    Upsert { table: usize, key: usize },
    Delete { key: usize },
    Reject,
}

/// A record of the log: its partition, how far it stands behind the one before it, what it asks for.
#[derive(Clone, Debug)]
struct Entry {
    partition: usize,
    skipped: i64,
    ask: Ask,
    /// Whether a batch ends behind it.
    ends: bool,
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ask = prop_oneof![
        6 => (0..DIMENSIONS.len(), 0..KEYS.len()).prop_map(|(table, key)| Ask::Upsert { table, key }),
        3 => (0..KEYS.len()).prop_map(|key| Ask::Delete { key }),
        1 => Just(Ask::Reject),
    ];
    let skipped = prop_oneof![4 => Just(0_i64), 1 => 1..5_i64];
    (0..3_usize, skipped, ask, prop::bool::weighted(0.15)).prop_map(|(partition, skipped, ask, ends)| Entry {
        partition,
        skipped,
        ask,
        ends,
    })
}

fn router() -> Router {
    let table = |(index, dimensions): (usize, &usize)| TableLimits {
        name: format!("table {index}"),
        dimensions: *dimensions,
        max_id_chars: None,
        max_source_chars: None,
        skip_stale: false,
    };
    Router::new(DIMENSIONS.iter().enumerate().map(table).collect())
}

fn partition(number: usize) -> Partition {
    Partition::new("topic", number as i32)
}

fn source_record(offset: i64) -> SourceRecord<'static> {
    SourceRecord {
        offset,
        timestamp: Some(offset),
        key: Some(b"key"),
        payload: Some(b"payload"),
        headers: Headers::default(),
        omitted: 0,
    }
}

/// The row that record number `version` of the log brings. Every other field is there only at times.
fn embedding(version: usize, key: &str) -> (Embedding<'_>, Vec<f32>) {
    let some = |every: usize, text: &str| {
        (!version.is_multiple_of(every)).then(|| Cow::Owned(format!("{text} {version}")))
    };
    let embedding = Embedding {
        id: Cow::Borrowed(key),
        text: some(2, "text"),
        timestamp: (!version.is_multiple_of(3)).then_some(version as i64),
        source: some(5, "source"),
        metadata: version.is_multiple_of(2).then_some(r#"{"a": "é"}"#),
        table_name: None,
    };
    (embedding, vec![version as f32; 3])
}

/// A row as the model keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    text: Option<String>,
    vector: Vec<f32>,
    timestamp: Option<i64>,
    source: Option<String>,
    metadata: Option<String>,
}

impl Stored {
    fn of(row: &Row<'_>) -> Self {
        Self {
            text: row.text.map(str::to_owned),
            vector: row.embedding.to_vec(),
            timestamp: row.timestamp,
            source: row.source.map(str::to_owned),
            metadata: row.metadata.map(str::to_owned),
        }
    }
}

/// The target, in memory.
#[derive(Debug, Default, PartialEq)]
struct Model {
    tables: [BTreeMap<String, Stored>; 2],
    /// Partition and offset of each.
    dead_letters: Vec<(Partition, i64)>,
    positions: BTreeMap<Partition, i64>,
}

impl Model {
    /// Does what Postgres does with a batch, and checks what it relies on.
    fn apply(&mut self, batch: &Batch) {
        for span in batch.spans() {
            let stored = self.positions.insert(span.partition.clone(), span.to).unwrap_or(0);
            assert_eq!(stored, span.from, "{} goes on where it was", span.partition);
        }
        for (index, table) in self.tables.iter_mut().enumerate() {
            let changes = batch.changes(TableId(index));
            let keys: Vec<&str> = changes.upserts.iter().map(|row| row.id).collect();
            assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?} are sorted, and each stands there once");
            assert!(changes.deletes.is_sorted_by(|a, b| a.id < b.id));
            let deleted = |key: &Deletion<'_>| keys.contains(&key.id);
            assert!(!changes.deletes.iter().any(deleted), "a key has one fate");
            for row in &changes.upserts {
                assert_eq!(row.embedding.len(), DIMENSIONS[index]);
                table.insert(row.id.to_owned(), Stored::of(row));
            }
            for deletion in changes.deletes {
                table.remove(deletion.id);
            }
        }
        let letters = batch.rejected().map(|letter| (letter.partition.clone(), letter.offset));
        self.dead_letters.extend(letters);
    }

    fn sorted(mut self) -> Self {
        self.dead_letters.sort();
        self
    }
}

/// Gathers a log into batches as a lane does.
struct Gatherer {
    batch: Batch,
    next_offsets: [i64; 3],
    made: u64,
}

impl Gatherer {
    fn new() -> Self {
        Self { batch: Batch::new(0, &router()), next_offsets: [0; 3], made: 0 }
    }

    fn add(&mut self, version: usize, entry: &Entry, tenure: Tenure) {
        let next = &mut self.next_offsets[entry.partition];
        let partition = partition(entry.partition);
        let place = Place { partition: &partition, tenure, stored: *next };
        let record = source_record(*next + entry.skipped);
        *next = record.offset + 1;
        match entry.ask {
            Ask::Upsert { table, key } => {
                let (embedding, vector) = embedding(version, KEYS[key]);
                let vector = &vector[..DIMENSIONS[table]];
                self.batch.upsert(&place, &record, TableId(table), &embedding, vector);
            }
            Ask::Delete { key } => self.batch.delete(&place, &record, KEYS[key]),
            Ask::Reject => {
                self.batch.reject(&place, &record, None, Reject::new(RejectReason::BadJson, "no JSON"));
            }
        }
    }

    fn finish(&mut self) -> Batch {
        self.made += 1;
        std::mem::replace(&mut self.batch, Batch::new(self.made, &router()))
    }
}

/// The log, with a batch behind each entry for which `ends` says so.
fn applied(log: &[Entry], ends: impl Fn(&Entry) -> bool) -> Model {
    let (mut gatherer, mut model) = (Gatherer::new(), Model::default());
    for (version, entry) in log.iter().enumerate() {
        gatherer.add(version, entry, Tenure(1));
        if ends(entry) {
            model.apply(&gatherer.finish());
        }
    }
    model.apply(&gatherer.finish());
    model.sorted()
}

proptest! {
    #[test]
    fn however_a_log_is_split_into_batches_the_tables_are_the_same(
        log in prop::collection::vec(any_entry(), 0..80),
    ) {
        let one_by_one = applied(&log, |_| true);
        prop_assert_eq!(&applied(&log, |entry| entry.ends), &one_by_one);
        prop_assert_eq!(&applied(&log, |_| false), &one_by_one);
    }

    #[test]
    fn dropping_a_tenure_takes_out_exactly_what_was_read_under_it(
        log in prop::collection::vec((any_entry(), 1..3_i64), 0..60),
        lost in prop::collection::vec((0..3_usize, 1..4_i64), 0..3),
    ) {
        let lost: Vec<(Partition, Tenure)> =
            lost.into_iter().map(|(number, tenure)| (partition(number), Tenure(tenure))).collect();
        let is_lost = |entry: &Entry, tenure| lost.contains(&(partition(entry.partition), Tenure(tenure)));
        // Tenures follow one another.
        let mut log = log;
        log.sort_by_key(|(_, tenure)| *tenure);

        let (mut whole, mut without) = (Gatherer::new(), Gatherer::new());
        for (version, (entry, tenure)) in log.iter().enumerate() {
            whole.add(version, entry, Tenure(*tenure));
            if is_lost(entry, *tenure) {
                without.next_offsets[entry.partition] += entry.skipped + 1;
            } else {
                without.add(version, entry, Tenure(*tenure));
            }
        }
        let (mut whole, without) = (whole.finish(), without.finish());
        let is_left = whole.drop_tenures(&lost);
        prop_assert_eq!(is_left, !without.is_empty());
        prop_assert!(whole.spans().eq(without.spans()));
        for index in 0..DIMENSIONS.len() {
            let (left, wanted) = (whole.changes(TableId(index)), without.changes(TableId(index)));
            let rows = |changes: &TableChanges<'_>| -> Vec<(String, Stored)> {
                changes.upserts.iter().map(|row| (row.id.to_owned(), Stored::of(row))).collect()
            };
            let keys = |changes: &TableChanges<'_>| -> Vec<String> {
                changes.deletes.iter().map(|deletion| deletion.id.to_owned()).collect()
            };
            prop_assert_eq!(rows(&left), rows(&wanted));
            prop_assert_eq!(keys(&left), keys(&wanted));
        }
        let places = |batch: &Batch| -> Vec<(Partition, i64)> {
            batch.rejected().map(|letter| (letter.partition.clone(), letter.offset)).collect()
        };
        prop_assert_eq!(places(&whole), places(&without));
        let counted = |batch: &Batch| (batch.records(), batch.source_bytes(), batch.timestamps().collect::<Vec<_>>());
        prop_assert_eq!(counted(&whole), counted(&without));
        // Dropping again changes nothing.
        prop_assert_eq!(whole.drop_tenures(&lost), is_left);
        prop_assert!(whole.spans().eq(without.spans()));
        prop_assert_eq!(counted(&whole), counted(&without));
    }

    #[test]
    fn every_record_counts_and_the_memory_it_takes_too(log in prop::collection::vec(any_entry(), 1..40)) {
        let mut gatherer = Gatherer::new();
        prop_assert!(gatherer.batch.is_empty());
        prop_assert_eq!(gatherer.batch.bytes(), 0);
        for (version, entry) in log.iter().enumerate() {
            let before = gatherer.batch.bytes();
            gatherer.add(version, entry, Tenure(1));
            let batch = &gatherer.batch;
            prop_assert!(!batch.is_empty());
            prop_assert_eq!(batch.records(), version + 1);
            prop_assert_eq!(batch.source_bytes(), (version + 1) * ("key".len() + "payload".len()));
            let least = match entry.ask {
                Ask::Upsert { table, key } => 4 * DIMENSIONS[table] + KEYS[key].len(),
                Ask::Delete { key } => DIMENSIONS.len() * KEYS[key].len(),
                Ask::Reject => "key".len() + "payload".len(),
            };
            prop_assert!(batch.bytes() > before + least, "what keeps account of it counts as well");
        }
    }
}

/// A batch with one row of each of these partitions, all under tenure 1.
fn batch_of(id: u64, partitions: &[usize]) -> Batch {
    let mut batch = Batch::new(id, &router());
    for number in partitions {
        let partition = partition(*number);
        let place = Place { partition: &partition, tenure: Tenure(1), stored: 5 };
        let (embedding, vector) = embedding(1, "a");
        batch.upsert(&place, &source_record(7), TableId(0), &embedding, &vector[..2]);
    }
    batch
}

#[test]
fn a_span_goes_from_what_was_stored_to_behind_its_last_record() {
    let mut batch = batch_of(1, &[0]);
    let partition = partition(0);
    // What is stored by now no longer matters: the batch goes on from where it began.
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 8 };
    batch.delete(&place, &source_record(20), "a");
    batch.reject(&place, &source_record(21), None, Reject::new(RejectReason::BadJson, "no JSON"));
    let retaken = Place { partition: &partition, tenure: Tenure(2), stored: 6 };
    batch.delete(&retaken, &source_record(6), "a");
    let spans: Vec<(Tenure, i64, i64)> =
        batch.spans().map(|span| (span.tenure, span.from, span.to)).collect();
    assert_eq!(spans, [(Tenure(1), 5, 22), (Tenure(2), 6, 7)]);
}

#[test]
fn a_dead_letter_keeps_the_whole_record_with_its_headers() {
    let mut headers = HeadersBuilder::default();
    headers.push(b"traceparent", Some(b"00-1"));
    headers.push(b"traceparent", None);
    headers.push(b"", Some(b""));
    let records = [
        SourceRecord {
            offset: 3,
            timestamp: None,
            key: None,
            payload: Some(b"\xff\0"),
            headers: headers.headers(),
            omitted: 0,
        },
        SourceRecord {
            offset: 4,
            payload: None,
            timestamp: Some(9),
            key: Some(b"\xfe"),
            headers: Headers::default(),
            omitted: 0,
        },
    ];
    let run = run_of(2, &records);
    let mut batch = Batch::new(1, &router());
    batch.keep(&run);
    let partition = partition(2);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    for record in run.records() {
        batch.reject(&place, &record, Some(TableId(1)), Reject::new(RejectReason::InvalidUtf8, "byte 0"));
    }
    drop(run);
    let letters: Vec<DeadLetter<'_>> = batch.dead_letters().collect();
    let [first, second] = letters[..] else { panic!("{letters:?}") };
    assert_eq!((first.rejected.offset, first.record.timestamp, first.record.key), (3, None, None));
    assert_eq!(first.record.payload, Some(&b"\xff\0"[..]));
    let kept: Vec<_> = first.record.headers.iter().collect();
    assert_eq!(kept, [(&b"traceparent"[..], Some(&b"00-1"[..])), (b"traceparent", None), (b"", Some(b""))]);
    assert_eq!((second.record.key, second.record.payload), (Some(&b"\xfe"[..]), None));
    assert!(second.record.headers.is_empty());
    assert_eq!(second.table, Some("table 1"));
}

/// A run of partition `number` with these records.
fn run_of(number: usize, records: &[SourceRecord<'_>]) -> Arc<Fetched> {
    let mut run = FetchedBuilder::new(partition(number), Tenure(1));
    for record in records {
        run.push(*record);
    }
    Arc::new(run.finish())
}

#[test]
fn a_refused_record_is_a_dead_letter_and_what_it_had_overtaken_is_written() {
    let records = [source_record(0), source_record(1), source_record(2)];
    let run = run_of(0, &records);
    let mut batch = Batch::new(1, &router());
    batch.keep(&run);
    let partition = partition(0);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    for (version, record) in run.records().enumerate().take(2) {
        let (embedding, vector) = embedding(version, "a");
        batch.upsert(&place, &record, TableId(0), &embedding, &vector[..2]);
    }
    let refuse = |batch: &mut Batch, entry| {
        let reject = Reject::new(RejectReason::Refused, "a check constraint refuses a row");
        batch.refuse(vec![Refusal { table: TableId(0), entry, reject }]);
    };
    let last = batch.changes(TableId(0)).upserts[0];
    assert_eq!(last.timestamp, Some(1));
    let entry = last.entry;
    refuse(&mut batch, entry);
    let before = batch.changes(TableId(0)).upserts[0];
    assert_eq!(before.timestamp, None, "version 0 has none");
    let places: Vec<i64> = batch.rejected().map(|rejected| rejected.offset).collect();
    assert_eq!(places, [1]);
    assert_eq!(batch.spans().next().map(|span| span.to), Some(2), "the position covers it all the same");

    // A tombstone that one table refuses is refused as a whole, once.
    let tombstone = run.record_at(2).expect("the third record");
    batch.delete(&place, &tombstone, "b");
    let [first, second] = [0, 1].map(|table| batch.changes(TableId(table)).deletes[0].entry);
    refuse(&mut batch, first);
    let reject = Reject::new(RejectReason::Refused, "a foreign key has no match");
    batch.refuse(vec![Refusal { table: TableId(1), entry: second, reject }]);
    assert_eq!(batch.rejected().count(), 2);
    assert!([0, 1].iter().all(|table| batch.changes(TableId(*table)).deletes.is_empty()));
}

/// What a database does with one change, where rows that are newer stay.
fn apply_newer(stored: Option<i64>, change: Option<i64>, deletes: bool) -> Option<i64> {
    let version = change.unwrap_or(if deletes { i64::MAX } else { i64::MIN });
    match stored {
        Some(newer) if newer > version => stored,
        _ if deletes => None,
        _ => Some(version),
    }
}

proptest! {
    #[test]
    fn where_stale_writes_are_skipped_a_batch_does_what_its_records_would_one_by_one(
        log in prop::collection::vec((prop::option::weighted(0.9, 0..6_i64), any::<bool>()), 1..12),
        stored in prop::option::of((0..7_i64).prop_map(|version| version * 1_000)),
    ) {
        let limits = TableLimits { skip_stale: true, ..router().tables()[0].clone() };
        let router = Router::new(vec![limits]);
        let (mut batch, partition) = (Batch::new(0, &router), partition(0));
        let mut one_by_one = stored;
        for (offset, (version, deletes)) in log.iter().enumerate() {
            let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
            // Kafka counts milliseconds, and rows microseconds.
            let record = SourceRecord { timestamp: *version, ..source_record(offset as i64) };
            let micros = version.map(|version| version * 1_000);
            if *deletes {
                batch.delete(&place, &record, "a");
            } else {
                let (embedding, vector) = embedding(1, "a");
                let embedding = Embedding { timestamp: micros, ..embedding };
                batch.upsert(&place, &record, TableId(0), &embedding, &vector[..2]);
            }
            one_by_one = apply_newer(one_by_one, micros, *deletes);
        }
        let changes = batch.changes(TableId(0));
        prop_assert!(changes.upserts.len() <= 1 && changes.deletes.len() <= 1);
        let mut at_once = stored;
        for deletion in &changes.deletes {
            at_once = apply_newer(at_once, deletion.timestamp, true);
        }
        for row in &changes.upserts {
            at_once = apply_newer(at_once, row.timestamp, false);
        }
        prop_assert_eq!(at_once, one_by_one);
    }
}

#[test]
fn a_settled_batch_gives_the_positions_of_what_it_still_covers() {
    let mut batch = batch_of(3, &[0, 1, 2]);
    assert!(batch.drop_tenures(&[(partition(1), Tenure(1)), (partition(2), Tenure(2))]));
    let point = batch.settle(&Receipt::for_tests(3));
    assert_eq!(point.next_offsets(), [(partition(0), 8), (partition(2), 8)]);
}

#[test]
#[should_panic(expected = "a receipt settles the batch it was made for")]
fn a_receipt_of_another_batch_settles_nothing() {
    drop(batch_of(3, &[0]).settle(&Receipt::for_tests(4)));
}

#[test]
fn a_batch_of_which_everything_is_lost_has_nothing_left_to_write() {
    let mut batch = batch_of(1, &[0, 1]);
    assert!(batch.drop_tenures(&[(partition(0), Tenure(1))]));
    assert!(!batch.drop_tenures(&[(partition(1), Tenure(1))]), "what was lost before stays lost");
    assert_eq!(batch.spans().count(), 0);
    assert!(batch.changes(TableId(0)).upserts.is_empty());
}
