//! Pauses between looks or attempts that grow.

use std::time::Duration;

/// From 1 s, doubled, up to `longest`.
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn to(longest: Duration) -> Self {
        Self { next: Duration::from_secs(1), longest }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause * 2;
        pause
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        *self = Self::to(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew() {
        let mut pauses = Pauses::to(Duration::from_secs(15));
        let mut seconds = || [(); 6].map(|()| pauses.next().as_secs());
        assert_eq!(seconds(), [1, 2, 4, 8, 15, 15]);
        assert_eq!(seconds(), [15; 6]);
        pauses.reset();
        assert_eq!(pauses.next(), Duration::from_secs(1));
    }
}
