//! The embedding array: JSON numbers straight to `f32`.
//!
//! Each number is rounded once, to the `f32` that `str::parse::<f32>` gives for the same text (a
//! property test compares them bit by bit). The common case takes one multiplication or division in
//! `f64` and then proves that rounding to `f32` cannot have been swayed by the `f64` error; the few
//! texts for which that proof fails go to the standard library.

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
        let (value, behind) = number(bytes, at)?;
        if !value.is_finite() {
            return Err(not_finite(vector.len(), "is too large for a 32-bit float"));
        }
        vector.push(value);
        at = behind;
        // `, ` is how Python's json module separates; `,` how the others do.
        at = match bytes.get(at) {
            Some(b',') if bytes.get(at + 1) == Some(&b' ') => at + 2,
            _ => {
                at = skip_space(bytes, at);
                match bytes.get(at) {
                    Some(b',') => at + 1,
                    Some(b']') => return Ok(at + 1),
                    Some(_) => return Err(bad(at, "expected `,` or `]` in `embedding`")),
                    None => return Err(ended(bytes)),
                }
            }
        };
        if !matches!(bytes.get(at), Some(b'-' | b'0'..=b'9')) {
            at = skip_space(bytes, at);
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Reads one JSON number at `start`; returns it and the place behind it.
#[inline]
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
    while let Some(eight) = bytes.get(at..at + 8).and_then(|eight| <[u8; 8]>::try_from(eight).ok()) {
        let Some(value) = eight_digits(u64::from_le_bytes(eight)) else {
            break;
        };
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(value);
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
}

/// The value of eight ASCII digits, read as a little-endian word, by three multiplications that
/// join neighbours: digits to pairs, pairs to fours, fours to eight.
#[inline]
fn eight_digits(word: u64) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH_HALVES: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    let all_digits =
        word & HIGH_HALVES == ZEROS && word.wrapping_add(0x0606_0606_0606_0606) & HIGH_HALVES == ZEROS;
    if !all_digits {
        return None;
    }
    let pairs = (word - ZEROS).wrapping_mul(1 + (10 << 8)) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(1 + (100 << 16)) >> 16;
    let eight = (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(1 + (10_000 << 32)) >> 32;
    Some(eight & 0xFFFF_FFFF)
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
