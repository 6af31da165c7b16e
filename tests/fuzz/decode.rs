//! Records: `decode` against the reference decoder.

use embedsink::decode::{Change, decode};
use embedsink::source::{Headers, SourceRecord};

use crate::random::Random;
use crate::reference::{self, Answer};
use crate::{Target, generate, mutate};

/// Keys that a record may have; the first byte of an input names one.
const KEYS: &[Option<&[u8]>] =
    &[Some(b"the key"), None, Some(b""), Some(b"k\xc3\xa9y"), Some(b"\xff\xfe"), Some(b"a\0b")];
/// Timestamps likewise.
const TIMES: &[Option<i64>] = &[Some(1_000), None, Some(i64::MAX), Some(-1)];

/// Its inputs are a byte that says which key and timestamp the record has, and the payload.
pub(crate) const TARGET: Target = Target { name: "records", make, run, share: 90 };

/// How answers begin, without digits, one for each thing that can become of a record here.
pub(crate) const ANSWERS: &[&str] = &[
    "records: a row",
    "records: deletes",
    "records: bad_json",
    "records: invalid_utf",
    "records: missing_id",
    "records: bad_id",
    "records: missing_embedding",
    "records: bad_embedding",
    "records: not_finite",
    "records: bad_timestamp",
    "records: bad_metadata",
    "records: bad_field",
    "records: nul_byte",
];

fn make(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    if random.chance(40) {
        let mut input = vec![random.next() as u8];
        input.extend(generate::payload(random));
        if random.chance(30) {
            return mutate::mutated(random, &[input], mutate::JSON_PIECES);
        }
        return input;
    }
    mutate::mutated(random, inputs, mutate::JSON_PIECES)
}

fn run(input: &[u8]) -> Result<String, String> {
    let (choice, payload) = input.split_first().unwrap_or((&0, &[]));
    // The corpus is text, and its first byte is a letter.
    let choice = usize::from(choice.wrapping_sub(b'a'));
    let record = SourceRecord {
        offset: 0,
        timestamp: TIMES[choice / KEYS.len() % TIMES.len()],
        key: KEYS[choice % KEYS.len()],
        // A few are tombstones.
        payload: (choice < 250).then_some(payload),
        headers: Headers::default(),
        omitted: 0,
    };
    let mut vector = vec![f32::NAN];
    let found = decode(&record, &mut vector);
    let wanted = reference::decode(&record);
    match (&found, &wanted) {
        (Ok(Change::Delete { id }), Answer::Delete(wanted)) if id == wanted => Ok("deletes".to_owned()),
        (Ok(Change::Upsert(row)), Answer::Upsert(wanted)) => {
            let is_same = row.id == wanted.id
                && row.text.as_deref() == wanted.text.as_deref()
                && row.source.as_deref() == wanted.source.as_deref()
                && row.table_name.as_deref() == wanted.table_name.as_deref()
                && row.timestamp == wanted.timestamp
                && row.metadata == wanted.metadata.as_deref();
            if !is_same {
                return Err(format!(
                    "a field is another than {wanted:?}: {:?} {:?}",
                    row.timestamp, row.metadata
                ));
            }
            if !vector
                .iter()
                .map(|number| number.to_bits())
                .eq(wanted.vector.iter().map(|number| number.to_bits()))
            {
                return Err(format!("the vector is {vector:?}, and should be {:?}", wanted.vector));
            }
            Ok(format!("a row, {} {} {}", row.text.is_some(), row.metadata.is_some(), vector.len().min(3)))
        }
        (Err(reject), Answer::Reject(allowed)) if allowed.contains(&reject.reason) => {
            Ok(kind(&reject.to_string()))
        }
        _ => Err(format!("it became {found:?}, and should be {wanted:?}")),
    }
}

/// A message without its numbers.
pub(crate) fn kind(message: &str) -> String {
    message.split(|character: char| character.is_ascii_digit()).filter(|piece| !piece.is_empty()).collect()
}
