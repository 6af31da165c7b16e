//! When the backlog is written.

use std::time::Duration;

use tokio::time::Instant;

/// Records behind, over all partitions: with more, the backlog is still being written.
pub(super) const SMALL: u64 = 10_000;
/// How long nothing may happen at a small lag.
const QUIET: Duration = Duration::from_millis(250);
/// The same where the source does not tell how far it is behind.
const QUIET_WITHOUT_LAG: Duration = Duration::from_secs(5);
/// A larger lag is small too where it takes no longer than this to write it, at the present rate.
const SOON: Duration = Duration::from_secs(5);
/// What the present rate is taken over.
const RATE: Duration = Duration::from_secs(5);
/// How often somebody is told that it is not calm yet.
const TELL: Duration = Duration::from_hours(1);
/// How long it has to be calm where a table has next to no rows: these may be the first of a backlog that is about to come.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// How long the lag has to stay small while records keep coming.
const STEADY: Duration = Duration::from_secs(10);

/// What the connector is doing at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// How many partitions it reads.
    pub(crate) partitions: usize,
    /// How many more it was given, which have still to begin: what is in them is not known.
    pub(crate) awaited: usize,
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
    /// Since when records are counted for the rate, and what was settled then.
    counted_since: Option<(Instant, u64)>,
    /// Records that are settled in a second.
    rate: f64,
    told_at: Option<Instant>,
    /// How long calm has to last, and since when it does.
    long: Duration,
    calm_since: Option<Instant>,
}

impl Calm {
    /// Calm that has to last for so long.
    pub(super) fn lasting(long: Duration) -> Self {
        Self { long, ..Self::default() }
    }

    pub(super) fn sees(&mut self, look: Look, now: Instant) -> bool {
        let is_calm = self.is_calm(look, now);
        lasts(&mut self.calm_since, is_calm, self.long, now)
    }

    fn is_calm(&mut self, look: Look, now: Instant) -> bool {
        let same = self.last.is_some_and(|last| last.settled == look.settled);
        self.last = Some(look);
        if look.partitions == 0 || look.awaited > 0 || self.is_behind(look, now) {
            (self.quiet_since, self.small_since) = (None, None);
            return false;
        }
        let quiet = if look.lag.is_some() { QUIET } else { QUIET_WITHOUT_LAG };
        let is_quiet = lasts(&mut self.quiet_since, same && look.in_flight == 0, quiet, now);
        let is_steady = lasts(&mut self.small_since, look.lag.is_some(), STEADY, now);
        is_quiet || is_steady
    }

    /// Whether there is a backlog, which takes a while to be written.
    pub(super) fn is_behind(&mut self, look: Look, now: Instant) -> bool {
        let soon = self.rate(look.settled, now) * SOON.as_secs_f64();
        look.lag.is_some_and(|lag| lag > SMALL && lag as f64 > soon)
    }

    /// Whether it is time to say, again, that it is not calm.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        let since = *self.told_at.get_or_insert(now);
        let overdue = now.saturating_duration_since(since) >= TELL;
        if overdue {
            self.told_at = Some(now);
        }
        overdue
    }

    fn rate(&mut self, settled: u64, now: Instant) -> f64 {
        let (since, before) = *self.counted_since.get_or_insert((now, settled));
        let time = now.saturating_duration_since(since);
        if time >= RATE {
            self.rate = settled.saturating_sub(before) as f64 / time.as_secs_f64();
            self.counted_since = Some((now, settled));
        }
        self.rate
    }
}

/// Whether something holds, and has for so long.
fn lasts(since: &mut Option<Instant>, holds: bool, long: Duration, now: Instant) -> bool {
    *since = if holds { since.or(Some(now)) } else { None };
    since.is_some_and(|since| now.saturating_duration_since(since) >= long)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Look = Look { partitions: 2, awaited: 0, lag: Some(1), in_flight: 0, settled: 50 };

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
    fn a_backlog_no_partition_or_one_that_has_not_begun_is_never_calm() {
        let behind = Look { lag: Some(SMALL + 1), ..IDLE };
        let nothing = Look { partitions: 0, ..IDLE };
        let waiting = Look { awaited: 1, ..IDLE };
        for look in [behind, nothing, waiting] {
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
    fn a_large_lag_is_small_where_it_is_written_in_no_time() {
        // 10,000 a second.
        let look = |second: u64, lag| {
            (second as f64, Look { lag: Some(lag), in_flight: 9, settled: second * 10_000, ..IDLE })
        };
        let looks = |lag| (0..=16).map(|second| look(second, lag)).collect::<Vec<_>>();
        let calm = judge(&looks(50_000));
        assert_eq!(calm.iter().position(|calm| *calm), Some(15), "5 s to know the rate, and 10 s more");
        assert!(judge(&looks(50_001)).iter().all(|calm| !calm));
    }

    #[test]
    fn what_has_to_last_begins_anew_with_a_backlog_and_not_with_a_record_now_and_then() {
        let start = Instant::now();
        let calm_at = |looks: &[(u64, Look)]| {
            let mut calm = Calm::lasting(LONG);
            let mut at =
                |(second, look): &(u64, Look)| calm.sees(*look, start + Duration::from_secs(*second));
            looks.iter().position(&mut at).map(|found| looks[found].0)
        };
        let seconds = |of: fn(u64) -> Look| (0..=60).map(|second| (second, of(second))).collect::<Vec<_>>();
        assert_eq!(calm_at(&seconds(|_| IDLE)), Some(32), "two seconds until it is quiet");
        assert_eq!(calm_at(&seconds(|second| Look { settled: second, ..IDLE })), Some(40), "a trickle");
        let burst = |second| Look { lag: Some(if second == 20 { SMALL + 1 } else { 0 }), ..IDLE };
        assert_eq!(calm_at(&seconds(burst)), Some(52));
    }

    #[test]
    fn who_waits_long_is_told_so_once_an_hour() {
        let (start, mut calm) = (Instant::now(), Calm::default());
        let mut told = |minutes| calm.is_overdue(start + Duration::from_mins(minutes));
        assert_eq!([0, 59, 60, 61, 119, 120].map(&mut told), [false, false, true, false, false, true]);
    }

    #[test]
    fn where_the_lag_is_unknown_only_rest_counts_and_it_has_to_last() {
        let look = Look { lag: None, ..IDLE };
        assert_eq!(judge(&[(0.0, look), (1.0, look), (5.0, look), (6.0, look)]), [false, false, false, true]);
        let busy = |settled| Look { lag: None, settled, ..IDLE };
        assert_eq!(judge(&[(0.0, busy(1)), (30.0, busy(2)), (60.0, busy(3))]), [false; 3]);
    }
}
