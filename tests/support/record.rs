//! Records with a known outcome: what stands in the topic, and what must become of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::damage;
use super::random::Random;

/// In place of a timestamp: there is none.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// A record of the topic, and its outcome.
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch, or [`NO_TIME`].
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) outcome: Outcome,
}

/// What must become of a record.
pub(crate) enum Outcome {
    /// This row stands in its table, until a later record changes it.
    Row(Row),
    /// No table has a row with this id any more.
    Delete(String),
    /// It is kept as a dead letter, for this reason.
    Dead(&'static str),
    /// A row if a JSON library finds a good record in it, otherwise a dead letter.
    Open,
}

/// A row, as it must stand in the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Index of the table in the shape.
    pub(crate) table: usize,
    pub(crate) id: String,
    pub(crate) text: Option<String>,
    pub(crate) embedding: Vec<f32>,
    /// Microseconds since the Unix epoch, or [`NO_TIME`].
    pub(crate) timestamp: i64,
    pub(crate) source: Option<String>,
    pub(crate) metadata: Value,
}

/// What kind of records a test wants.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Names and dimensions of the tables.
    pub(crate) tables: &'static [(&'static str, usize)],
    pub(crate) partitions: i32,
    /// How many ids there are; with 0 every record has its own.
    pub(crate) ids: usize,
    /// Percentage of tombstones.
    pub(crate) tombstones: usize,
    /// Percentage of damaged records.
    pub(crate) damaged: usize,
}

/// A good record in parts, for damage to be done to it.
pub(crate) struct Draft {
    pub(crate) key: Option<Vec<u8>>,
    /// Names, and values as JSON.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// The vector's numbers as JSON.
    pub(crate) numbers: Vec<String>,
    pub(crate) row: Row,
}

impl Draft {
    /// Sets a field to a piece of JSON.
    pub(crate) fn set(&mut self, name: &'static str, json: impl Into<String>) {
        self.drop(name);
        self.fields.push((name, json.into()));
    }

    /// Takes a field out.
    pub(crate) fn drop(&mut self, name: &str) {
        self.fields.retain(|(field, _)| *field != name);
    }

    /// The payload.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut fields: Vec<String> = Vec::with_capacity(self.fields.len() + 1);
        fields.extend(self.fields.iter().map(|(name, json)| format!("{}: {json}", Value::from(*name))));
        if !self.fields.iter().any(|(name, _)| *name == "embedding") {
            fields.insert(fields.len().min(2), format!("\"embedding\": [{}]", self.numbers.join(", ")));
        }
        format!("{{{}}}", fields.join(", ")).into_bytes()
    }
}

/// Makes records. Offsets are known beforehand: the topic is empty at first, and nobody else writes to it.
pub(crate) struct Generator {
    pub(crate) random: Random,
    pub(crate) shape: Shape,
    count: usize,
    ends: Vec<i64>,
    /// The partition of a hash.
    partition_of: Option<fn(u64) -> usize>,
}

impl Generator {
    /// Begins with an empty topic.
    pub(crate) fn new(random: Random, shape: Shape) -> Self {
        Self { random, shape, count: 0, ends: vec![0; shape.partitions as usize], partition_of: None }
    }

    /// The same with partitions of this size.
    pub(crate) fn with_partitions(self, partition_of: fn(u64) -> usize) -> Self {
        Self { partition_of: Some(partition_of), ..self }
    }

    /// Goes on with a new, empty topic.
    pub(crate) fn begin_anew(&mut self) {
        self.ends.fill(0);
    }

    /// Goes on with a topic that has more partitions now, so that ids move to others.
    pub(crate) fn grow(&mut self, partitions: i32) {
        self.shape.partitions = partitions;
        self.ends.resize(partitions as usize, 0);
    }

    /// The next `count` records.
    pub(crate) fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    /// The next record.
    pub(crate) fn record(&mut self) -> Record {
        let id = self.id();
        if self.random.chance(self.shape.tombstones) {
            return self.place(&id.clone(), Some(id.clone().into_bytes()), None, Outcome::Delete(id));
        }
        let draft = self.draft(id);
        if self.random.chance(self.shape.damaged) {
            return self.damaged(draft, damage::pick);
        }
        self.good(draft)
    }

    /// A good record in parts, with an id of its own.
    pub(crate) fn new_draft(&mut self) -> Draft {
        let id = self.id();
        self.draft(id)
    }

    /// A good record from its parts.
    pub(crate) fn good(&mut self, draft: Draft) -> Record {
        let payload = Some(draft.render());
        self.place(&draft.row.id.clone(), draft.key, payload, Outcome::Row(draft.row))
    }

