//! What the tests begin and end with.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sink_lancedb::{
    Dataset, DatasetOptions, KeyedReader, KeyedRow, KeyedSpec, KeyedTable, Kind, StoredRow, Upkeep, Value,
    VectorReader,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::support::connector::{Connector, Process, SHORT_SESSION};
use crate::support::kafka::Topic;
use crate::support::random::Random;
use crate::support::record::{Generator, Outcome, Record, Row, Shape};
use crate::support::servers;

/// Repeated keys in two tables, tombstones and bad records, over four partitions.
pub(crate) const MIXED: Shape = Shape {
    tables: &[("embeddings", 8), ("articles", 12)],
    partitions: 4,
    ids: 15_000,
    tombstones: 8,
    damaged: 3,
};

/// A topic with records, and a connector that takes them to a dataset in its folder.
pub(crate) struct Stage {
    pub(crate) connector: Connector,
    pub(crate) topic: Topic,
    pub(crate) log: Vec<Record>,
    pub(crate) generator: Generator,
    /// Where the dataset is, unless in the folder `data`.
    pub(crate) store: Option<DatasetOptions>,
}

/// A row of one of the tables. `None`: there is none.
type State<'a> = Option<&'a Row>;
/// Index of a table, and a key.
type Key<'a> = (usize, &'a str);

impl Stage {
    /// With so many records of [`MIXED`].
    pub(crate) async fn new(test: &str, records: usize) -> Self {
        let mut generator = Generator::new(Random::new(test), MIXED);
        let mut log = generator.records(records);
        log.iter_mut().for_each(adapt);
        let topic = Topic::create_on(servers::kafka_port(), MIXED.partitions).await;
        topic.produce(&log);
        let mut connector = Connector::on_lance(&topic, &MIXED);
        connector.kafka.push_str(SHORT_SESSION);
        // Batches so small that whatever happens, happens in the middle of one.
        connector.more.push_str("batch: {max-rows: 500, max-wait: 20ms, linger: 5ms}");
        Self { connector, topic, log, generator, store: None }
    }

    /// Writes more records into the topic.
    pub(crate) fn produce(&mut self, records: usize) {
        let mut more = self.generator.records(records);
        more.iter_mut().for_each(adapt);
        self.topic.produce(&more);
        self.log.extend(more);
    }

    /// The dataset, to read from.
    pub(crate) fn dataset(&self) -> Dataset {
        let folder = || DatasetOptions::new(self.connector.file("data").to_str().unwrap());
        Dataset::open(self.store.clone().unwrap_or_else(folder)).unwrap()
    }

    /// The stored positions by partition; none before there is a table.
    pub(crate) async fn positions(&self) -> BTreeMap<i32, i64> {
        let rows = read(&self.dataset(), positions_spec()).await;
        let position = |row: &KeyedRow| match row.values.as_slice() {
            [
                Value::Text(connector),
                Value::Text(topic),
                Value::Integer(partition),
                Value::Integer(next),
                ..,
            ] => {
                assert_eq!((connector.as_str(), topic.as_str()), (self.connector.name(), self.topic.name()));
                (*partition as i32, *next)
            }
            other => panic!("a position is {other:?}"),
        };
        rows.iter().map(position).collect()
    }

    /// Leaves the dataset as a process does that is killed before it has stored any position.
    pub(crate) async fn forget_positions(&self) {
        let locked = self.dataset().lock().unwrap();
        let mut table = KeyedTable::open(&locked, positions_spec()).await.unwrap();
        let rows = table.reader().all(None).await.unwrap();
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(table.remove(&keys).await.unwrap(), keys.len() as u64);
    }

    /// What a process tells of itself, once it fulfils `holds`.
    pub(crate) async fn status(
        &self,
        process: &mut Process,
        what: &str,
        holds: impl Fn(&Json) -> bool,
    ) -> Json {
        let socket = process.socket().to_owned();
        let told = async |_: &Process| {
            let mut text = String::new();
            UnixStream::connect(&socket).await.ok()?.read_to_string(&mut text).await.ok()?;
            // It may end while it answers.
            let document: Json = serde_json::from_str(&text).ok()?;
            holds(&document).then_some(document)
        };
        process.until(&format!("a status: {what}"), told).await
    }

    /// How many records are settled.
    pub(crate) async fn settled(&self) -> usize {
        self.positions().await.values().sum::<i64>() as usize
    }

