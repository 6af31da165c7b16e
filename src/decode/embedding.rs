//! The embedding array: JSON numbers straight to `f32`.
//!
//! Each number is rounded once, to the `f32` that `str::parse::<f32>` gives for the same text (a
//! property test and the fuzzer compare them bit by bit).
//!
//! How: an `f32` is settled by its first ten digits or so, and producers write up to twenty. So the text is not
//! converted exactly. [`quick`] takes sixteen digits behind the point, eight at a time in one machine word, and
//! computes in `f64` a number that is surely not above the true one and another that is surely not below it.
//! Rounding never turns an order around: where both round to one `f32`, so does all that lies between them.
//! Where they do not (once in some millions of numbers, and in all that stand in the middle between two `f32`),
//! the standard library reads the text.
//!
//! Eight digits in a word: the idea is by Wojciech Muła and others, and described in Daniel Lemire, "Number Parsing
//! at a Gigabyte per Second" (Software: Practice and Experience 51, 2021).

use crate::reject::{Reject, RejectReason};

/// Powers of ten that an `f64` holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Reads the array that starts at `bytes[start]` into `vector`; returns the place behind its `]`.
pub(super) fn read(bytes: &[u8], start: usize, vector: &mut Vec<f32>) -> Result<usize, Reject> {
    if bytes.get(start) != Some(&b'[') {
        return match bytes.get(start) {
            Some(_) => Err(bad(start, "`embedding` is not an array")),
            None => Err(ended(bytes)),
        };
    }
    let mut at = skip_space(bytes, start + 1);
    if bytes.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    loop {
        at = run(bytes, at, vector);
        let first = skip_space(bytes, at);
        if first > at {
            at = first;
            continue;
        }
        let (value, behind) = number(bytes, at)?;
        if !value.is_finite() {
            return Err(not_finite(vector.len(), "is too large for a 32-bit float"));
        }
        vector.push(value);
        at = skip_space(bytes, behind);
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return Ok(at + 1),
            Some(_) => return Err(bad(at, "expected `,` or `]` in `embedding`")),
            None => return Err(ended(bytes)),
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Reads numbers into `vector` as long as [`quick`] can; returns the place behind the last comma.
#[inline(never)]
fn run(bytes: &[u8], mut at: usize, vector: &mut Vec<f32>) -> usize {
    while let Some((value, next)) = quick(bytes, at) {
        vector.push(value);
        at = next;
    }
    at
}

/// What [`quick`] looks at: a digit, the point, 22 bytes for digits, and two that stand behind the last.
const WINDOW: usize = 26;

/// Reads a number like `-0.034820783883333206` and the comma behind it: a digit, a point and 1 to 21 digits.
/// Returns it and the place behind the comma, and behind a space that follows. `None` is for all else, and for
/// what it cannot round with certainty.
///
/// No branch depends on the sign or on the number of digits, only on whether there are 14 of them behind the point,
/// which is the same for nearly all numbers of one producer. A branch that goes another way than the last time
/// costs as much as half of what is done here.
#[inline]
fn quick(bytes: &[u8], start: usize) -> Option<(f32, usize)> {
    let negative = *bytes.get(start)? == b'-';
    let first = start + usize::from(negative);
    let window: &[u8; WINDOW] = bytes.get(first..)?.first_chunk()?;
    let head = word(window, 0);
    if head & 0xFF00 != 0x1E00 {
        return None;
    }
    // The digit moves to where the point was.
    let high = (head & !0xFFFF) | (head & 0xFF) << 8;
    let low = word(window, 8);
    let (length, mantissa, more);
    if no_digits(high) | no_digits(low) == 0 {
        let ends = no_digits(word(window, 16));
        // No end in sight.
        if ends == 0 {
            return None;
        }
        length = 16 + ends.trailing_zeros() as usize / 8;
        mantissa = sixteen_digits(high, low);
        more = 1;
    } else {
        // What follows the digits becomes zeros, which change nothing behind the point.
        let ends = u128::from(no_digits(high)) | u128::from(no_digits(low)) << 64;
        let lowest = ends >> 7;
        let digits = !lowest & (lowest - 1);
        length = ends.trailing_zeros() as usize / 8;
        if length < 3 {
            return None;
        }
        mantissa = sixteen_digits(high & digits as u64, low & (digits >> 64) as u64);
        more = 0;
    }
    // `, ` is how Python's json module separates; `,` how the others do.
    if window[length] != b',' {
        return None;
    }
    let next = first + length + 1 + usize::from(window[length + 1] == b' ');
    let bits = between(mantissa as f64 * BELOW, (mantissa + more) as f64 * ABOVE)?;
    Some((f32::from_bits(bits | u32::from(negative) << 31), next))
}

/// `1e-14`, less and more by four units in the last place, each of which is at least 2^-53 of it.
///
/// A mantissa is off by at most 2^-53 of its size as an `f64`, `1e-14` itself and the product as well: less than
/// four such parts together.
const BELOW: f64 = f64::from_bits(1e-14_f64.to_bits() - 4);
const ABOVE: f64 = f64::from_bits(1e-14_f64.to_bits() + 4);

/// The bits of what every number between the two rounds to, where that is the same for all.
#[inline]
fn between(low: f64, high: f64) -> Option<u32> {
    let (low, high) = ((low as f32).to_bits(), (high as f32).to_bits());
    (low == high).then_some(low)
}

/// Eight characters `0`.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Eight bytes, each turned so that a digit becomes its value; the first in the lowest place.
#[inline]
fn word(window: &[u8; WINDOW], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&window[at..at + 8]);
    u64::from_le_bytes(eight) ^ ZEROS
}

/// The highest bit of each byte that is above 9. A carry may spoil places behind the first such byte.
#[inline]
fn no_digits(word: u64) -> u64 {
    (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080
}

/// Reads one JSON number at `start`, of any form; returns it and the place behind it.
#[cold]
#[inline(never)]
fn number(bytes: &[u8], start: usize) -> Result<(f32, usize), Reject> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    // At most 19 digits fit; `kept` counts those taken in, so that leading zeros cost nothing.
    let mut mantissa: u64 = 0;
    let mut at = digits(bytes, first, &mut mantissa);
    let mut digit_count = at - first;
    if digit_count == 0 {
        return Err(not_a_number(bytes, start));
    }
    if digit_count > 1 && bytes[first] == b'0' {
        return Err(bad(first, "a number in `embedding` starts with 0"));
    }
    let mut exponent: i64 = 0;
    if bytes.get(at) == Some(&b'.') {
        let fraction = at + 1;
        at = digits(bytes, fraction, &mut mantissa);
        if at == fraction {
            return Err(bad_or_ended(bytes, at, "expected a digit behind the point"));
        }
        digit_count += at - fraction;
        exponent = -((at - fraction) as i64);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (stated, behind) = exponent_at(bytes, at + 1)?;
        exponent = exponent.saturating_add(stated);
        at = behind;
    }
    // A leading `0` (as in `0.123`) is not a significant digit.
    digit_count -= usize::from(bytes[first] == b'0');
    if digit_count <= 19
        && let Some(value) = round(mantissa, exponent)
    {
        return Ok((if negative { -value } else { value }, at));
    }
    std::str::from_utf8(&bytes[start..at])
        .ok()
        .and_then(|text| text.parse::<f32>().ok())
        .map(|value| (value, at))
        .ok_or_else(|| bad(start, "expected a number in `embedding`"))
}

/// Adds the run of digits at `at` to `mantissa` (wrapping beyond 19 digits); returns its end.
#[inline]
fn digits(bytes: &[u8], mut at: usize, mantissa: &mut u64) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight) ^ ZEROS;
        if no_digits(word) != 0 {
            break;
        }
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight_digits(word));
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
}

