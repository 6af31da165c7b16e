//! Checks that a JSON value, already known to be well formed, is an object that `jsonb` accepts.
//!
//! The limits are those of PostgreSQL's `jsonb` and `numeric`
//! (<https://www.postgresql.org/docs/current/datatype-json.html>,
//! <https://www.postgresql.org/docs/current/datatype-numeric.html>): no U+0000, no lone surrogate,
//! numbers within 131,072 digits before and 16,383 after the decimal point, keys and strings below
//! 256 MiB, and a nesting that its recursive parser survives.

use crate::reject::{Reject, RejectReason};

/// Deepest nesting accepted. Postgres itself gives up at some thousands, depending on its stack.
const MAX_DEPTH: usize = 128;
/// Longest text accepted. `jsonb` holds less than 256 MiB and fewer than 16.8 million elements in one array; an array
/// of one-digit numbers takes six times its text, so nothing of this length reaches either.
const MAX_BYTES: usize = 32 << 20;
/// Digits plus exponent of the longest number accepted.
const MAX_NUMBER: u64 = 16_000;

pub(super) fn check(json: &str) -> Result<&str, Reject> {
    let bytes = json.as_bytes();
    if bytes.first() != Some(&b'{') {
        return Err(bad("`metadata` is not a JSON object"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(bad(
            "`metadata` is larger than the jsonb of PostgreSQL may be, which is the limit for every target",
        ));
    }
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(bad("`metadata` is nested deeper than 128 levels"));
                }
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b'"' => at = string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => at = number(bytes, at)?,
            _ => at += 1,
        }
    }
    Ok(json)
}

/// Steps over a string whose first byte (behind the quote) is at `at`; returns the place behind it.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, Reject> {
    let mut high_surrogate = false;
    loop {
        match bytes.get(at) {
            Some(b'"') | None => {
                return if high_surrogate { Err(lone_surrogate()) } else { Ok(at + 1) };
            }
            Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => {
                match hex(bytes.get(at + 2..at + 6)) {
                    Some(0) => {
                        return Err(Reject::new(
                            RejectReason::NulByte,
                            "`metadata` holds the character U+0000, which is not taken, since PostgreSQL cannot store it",
                        ));
                    }
                    Some(0xD800..=0xDBFF) if !high_surrogate => high_surrogate = true,
                    Some(0xDC00..=0xDFFF) if high_surrogate => high_surrogate = false,
                    Some(0xD800..=0xDFFF) | None => return Err(lone_surrogate()),
                    Some(_) if high_surrogate => return Err(lone_surrogate()),
                    Some(_) => {}
                }
                at += 6;
            }
            Some(_) if high_surrogate => return Err(lone_surrogate()),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// Steps over a number; refuses one whose digits and exponent together pass what `numeric` holds.
fn number(bytes: &[u8], start: usize) -> Result<usize, Reject> {
    let mut at = start;
    let mut digits: u64 = 0;
    let mut exponent: u64 = 0;
    let mut in_exponent = false;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' if in_exponent => {
                exponent = exponent.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
            }
            b'0'..=b'9' => digits += 1,
            b'e' | b'E' => in_exponent = true,
            b'-' | b'+' | b'.' => {}
            _ => break,
        }
        at += 1;
    }
    if digits.saturating_add(exponent) > MAX_NUMBER {
        return Err(bad(
            "`metadata` holds a number with more digits than PostgreSQL can hold, which is the limit for every target",
        ));
    }
    Ok(at)
}

fn bad(message: &'static str) -> Reject {
    Reject::new(RejectReason::BadMetadata, message)
}

fn lone_surrogate() -> Reject {
    bad("`metadata` holds half of a UTF-16 surrogate pair, which is no text")
}