    /// The line at which an import goes on. Lines count from 1.
    pub(crate) async fn next_line(&self) -> i64 {
        let rows = read(&self.dataset(), positions_spec()).await;
        let next = |row: &KeyedRow| match row.values.get(3) {
            Some(Value::Integer(next)) => *next,
            other => panic!("a position is {other:?}"),
        };
        rows.iter().map(next).max().unwrap_or(1)
    }

    /// Waits until a process tells that all partitions have begun and `count` records are settled. Asking it is much less work
    /// than reading the dataset.
    pub(crate) async fn settles(&self, process: &mut Process, count: usize) {
        let is_there = |told: &Json| {
            let partitions = told["sink"]["partitions"].as_array().map_or(&[][..], Vec::as_slice);
            let next = partitions.iter().filter_map(|partition| partition["next_offset"].as_u64());
            partitions.len() == self.topic.partitions() && next.sum::<u64>() >= count as u64
        };
        self.status(process, &format!("{count} records to be settled"), is_there).await;
    }

    /// Lets a process go on to the end of the log, and stops it. Returns what it logged.
    pub(crate) async fn finish(&self, mut process: Process) -> String {
        self.settles(&mut process, self.log.len()).await;
        process.stop().await
    }

    /// Every table, dead letters too, has all that lies before the stored positions. What lies behind them may be there, too.
    pub(crate) async fn assert_consistent(&self) {
        let ends = self.positions().await;
        let (mut settled, mut later) =
            (BTreeMap::<Key<'_>, State<'_>>::new(), BTreeMap::<Key<'_>, Vec<State<'_>>>::new());
        for record in &self.log {
            let is_settled = record.offset < ends.get(&record.partition).copied().unwrap_or(0);
            for (key, state) in changes(record) {
                if is_settled {
                    settled.insert(key, state);
                } else {
                    later.entry(key).or_default().push(state);
                }
            }
        }
        let letters = self.letters().await;
        for record in &self.log {
            let is_settled = record.offset < ends.get(&record.partition).copied().unwrap_or(0);
            let is_there = letters.contains_key(&(record.partition, record.offset));
            let is_dead = matches!(record.outcome, Outcome::Dead(_));
            assert!(
                if is_dead { is_there || !is_settled } else { !is_there },
                "{}[{}] has a dead letter: {is_there}, is damaged: {is_dead}",
                record.offset,
                record.partition
            );
        }
        let stored = self.rows().await;
        let keys = settled.keys().chain(later.keys()).copied();
        for (table, id) in keys {
            let found = stored.get(&(table, id.to_owned()));
            let fits = |state: &State<'_>| match (state, found) {
                (None, None) => true,
                (Some(row), Some(found)) => is(row, found),
                _ => false,
            };
            let at_position = settled.get(&(table, id)).copied().unwrap_or_default();
            let is_good =
                fits(&at_position) || later.get(&(table, id)).is_some_and(|later| later.iter().any(fits));
            assert!(
                is_good,
                "{id} of {} is there {}, at its position {}, and {} states come later",
                MIXED.tables[table].0,
                found.is_some(),
                at_position.is_some(),
                later.get(&(table, id)).map_or(0, Vec::len)
            );
        }
    }

    /// The tables and the dead letters equal the fold of the whole log, and no key is there twice.
    pub(crate) async fn assert_complete(&self) {
        let mut expected = BTreeMap::new();
        for record in &self.log {
            for (key, state) in changes(record) {
                match state {
                    Some(row) => expected.insert(key, row),
                    None => expected.remove(&key),
                };
            }
        }
        let stored = self.rows().await;
        assert_eq!(stored.len(), expected.len(), "rows");
        for ((table, id), row) in expected {
            let found = stored.get(&(table, id.to_owned()));
            assert!(
                found.is_some_and(|found| is(row, found)),
                "{id} of {} is {found:?}",
                MIXED.tables[table].0
            );
        }
        let mut letters = self.letters().await;
        for record in &self.log {
            if let Outcome::Dead(reason) = record.outcome {
                let letter = letters.remove(&(record.partition, record.offset));
                let letter =
                    letter.unwrap_or_else(|| panic!("no letter for {}[{}]", record.offset, record.partition));
                assert_eq!(
                    (letter.reason.as_str(), &letter.key, &letter.payload),
                    (reason, &record.key, &record.payload)
                );
            }
        }
        assert!(letters.is_empty(), "{} letters of good records", letters.len());
    }

    /// The rows of all tables, by the index of the table and the key.
    ///
    /// # Panics
    /// When a key is there twice.
    pub(crate) async fn rows(&self) -> BTreeMap<(usize, String), StoredRow> {
        let mut rows = BTreeMap::new();
        for (table, (name, _)) in MIXED.tables.iter().enumerate() {
            let mut reader = VectorReader::open(&self.dataset(), name).await.unwrap();
            for row in reader.first(1_000_000).await.unwrap() {
                let id = row.id.clone();
                assert!(rows.insert((table, id.clone()), row).is_none(), "{id} is in {name} twice");
            }
        }
        rows
    }

    /// The dead letters by partition and offset.
    ///
    /// # Panics
    /// When a record has two.
    pub(crate) async fn letters(&self) -> BTreeMap<(i32, i64), Letter> {
        let rows = read(&self.dataset(), letters_spec()).await;
        let mut letters = BTreeMap::new();
        for row in rows {
            let [
                _,
                _,
                Value::Integer(partition),
                Value::Integer(offset),
                key,
                headers,
                payload,
                _,
                table,
                Value::Text(reason),
                ..,
            ] = row.values.as_slice()
            else {
                panic!("a letter is {:?}", row.values)
            };
            let bytes =
                |value: &Value| if let Value::Bytes(bytes) = value { Some(bytes.clone()) } else { None };
            let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
            let letter = Letter {
                key: bytes(key),
                headers: text(headers),
                payload: bytes(payload),
                table: text(table),
                reason: reason.clone(),
            };
            assert!(
                letters.insert((*partition as i32, *offset), letter).is_none(),
                "a record has two letters"
            );
        }
        letters
    }
}

