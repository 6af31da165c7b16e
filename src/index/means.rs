//! What a build may take of the server, what is learnt from one that failed, and how often it is tried.

use std::time::Duration;

use sink_postgres_vector::{BuildLimits, Error};
use tokio::time::Instant;

use crate::config::IndexSettings;

/// How often the server may run out before nobody tries again. Each time costs those who write, too.
const MOST_EXHAUSTED: u32 = 3;
/// The same for builds that are broken off, whatever the reason: each begins anew.
const MOST_BROKEN: u32 = 5;
/// After so long without a build, earlier failures are forgotten.
const FORGET: Duration = Duration::from_hours(1);

/// How builds of one index have failed.
#[derive(Debug, Default)]
pub(super) struct Means {
    exhausted: u32,
    broken: u32,
    /// When the last one failed.
    last: Option<Instant>,
}

/// What follows from a failure that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be tried again.
    Again,
    /// The server has run out so often that it is not.
    Exhausted(u32),
    /// Builds were broken off so often that it is not.
    Broken(u32),
}

impl Means {
    /// Less than was asked for, once that was too much: no parallel workers, for whose shared memory there may be little
    /// (a container's `/dev/shm`), and half the memory each time.
    pub(super) fn limits(&self, settings: &IndexSettings) -> BuildLimits {
        BuildLimits {
            maintenance_memory: settings.maintenance_memory as u64,
            halved: self.exhausted,
            workers: if self.exhausted > 0 { Some(0) } else { settings.workers },
        }
    }

    /// A build begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= FORGET) {
            *self = Self::default();
        }
    }

    /// Learns how it failed; `crashed` if the server has lost its process.
    pub(super) fn learn(&mut self, error: &Error, crashed: bool) -> Verdict {
        self.learn_of(error.sqlstate().map(|state| state.code()), crashed, Instant::now())
    }

    fn learn_of(&mut self, code: Option<&str>, crashed: bool, now: Instant) -> Verdict {
        self.last = Some(now);
        self.broken += 1;
        if crashed || is_exhausted(code) {
            self.exhausted += 1;
        }
        match (self.exhausted, self.broken) {
            (MOST_EXHAUSTED.., _) => Verdict::Exhausted(self.exhausted),
            (_, MOST_BROKEN..) => Verdict::Broken(self.broken),
            _ => Verdict::Again,
        }
    }
}

/// Whether the server ran out of something. When the kernel kills one of its processes for its memory, the others end with 57P02;
/// a server that ends a session in order gives its reason. A connection that is lost says nothing.
fn is_exhausted(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("53") || code == "57P02")
}

#[cfg(test)]
mod tests {
    use sink_postgres_vector::{IndexMethod, IndexSpec, Metric};

    use super::*;
    use crate::config::IndexBuildTime;

    const SETTINGS: IndexSettings = IndexSettings {
        spec: IndexSpec { method: IndexMethod::Hnsw { m: 16, ef_construction: 64 }, metric: Metric::L2 },
        build: IndexBuildTime::Deferred,
        maintenance_memory: 1 << 30,
        workers: Some(4),
    };

    #[test]
    fn each_time_the_server_runs_out_the_next_build_takes_less_until_there_is_none() {
        let (mut means, now) = (Means::default(), Instant::now());
        let taken = |means: &Means| {
            let limits = means.limits(&SETTINGS);
            (limits.maintenance_memory, limits.halved, limits.workers)
        };
        assert_eq!(taken(&means), (1 << 30, 0, Some(4)));
        assert_eq!(means.learn_of(Some("53200"), false, now), Verdict::Again);
        assert_eq!(taken(&means), (1 << 30, 1, Some(0)));
        assert_eq!(means.learn_of(Some("57P02"), false, now), Verdict::Again);
        assert_eq!(taken(&means), (1 << 30, 2, Some(0)));
        assert_eq!(means.learn_of(None, true, now), Verdict::Exhausted(3), "a process that was killed");
    }

    #[test]
    fn what_has_nothing_to_do_with_the_build_takes_no_memory_from_it_but_is_not_tried_for_ever() {
        let (mut means, now) = (Means::default(), Instant::now());
        // An administrator, a limit for transactions, a deadlock, and a connection that is lost.
        for code in [Some("57P01"), Some("25P04"), Some("40P01"), None] {
            assert_eq!(means.learn_of(code, false, now), Verdict::Again, "{code:?}");
            assert_eq!(means.limits(&SETTINGS).halved, 0, "{code:?}");
        }
        assert_eq!(means.learn_of(Some("58030"), false, now), Verdict::Broken(5));
    }

    #[test]
    fn failures_are_forgotten_after_an_hour_of_rest_and_not_because_a_build_takes_hours() {
        let (mut means, start) = (Means::default(), Instant::now());
        let after = |minutes| start + Duration::from_mins(minutes);
        means.begin(start);
        assert_eq!(means.learn_of(Some("53200"), false, after(300)), Verdict::Again);
        means.begin(after(359));
        assert_eq!(means.limits(&SETTINGS).halved, 1);
        assert_eq!(means.learn_of(Some("53200"), false, after(700)), Verdict::Again);
        means.begin(after(760));
        assert_eq!(means.limits(&SETTINGS).halved, 0);
    }
}