    /// A damaged record from its parts; `pick` chooses the damage.
    pub(crate) fn damaged(&mut self, mut draft: Draft, pick: fn(&mut Random) -> damage::Damage) -> Record {
        let damage = pick(&mut self.random);
        let payload = (damage.make)(&mut draft, &mut self.random);
        self.place(&draft.row.id, draft.key, payload, Outcome::Dead(damage.reason))
    }

    /// A record with this payload, whose outcome is open.
    pub(crate) fn open(&mut self, draft: Draft, payload: Vec<u8>) -> Record {
        self.place(&draft.row.id, draft.key, Some(payload), Outcome::Open)
    }

    fn id(&mut self) -> String {
        match self.shape.ids {
            // So far apart that damage does not turn one into another.
            0 => format!("doc-{}-{:016x}", self.count, self.random.next()),
            ids => format!("doc-{}", self.random.below(ids)),
        }
    }

    fn place(
        &mut self,
        id: &str,
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        outcome: Outcome,
    ) -> Record {
        let partition = self.partition(id);
        let offset = self.ends[partition];
        self.ends[partition] += 1;
        let timestamp = self.timestamp();
        self.count += 1;
        Record { partition: partition as i32, offset, timestamp, key, payload, outcome }
    }

    /// All records of an id stand in one partition, so that they have an order.
    fn partition(&self, id: &str) -> usize {
        let hash = hash(id.as_bytes());
        match self.partition_of {
            Some(partition_of) => partition_of(hash),
            None => (hash % self.ends.len() as u64) as usize,
        }
    }

    /// The timestamp of the next record.
    fn timestamp(&self) -> i64 {
        1_700_000_000_000 + self.count as i64 * 7
    }

    fn draft(&mut self, id: String) -> Draft {
        let partition = self.partition(&id);
        let metadata = json!({
            "partition": partition,
            "offset": self.ends[partition],
            "tags": ["α", "b\"c", self.random.below(1000)],
            "deep": {"er": [null, true, self.random.below(7)]},
        });
        let table = self.random.below(self.shape.tables.len());
        let (table_name, dimensions) = self.shape.tables[table];
        let random = &mut self.random;
        let numbers: Vec<String> = (0..dimensions).map(|_| number(random)).collect();
        // Each number is the 32-bit float that lies nearest to what is written.
        let embedding = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let text = random.chance(90).then(|| format!("text {} – naïve \"quoted\"\n", random.next()));
        let source = random.chance(80).then(|| format!("source {}", random.below(50)));
        let stated = random.chance(70).then(|| 1_600_000_000_000 + random.below(100_000_000_000) as i64);

        let mut fields = Vec::new();
        if random.chance(80) {
            fields.push(("id", Value::from(id.as_str()).to_string()));
        }
        if text.is_some() || random.chance(50) {
            fields.push(("text", Value::from(text.clone()).to_string()));
        }
        if let Some(millis) = stated {
            let rfc = jiff::Timestamp::from_millisecond(millis).unwrap().to_string();
            let json = if random.chance(50) { Value::from(rfc) } else { Value::from(millis) };
            fields.push(("timestamp", json.to_string()));
        }
        if let Some(source) = &source {
            fields.push(("source", Value::from(source.as_str()).to_string()));
        }
        fields.push(("metadata", metadata.to_string()));
        if random.chance(20) {
            fields.push(("unknown", "{\"id\": \"another\", \"embedding\": [1]}".to_owned()));
        }
        if table > 0 || random.chance(50) {
            fields.push(("table_name", Value::from(table_name).to_string()));
        }
        let timestamp = stated.unwrap_or_else(|| self.timestamp()) * 1000;
        let key = Some(id.clone().into_bytes());
        Draft { key, fields, numbers, row: Row { table, id, text, embedding, timestamp, source, metadata } }
    }
}

/// What decides about the partition (FNV-1a).
pub(crate) fn hash(id: &[u8]) -> u64 {
    id.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// A number as producers write it: with the digits of an `f64` or of an `f32`, plain or with an exponent.
fn number(random: &mut Random) -> String {
    let value = random.fraction();
    match random.below(4) {
        0 => format!("{}", value as f32),
        1 => format!("{value:e}"),
        _ => format!("{value}"),
    }
}

/// A file of records of 8.6 KB, a line each, as Python's `json.dumps` prints 384 numbers. Returns its size.
pub(crate) fn large_file(path: &Path, count: usize) -> u64 {
    let mut random = Random::new("a large file");
    let vectors: Vec<String> = (0..100)
        .map(|_| (0..384).map(|_| format!("{:.19}", random.fraction())).collect::<Vec<_>>().join(", "))
        .collect();
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 0..count {
        let vector = &vectors[number % vectors.len()];
        writeln!(
            file,
            "{{\"id\": \"doc-{number}\", \"text\": \"text {number}\", \"embedding\": [{vector}]}}"
        )
        .unwrap();
    }
    file.into_inner().unwrap().metadata().unwrap().len()
}
