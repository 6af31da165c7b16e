//! The embedding array: JSON numbers straight to `f32`.
//!
//! Each number is rounded once, to the `f32` that `str::parse::<f32>` gives for the same text (a
//! property test and the fuzzer compare them bit by bit). Nearly all numbers are read by `decimal.rs`; those of
//! other forms by [`number`]; and those that lie too close to the middle between two `f32` by the standard library.

mod decimal;

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
    // `, ` is how Python's json module separates; `,` how most others do.
    let mut spaced = true;
    loop {
        at = usual(bytes, at, spaced, vector);
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
            Some(b',') => {
                at += 1;
                spaced = bytes.get(at) == Some(&b' ');
                at += usize::from(spaced);
            }
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

/// Reads numbers into `vector` as long as they have the usual form; returns the place where they no longer have.
///
/// A function of its own, so that the processor's registers are all for this loop.
#[inline(never)]
fn usual(bytes: &[u8], mut at: usize, spaced: bool, vector: &mut Vec<f32>) -> usize {
    while let Some((value, next)) = decimal::read(bytes, at, spaced) {
        vector.push(value);
        at = next;
    }
    at
}

/// Reads one JSON number at `start`, of any form; returns it and the place behind it.
#[cold]
#[inline(never)]
fn number(bytes: &[u8], start: usize) -> Result<(f32, usize), Reject> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    // At most 19 digits fit.
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
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
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

/// `mantissa × 10^exponent` rounded to `f32`, where that can be proved right as [`decimal`] does it.
///
/// Three roundings lie in between: the mantissa's, that of its product or quotient with the power, which is exact, and
/// that of the product with a number that is less than one or more by [`decimal::DOUBT`].
fn round(mantissa: u64, exponent: i64) -> Option<f32> {
    const LESS: f64 = f64::from_bits(1_f64.to_bits() - decimal::DOUBT);
    const MORE: f64 = f64::from_bits(1_f64.to_bits() + decimal::DOUBT);
    let power = *EXACT_POWERS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
    let value = if exponent < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
    decimal::between(value * LESS, value * MORE)
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
