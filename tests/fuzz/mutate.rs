//! Changes to an input that know nothing of its meaning.

use crate::random::Random;

/// Longest input. What is longer finds nothing more, and costs time.
const MAX_LENGTH: usize = 4 << 10;

/// Pieces of JSON that decoders get wrong.
pub(crate) const JSON_PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"\\ud83d\\ude00",
    b"\\u00e9",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\t",
    b"\x0b",
    b"null",
    b"true",
    b"nul",
    b"NaN",
    b"-Infinity",
    b"-",
    b"+",
    b".",
    b"e",
    b"E+",
    b"0",
    b"-0",
    b"-0.0",
    b"00",
    b"1e39",
    b"1e38",
    b"3.4028235677973366e38",
    b"3.4028235677973365e38",
    b"3.4028234663852886e38",
    b"340282356779733661637539395458142568447",
    b"1.1754942106924411e-38",
    b"1e-45",
    b"7.006492321624085e-46",
    b"7.006492321624086e-46",
    b"16777217",
    b"16777216.99999999999",
    b"9007199254740993",
    b"1.00000005960464477539062",
    b"1.0000000596046447753906251",
    b"18446744073709551616",
    b"9999999999999999999",
    b"0.00000000000000000000000000000000000000000000001",
    b"1e999",
    b"1e-999",
    b"0e99999999999999999999",
    b"1e99999999999999999999",
    b"1e16000",
    b"12345678901234567890123456789012345678901234567890",
    b"\0",
    b"\0\0\0\0\x01",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"\xc2\xa0",
    b"\x7f",
    b"\"id\":",
    b"\"\\u0069d\":",
    b"\"text\":",
    b"\"embedding\":",
    b"\"timestamp\":",
    b"\"source\":",
    b"\"metadata\":",
    b"\"table_name\":",
    b"{\"a\":",
    b"}}",
    b"[[[[[[[[",
    b"]]]]]]]]",
    b"\"2024-01-01T00:00:00Z\"",
    b"9999-12-31T23:59:59.999999999",
    b"+23:59",
    b"-00:01",
    b"60Z",
    b"253402300799999",
    b"-62135596800001",
    b"//",
];

/// A changed copy of one of `inputs`, or of two of them joined; 1 to 4 changes.
pub(crate) fn mutated(random: &mut Random, inputs: &[Vec<u8>], pieces: &[&[u8]]) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        change(random, &mut input, inputs, pieces);
    }
    input.truncate(MAX_LENGTH);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, inputs: &[Vec<u8>], pieces: &[&[u8]]) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(48)).min(input.len());
    match random.below(10) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        // A chunk again, at once or elsewhere, once or often.
        4 => {
            let chunk = input[at..end].repeat(1 + random.below(3));
            let to = random.below(input.len() + 1);
            drop(input.splice(to..to, chunk));
        }
        5 => {
            let chunk = input[at..end.min(at + 8)].repeat(random.below(200));
            drop(input.splice(at..at, chunk));
        }
        // One beginning, another end.
        6 => {
            let other = &inputs[random.below(inputs.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        7 => drop(input.splice(at..end, random.pick(pieces).iter().copied())),
        _ => drop(input.splice(at..at, random.pick(pieces).iter().copied())),
    }
}