/// LanceDB's strings take what is too long for a column of PostgreSQL. Such a record is damaged otherwise.
fn adapt(record: &mut Record) {
    if let Outcome::Dead("id_too_long" | "field_too_long") = record.outcome {
        (record.payload, record.outcome) = (Some(b"no JSON".to_vec()), Outcome::Dead("bad_json"));
    }
}

/// A dead letter, in part.
pub(crate) struct Letter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Option<String>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) table: Option<String>,
    pub(crate) reason: String,
}

/// What a record does to each key.
fn changes(record: &Record) -> Vec<(Key<'_>, State<'_>)> {
    match &record.outcome {
        Outcome::Row(row) => vec![((row.table, row.id.as_str()), Some(row))],
        Outcome::Delete(id) => (0..MIXED.tables.len()).map(|table| ((table, id.as_str()), None)).collect(),
        Outcome::Dead(_) | Outcome::Open => Vec::new(),
    }
}

/// Whether a stored row is this one, the embedding bit by bit.
fn is(row: &Row, stored: &StoredRow) -> bool {
    let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    let metadata = stored.metadata.as_deref().map(|json| serde_json::from_str(json).unwrap());
    row.id == stored.id
        && row.text == stored.text
        && row.source == stored.source
        && Some(row.timestamp) == stored.timestamp
        && Some(&row.metadata) == metadata.as_ref()
        && bits(&row.embedding) == bits(&stored.embedding)
}

async fn read(dataset: &Dataset, spec: KeyedSpec) -> Vec<KeyedRow> {
    match KeyedReader::open(dataset, spec).await {
        Ok(mut reader) => reader.all(None).await.unwrap(),
        Err(sink_lancedb::Error::NoTable { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

fn spec(name: &str, columns: &[(&str, Kind)]) -> KeyedSpec {
    let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    KeyedSpec { name: name.to_owned(), columns, upkeep: Upkeep::default() }
}

/// The columns that users read.
pub(crate) fn positions_spec() -> KeyedSpec {
    spec(
        "embedsink_offsets",
        &[
            ("connector", Kind::Text),
            ("topic", Kind::Text),
            ("partition", Kind::Integer),
            ("next_offset", Kind::Integer),
            ("epoch", Kind::Integer),
            ("last_offset", Kind::Integer),
            ("last_timestamp", Kind::Integer),
            ("created_at", Kind::Timestamp),
            ("updated_at", Kind::Timestamp),
        ],
    )
}

fn letters_spec() -> KeyedSpec {
    spec(
        "embedsink_dead_letters",
        &[
            ("connector", Kind::Text),
            ("topic", Kind::Text),
            ("partition", Kind::Integer),
            ("offset", Kind::Integer),
            ("record_key", Kind::Bytes),
            ("headers", Kind::Text),
            ("payload", Kind::Bytes),
            ("payload_bytes", Kind::Integer),
            ("table_name", Kind::Text),
            ("reason", Kind::Text),
            ("message", Kind::Text),
            ("record_timestamp", Kind::Timestamp),
            ("first_seen", Kind::Timestamp),
        ],
    )
}
