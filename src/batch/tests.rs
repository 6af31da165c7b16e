use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::reject::RejectReason;
use crate::route::TableLimits;

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
    };
    Router::new(DIMENSIONS.iter().enumerate().map(table).collect())
}

fn partition(number: usize) -> Partition {
    Partition::new("topic", number as i32)
}

fn source_record(offset: i64) -> SourceRecord<'static> {
    SourceRecord { offset, timestamp: Some(offset), key: Some(b"key"), payload: Some(b"payload") }
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
            assert!(changes.deletes.is_sorted_by(|a, b| a < b));
            assert!(changes.deletes.iter().all(|key| !keys.contains(key)), "a key has one fate");
            for row in &changes.upserts {
                assert_eq!(row.embedding.len(), DIMENSIONS[index]);
                table.insert(row.id.to_owned(), Stored::of(row));
            }
            for key in changes.deletes {
                table.remove(key);
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
                self.batch.reject(&place, &record, Reject::new(RejectReason::BadJson, "no JSON"));
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
            prop_assert_eq!(left.upserts, wanted.upserts);
            prop_assert_eq!(left.deletes, wanted.deletes);
        }
        let places = |batch: &Batch| -> Vec<(Partition, i64)> {
            batch.rejected().map(|letter| (letter.partition.clone(), letter.offset)).collect()
        };
        prop_assert_eq!(places(&whole), places(&without));
        // Dropping again changes nothing.
        prop_assert_eq!(whole.drop_tenures(&lost), is_left);
        prop_assert!(whole.spans().eq(without.spans()));
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
    batch.reject(&place, &source_record(21), Reject::new(RejectReason::BadJson, "no JSON"));
    let retaken = Place { partition: &partition, tenure: Tenure(2), stored: 6 };
    batch.delete(&retaken, &source_record(6), "a");
    let spans: Vec<(Tenure, i64, i64)> =
        batch.spans().map(|span| (span.tenure, span.from, span.to)).collect();
    assert_eq!(spans, [(Tenure(1), 5, 22), (Tenure(2), 6, 7)]);
}

#[test]
fn a_dead_letter_keeps_the_whole_record() {
    let mut batch = Batch::new(1, &router());
    let partition = partition(2);
    let place = Place { partition: &partition, tenure: Tenure(1), stored: 0 };
    let record = SourceRecord { offset: 3, timestamp: None, key: None, payload: Some(b"\xff\0") };
    batch.reject(&place, &record, Reject::new(RejectReason::InvalidUtf8, "byte 0"));
    let tombstone = SourceRecord { offset: 4, timestamp: Some(9), key: Some(b"\xfe"), payload: None };
    batch.reject(&place, &tombstone, Reject::new(RejectReason::InvalidUtf8, "byte 0"));
    let letters: Vec<&Rejected> = batch.rejected().collect();
    let [first, second] = letters[..] else { panic!("{letters:?}") };
    assert_eq!((first.offset, first.timestamp, &first.key), (3, None, &None));
    assert_eq!(first.payload.as_deref(), Some(&b"\xff\0"[..]));
    assert_eq!((second.offset, second.timestamp, &second.payload), (4, Some(9), &None));
    assert_eq!(second.key.as_deref(), Some(&b"\xfe"[..]));
    assert_eq!(first.reject.reason, RejectReason::InvalidUtf8);
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
