//! Random choices that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator of random numbers (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// A generator from a new seed, or from `EMBEDSINK_SEED`. Says which, so that a run can be repeated.
    pub(crate) fn new(test: &str) -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("EMBEDSINK_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
        println!("{test}: repeat these choices with EMBEDSINK_SEED={seed}");
        Self(seed)
    }

    /// Another generator, whose choices follow from this one's seed.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// A generator with this seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, but not including, `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number from -1 up to 1, never 0.
    pub(crate) fn fraction(&mut self) -> f64 {
        let size = ((self.next() >> 12) + 1) as f64 / (1_u64 << 52) as f64;
        if self.chance(50) { size } else { -size }
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
