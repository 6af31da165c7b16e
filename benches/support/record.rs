//! Records as producers write them, the same in every run.

use std::fmt::Write as _;

#[path = "../../tests/support/random.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use the rest of it")]
mod random;

use embedsink::source::{Headers, SourceRecord};
use random::Random;

/// How many records are measured at a time: more than a processor's second cache holds, as it is with records that
/// have just come from a broker, and too many for it to learn their numbers.
#[allow(dead_code, reason = "not every measurement needs it")]
pub(crate) const RECORDS: usize = 500;

/// A record with this payload.
pub(crate) fn record(offset: i64, payload: &[u8]) -> SourceRecord<'_> {
    SourceRecord {
        offset,
        timestamp: Some(1_700_000_000_000),
        key: None,
        payload: Some(payload),
        headers: Headers::default(),
        omitted: 0,
    }
}

/// How a producer prints the numbers of a vector.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "not every measurement needs all")]
pub(crate) enum Numbers {
    /// As Python's `json.dumps` prints an `f32` that was made an `f64`: mostly 16 or 17 significant digits.
    Python,
    /// The shortest that reads back as the same `f32`, as Rust and Java print them: 7 to 9 digits.
    Short,
    /// As [`Python`](Self::Python), of a vector that nobody has brought to length 1: up to two digits before the
    /// point.
    AboveOne,
}

/// The payloads of `count` records, each with its own id, text and unit vector.
#[allow(dead_code, reason = "not every measurement needs it")]
pub(crate) fn payloads(count: usize, dimensions: usize, numbers: Numbers) -> Vec<Vec<u8>> {
    let mut random = Random::seeded(7);
    (0..count).map(|number| payload(&mut random, number, dimensions, numbers)).collect()
}

fn payload(random: &mut Random, number: usize, dimensions: usize, numbers: Numbers) -> Vec<u8> {
    let vector = unit_vector(random, dimensions);
    let mut json = format!("{{\"id\": \"doc-{number:07}\", \"text\": \"");
    while json.len() < 220 {
        let word =
            random.pick(&["stream", "of", "records", "with", "an", "embedding", "each", "and", "text"]);
        json.push_str(word);
        json.push(' ');
    }
    json.push_str("end\", \"embedding\": [");
    for (index, value) in vector.into_iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        json.push_str(separator);
        let wide = f64::from(value);
        let written = match numbers {
            // Python turns to exponents below 1e-4, and writes two digits of them at least.
            Numbers::Python if wide.abs() < 1e-4 => write!(json, "{}", with_exponent(wide)),
            Numbers::Python => write!(json, "{wide:?}"),
            Numbers::AboveOne => write!(json, "{:?}", f64::from(value * (dimensions as f32).sqrt() * 5.0)),
            Numbers::Short => write!(json, "{value:?}"),
        };
        written.expect("a String takes everything");
    }
    let (page, score) = (random.below(500), random.below(100));
    let rest = format!(
        "], \"timestamp\": \"2024-01-01T00:00:00Z\", \"source\": \"wiki\", \
         \"metadata\": {{\"lang\": \"en\", \"page\": {page}, \"tags\": [\"a\", \"b\"], \"score\": 0.{score:02}}}}}"
    );
    json.push_str(&rest);
    json.into_bytes()
}

fn with_exponent(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((mantissa, exponent)) => format!("{mantissa}e-{exponent:0>2}"),
        None => text,
    }
}

/// A vector of length 1, whose numbers are spread as a sum of twelve even ones is: nearly normally.
fn unit_vector(random: &mut Random, dimensions: usize) -> Vec<f32> {
    let vector: Vec<f64> =
        (0..dimensions).map(|_| (0..12).map(|_| random.fraction()).sum::<f64>() / 2.0).collect();
    let length = vector.iter().map(|number| number * number).sum::<f64>().sqrt();
    vector.into_iter().map(|number| (number / length) as f32).collect()
}