/// The value of eight digits by three multiplications that join neighbours: digits to pairs, pairs to fours,
/// fours to eight.
#[inline]
fn eight_digits(word: u64) -> u64 {
    let pairs = word.wrapping_mul(1 + (10 << 8)) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(1 + (100 << 16)) >> 16;
    (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(1 + (10_000 << 32)) >> 32
}

#[inline]
fn sixteen_digits(high: u64, low: u64) -> i64 {
    (eight_digits(high) * 100_000_000 + eight_digits(low)) as i64
}

fn exponent_at(bytes: &[u8], start: usize) -> Result<(i64, usize), Reject> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(matches!(bytes.get(start), Some(b'-' | b'+')));
    let mut at = first;
    let mut value: i64 = 0;
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit));
        at += 1;
    }
    if at == first {
        return Err(bad_or_ended(bytes, at, "expected a digit in the exponent"));
    }
    Ok((if negative { -value } else { value }, at))
}

/// `mantissa × 10^exponent` rounded to `f32`, where that can be proved right.
///
/// `mantissa as f64` and the one operation behind it are each off by at most half a unit in the last
/// place of an `f64`, so the product is off by less than two. An `f64` has 29 bits more than an
/// `f32`: unless those bits lie within that distance of the halfway point, both the true value and
/// ours round to the same `f32`. The smallest non-zero result is 1e-22, far from subnormal.
#[inline]
fn round(mantissa: u64, exponent: i64) -> Option<f32> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let power = *EXACT_POWERS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
    let value = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    const HALF: u64 = 1 << 28;
    let below = value.to_bits() & ((1 << 29) - 1);
    (below.abs_diff(HALF) > 4).then_some(value as f32)
}

fn not_a_number(bytes: &[u8], at: usize) -> Reject {
    let rest = &bytes[at..];
    let infinite = [&b"Infinity"[..], b"-Infinity", b"NaN"].iter().any(|word| rest.starts_with(word));
    if infinite {
        return Reject::new(
            RejectReason::NotFinite,
            format!("`embedding` holds NaN or Infinity at byte {at}"),
        );
    }
    // A payload that is cut off behind a minus ends in the middle, as any other that is cut off.
    let behind_sign = at + usize::from(rest.first() == Some(&b'-'));
    bad_or_ended(bytes, behind_sign, "expected a number in `embedding`")
}

fn not_finite(index: usize, what: &str) -> Reject {
    Reject::new(RejectReason::NotFinite, format!("number {index} of `embedding` (counted from 0) {what}"))
}

fn bad_or_ended(bytes: &[u8], at: usize, what: &str) -> Reject {
    if at >= bytes.len() { ended(bytes) } else { bad(at, what) }
}

fn bad(at: usize, what: &str) -> Reject {
    Reject::new(RejectReason::BadEmbedding, format!("at byte {at}: {what}"))
}

fn ended(bytes: &[u8]) -> Reject {
    Reject::new(RejectReason::BadJson, format!("the JSON ends in the middle, at byte {}", bytes.len()))
}

#[cfg(test)]
mod tests;
