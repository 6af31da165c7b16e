//! The rows that everything is measured with, made from their numbers, and their records as JSON.
//!
//! Vectors have length 1 and lie around 256 centres, as embeddings of texts on some subjects do. A record prints
//! each number as Python's `json.dumps` prints a 32-bit float: widened to 64 bits, with all digits that takes.

use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::support::random::Random;

/// One row, as it stands in a table.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) embedding: Vec<f32>,
    /// Microseconds since the Unix epoch.
    pub(crate) timestamp: i64,
    pub(crate) source: &'static str,
    /// The text of a JSON object.
    pub(crate) metadata: String,
}

/// Which state of a row is meant. What differs in one of them alone is the same in all else.
#[derive(Clone, Copy, Default)]
pub(crate) struct Version {
    /// Of text, vector and timestamp.
    pub(crate) content: u64,
    /// Of the metadata.
    pub(crate) metadata: u64,
}

/// 2026-01-01, in milliseconds.
const EPOCH: i64 = 1_767_225_600_000;
const CENTRES: usize = 256;
const WORDS: [&str; 16] = [
    "vector", "search", "stream", "of", "records", "in", "order", "the", "index", "keeps", "what", "was",
    "written", "and", "finds", "near",
];

/// Makes rows. The same number and version always give the same row.
pub(crate) struct Rows {
    centres: Vec<Vec<f32>>,
}

impl Rows {
    /// Rows with vectors of this length.
    pub(crate) fn new(dimensions: usize) -> Self {
        let mut random = Random::seeded(7);
        let centre = || (0..dimensions).map(|_| bell(&mut random)).collect();
        Self { centres: std::iter::repeat_with(centre).take(CENTRES).collect() }
    }

    /// The row with this number.
    pub(crate) fn row(&self, number: usize, version: Version) -> Row {
        let mut random = Random::seeded((number as u64) << 8 | version.content);
        let centre = &self.centres[random.below(CENTRES)];
        let mut embedding: Vec<f32> = centre.iter().map(|at| at + 0.75 * bell(&mut random)).collect();
        let length = embedding.iter().map(|number| number * number).sum::<f32>().sqrt();
        embedding.iter_mut().for_each(|number| *number /= length);
        let words: Vec<&str> = (0..20).map(|_| random.pick(&WORDS)).collect();
        Row {
            id: id(number),
            text: format!("{} ({}, {number})", words.join(" "), version.content),
            embedding,
            timestamp: (EPOCH + number as i64 + version.content as i64 * 86_400_000) * 1000,
            source: "bench",
            metadata: format!(
                "{{\"lang\": \"en\", \"page\": {}, \"tags\": [\"a\", \"b\"], \"views\": {}}}",
                number % 400,
                version.metadata
            ),
        }
    }
}

/// The id of the row with this number.
pub(crate) fn id(number: usize) -> String {
    format!("doc-{number:08}")
}

impl Row {
    /// The timestamp as the driver takes it.
    pub(crate) fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.timestamp as u64)
    }

    /// The record that asks for this row. `payload` is overwritten.
    pub(crate) fn render(&self, payload: &mut Vec<u8>) {
        payload.clear();
        let Self { id, text, metadata, source, .. } = self;
        let timestamp = jiff::Timestamp::from_microsecond(self.timestamp).unwrap();
        write!(payload, "{{\"id\": \"{id}\", \"text\": \"{text}\", \"embedding\": [").unwrap();
        for (index, number) in self.embedding.iter().enumerate() {
            if index > 0 {
                payload.extend_from_slice(b", ");
            }
            print(f64::from(*number), payload);
        }
        write!(
            payload,
            "], \"timestamp\": \"{timestamp}\", \"source\": \"{source}\", \"metadata\": {metadata}}}"
        )
        .unwrap();
    }
}

/// Prints a number as Python does: the fewest digits that give it again, and an exponent below 0.0001.
fn print(number: f64, out: &mut Vec<u8>) {
    if number == 0.0 || number.abs() >= 1e-4 {
        serde_json::to_writer(out, &number).unwrap();
        return;
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once("e-").unwrap();
    write!(out, "{digits}e-{exponent:0>2}").unwrap();
}

/// A number around 0, in a curve near to that of a normal distribution.
fn bell(random: &mut Random) -> f32 {
    let bits = random.next();
    let sum: u64 = (0..4).map(|part| bits >> (part * 16) & 0xFFFF).sum();
    sum as f32 / 65_535.0 - 2.0
}
