//! When the backlog is written.

use std::time::Duration;

use tokio::time::Instant;

/// Records behind, over all partitions: with more, the backlog is still being written.
const SMALL: u64 = 10_000;
/// How long nothing may happen at a small lag.
const QUIET: Duration = Duration::from_millis(250);
/// The same where the source does not tell how far it is behind.
const QUIET_WITHOUT_LAG: Duration = Duration::from_secs(5);
/// How long the lag has to stay small while records keep coming.
const STEADY: Duration = Duration::from_secs(10);

/// What the connector is doing at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// How many partitions it holds.
    pub(crate) partitions: usize,
    /// Records behind, over all of them. `None` while that is not known of one.
    pub(crate) lag: Option<u64>,
    /// Bytes that were read and are not durable yet.
    pub(crate) in_flight: usize,
    /// Records that are durable since the start.
    pub(crate) settled: u64,
}

/// Judges looks that follow each other: whether it is time for what should not meet a backlog.
///
/// A lag of 0 alone says little: what the source tells of the end can be 5 s old, and a topic that is being filled
/// then looks as if it were at its end. So either nothing is left to do at all, or the lag has been small for a while.
#[derive(Debug, Default)]
pub(super) struct Calm {
    last: Option<Look>,
    quiet_since: Option<Instant>,
    small_since: Option<Instant>,
}

impl Calm {
    pub(super) fn sees(&mut self, look: Look, now: Instant) -> bool {
        let same = self.last.is_some_and(|last| last.settled == look.settled);
        self.last = Some(look);
        let behind = look.lag.is_some_and(|lag| lag > SMALL);
        if look.partitions == 0 || behind {
            (self.quiet_since, self.small_since) = (None, None);
            return false;
        }
        let lasts = |since: &mut Option<Instant>, holds: bool, time: Duration| {
            *since = if holds { since.or(Some(now)) } else { None };
            since.is_some_and(|since| now.saturating_duration_since(since) >= time)
        };
        let quiet = if look.lag.is_some() { QUIET } else { QUIET_WITHOUT_LAG };
        let is_quiet = lasts(&mut self.quiet_since, same && look.in_flight == 0, quiet);
        let is_steady = lasts(&mut self.small_since, look.lag.is_some(), STEADY);
        is_quiet || is_steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Look = Look { partitions: 2, lag: Some(1), in_flight: 0, settled: 50 };

    /// Whether it is calm at each of these seconds.
    fn judge(looks: &[(f64, Look)]) -> Vec<bool> {
        let (start, mut calm) = (Instant::now(), Calm::default());
        looks.iter().map(|(at, look)| calm.sees(*look, start + Duration::from_secs_f64(*at))).collect()
    }

    #[test]
    fn it_is_calm_when_nothing_is_left_to_do() {
        assert_eq!(judge(&[(0.0, IDLE), (0.25, IDLE), (0.5, IDLE)]), [false, false, true]);
        let busy = |settled| Look { settled, ..IDLE };
        assert_eq!(judge(&[(0.0, busy(1)), (0.5, busy(2)), (1.0, busy(3))]), [false; 3]);
        let writing = Look { in_flight: 1, ..IDLE };
        assert_eq!(judge(&[(0.0, writing), (0.5, writing), (1.0, writing)]), [false; 3]);
    }

    #[test]
    fn a_backlog_or_no_partition_is_never_calm() {
        let behind = Look { lag: Some(SMALL + 1), ..IDLE };
        let nothing = Look { partitions: 0, ..IDLE };
        for look in [behind, nothing] {
            assert_eq!(judge(&[(0.0, look), (1.0, look), (60.0, look)]), [false; 3]);
        }
    }

    #[test]
    fn a_stream_that_is_kept_up_with_is_calm_after_a_while() {
        let steady = |settled| Look { lag: Some(SMALL), in_flight: 9, settled, ..IDLE };
        let behind = Look { lag: Some(SMALL + 1), ..IDLE };
        assert_eq!(judge(&[(0.0, steady(1)), (9.9, steady(2)), (10.0, steady(3))]), [false, false, true]);
        assert_eq!(
            judge(&[(0.0, steady(1)), (9.0, behind), (10.0, steady(3)), (12.0, steady(4))]),
            [false; 4]
        );
    }

    #[test]
    fn where_the_lag_is_unknown_only_rest_counts_and_it_has_to_last() {
        let look = Look { lag: None, ..IDLE };
        assert_eq!(judge(&[(0.0, look), (1.0, look), (5.0, look), (6.0, look)]), [false, false, false, true]);
        let busy = |settled| Look { lag: None, settled, ..IDLE };
        assert_eq!(judge(&[(0.0, busy(1)), (30.0, busy(2)), (60.0, busy(3))]), [false; 3]);
    }
}
