//! Decimal numbers as nearly all producers write them, without a branch that depends on their digits.
//!
//! An `f32` is settled by its first ten digits or so, and Python writes up to twenty, being asked to print an `f64`. So
//! the text is not converted exactly. The first sixteen bytes become an integer, by vector instructions; from it
//! come two `f64`, of which one is surely not above the true number and the other surely not below. Rounding never
//! turns an order around: where both round to one `f32`, so does all that lies between them, the true number
//! too. Where they do not, which is rare, since what was an `f32` once lies far from the middle between two, the number
//! is left to others.
//!
//! To join all neighbouring digits at once, then the pairs, then the fours, is a known method; Daniel Lemire describes
//! it for eight digits in one machine word ("Number Parsing at a Gigabyte per Second", Software: Practice and
//! Experience 51, 2021). Here it is sixteen, in a vector, and the point is among them: the weights of its pair leave
//! it out.

use wide::bytemuck::cast;
use wide::{f64x2, i16x8, u8x16, u16x8};

/// What is looked at: 32 bytes for a number, and two that stand behind it.
const WINDOW: usize = 34;

/// How sixteen bytes, the first of them a digit, become one integer. It depends on where the point is.
struct Weights {
    /// What puts ten times the first digit of a pair and the second into the upper byte. Where the point is one of
    /// the two, it puts the digit alone there.
    pairs: [u16; 8],
    /// What joins two pairs.
    fours: [i16; 8],
    /// What one in the integer stands for, less and more by [`DOUBT`].
    low: f64,
    high: f64,
}

/// For 1, 2 and 3 digits before the point.
const WEIGHTS: [Weights; 3] = {
    const BOTH: u16 = 1 + (10 << 8);
    const FIRST: u16 = 1 << 8;
    const SECOND: u16 = 1;
    const fn weights(first: u16, second: u16, joint: i16, unit: f64) -> Weights {
        Weights {
            pairs: [first, second, BOTH, BOTH, BOTH, BOTH, BOTH, BOTH],
            fours: [joint, 1, 100, 1, 100, 1, 100, 1],
            low: f64::from_bits(unit.to_bits() - DOUBT),
            high: f64::from_bits(unit.to_bits() + DOUBT),
        }
    }
    [weights(FIRST, BOTH, 100, 1e-14), weights(BOTH, SECOND, 10, 1e-13), weights(BOTH, FIRST, 10, 1e-12)]
};

/// Units in the last place of an `f64`; each is at least 2^-53 of it.
///
/// Five roundings, each by 2^-53 of a number at most, lie between the digits and the result: the upper eight digits
/// times 10^8, the sum with the lower eight, the one that is added to it, the power of ten, and the product with that.
pub(super) const DOUBT: u64 = 6;

/// Reads a number like `-0.034820783883333206` at `start`, and the comma behind it: 1 to 3 digits, a point, and digits,
/// 32 bytes at most. Returns it and the place of the next; a space behind the comma is stepped over if it is
/// `spaced`, as in Python's JSON. `None` is for all else, and for what cannot be rounded with certainty.
///
/// A branch that goes another way than the last time costs as much as half of what is done here, so there is none that
/// depends on the sign or on the number of digits. And the place of the next number depends on as little as
/// possible, so that the processor begins with it long before this one is done.
#[inline]
pub(super) fn read(bytes: &[u8], start: usize, spaced: bool) -> Option<(f32, usize)> {
    let window: &[u8; WINDOW] = bytes.get(start..)?.first_chunk()?;
    let negative = window[0] == b'-';
    let sign = usize::from(negative);
    // The point, and all that stands behind the last digit.
    let marks = (no_digits(window, 0) | no_digits(window, 16) << 16) ^ u32::from(negative);
    let point = marks.trailing_zeros() as usize;
    let end = (marks & marks.wrapping_sub(1)).trailing_zeros() as usize;
    let weights = WEIGHTS.get(point.wrapping_sub(1 + sign))?;
    let leads_with_zero = (window[sign] == b'0') & (point > 1 + sign);
    if window[point] != b'.' || end <= point + 1 || leads_with_zero {
        return None;
    }
    if window.get(end) != Some(&b',') || (window[end + 1] == b' ') != spaced {
        return None;
    }
    let next = start + end + 1 + usize::from(spaced);

    let length = end - sign;
    let integer = joined(digits(window, sign, length), weights);
    // The digits that are left out come to less than one.
    let more = if length > 16 { 1.0 } else { 0.0 };
    let value = between(integer * weights.low, (integer + more) * weights.high)?;
    Some((if negative { -value } else { value }, next))
}

/// What every number between the two rounds to, both 0 or more, where that is the same for all.
#[inline]
pub(super) fn between(low: f64, high: f64) -> Option<f32> {
    let (low, high) = (low as f32, high as f32);
    (low.to_bits() == high.to_bits()).then_some(low)
}

/// A bit for each of sixteen bytes that is no digit, the first in the lowest place.
#[inline]
fn no_digits(window: &[u8; WINDOW], at: usize) -> u32 {
    sixteen(window, at).saturating_add(u8x16::splat(0x80 - 10)).to_bitmask()
}

/// Sixteen bytes, of which `length` belong to the number; what follows becomes zeros, which change nothing there.
#[inline]
fn digits(window: &[u8; WINDOW], at: usize, length: usize) -> u8x16 {
    const KEPT: [u8; 32] = {
        let mut kept = [0; 32];
        let (number, _) = kept.split_at_mut(16);
        number.copy_from_slice(&[0xFF; 16]);
        kept
    };
    let dropped = 16_usize.saturating_sub(length);
    let mut kept = [0; 16];
    kept.copy_from_slice(&KEPT[dropped..dropped + 16]);
    sixteen(window, at) & u8x16::new(kept)
}

/// Sixteen bytes, each turned so that a digit becomes its value.
#[inline]
fn sixteen(window: &[u8; WINDOW], at: usize) -> u8x16 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&window[at..at + 16]);
    u8x16::new(bytes) ^ u8x16::splat(b'0')
}

/// Joins neighbours: digits to pairs, pairs to fours, fours to eights, and those to the integer.
#[inline]
fn joined(digits: u8x16, weights: &Weights) -> f64 {
    let pairs = (cast::<_, u16x8>(digits) * u16x8::new(weights.pairs)) >> 8;
    let fours = cast::<_, i16x8>(pairs).dot(i16x8::new(weights.fours));
    let fours = i16x8::from_i32x8_saturate(cast([fours, fours]));
    let eights = fours.dot(i16x8::new([10_000, 1, 10_000, 1, 10_000, 1, 10_000, 1]));
    (f64x2::from_i32x4_lower2(eights) * f64x2::new([1e8, 1.0])).reduce_add()
}

// A pair is read as a number of 16 bits, of which the first digit is the lower half.
const _: () = assert!(cfg!(target_endian = "little"));
