//! What a build may take of the server, and what is learnt from one that took too much.

use sink_postgres_vector::{BuildLimits, Error};

use crate::config::IndexSettings;

/// How often the server may run out before nobody tries again. Each time costs those who write, too.
const MOST_FAILURES: u32 = 3;

/// How often builds of one index have exhausted the server.
#[derive(Debug, Default)]
pub(super) struct Means {
    failures: u32,
}

impl Means {
    /// Less than was asked for, once that was too much: no parallel workers, for whose shared memory there may be little
    /// (a container's `/dev/shm`), and half the memory each time.
    pub(super) fn limits(&self, settings: &IndexSettings) -> BuildLimits {
        BuildLimits {
            maintenance_memory: settings.maintenance_memory as u64,
            halved: self.failures,
            workers: if self.failures > 0 { Some(0) } else { settings.workers },
        }
    }

    /// Learns how a build failed. Whether it may be tried again.
    pub(super) fn learn(&mut self, error: &Error) -> bool {
        self.learn_of(error.sqlstate().map(|state| state.code()), error.is_closed())
    }

    fn learn_of(&mut self, code: Option<&str>, closed: bool) -> bool {
        if is_exhausted(code, closed) {
            self.failures += 1;
        }
        self.failures < MOST_FAILURES
    }

    /// How many builds exhausted the server.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Whether the server ran out of something. A process that the kernel kills for its memory says nothing, and the others end with
/// 57P02; a server that ends a session in order gives its reason.
fn is_exhausted(code: Option<&str>, closed: bool) -> bool {
    match code {
        Some(code) => code.starts_with("53") || code == "57P02",
        None => closed,
    }
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
        let mut means = Means::default();
        let taken = |means: &Means| {
            let limits = means.limits(&SETTINGS);
            (limits.maintenance_memory, limits.halved, limits.workers)
        };
        assert_eq!(taken(&means), (1 << 30, 0, Some(4)));
        assert!(means.learn_of(Some("53200"), false));
        assert_eq!(taken(&means), (1 << 30, 1, Some(0)));
        assert!(means.learn_of(Some("57P02"), true));
        assert_eq!(taken(&means), (1 << 30, 2, Some(0)));
        assert!(!means.learn_of(None, true), "a process that was killed");
    }

    #[test]
    fn what_has_nothing_to_do_with_the_build_does_not_count() {
        let mut means = Means::default();
        for (code, closed) in
            [(Some("57P01"), true), (Some("25P04"), true), (Some("55P03"), false), (None, false)]
        {
            assert!(means.learn_of(code, closed) && means.failures() == 0, "{code:?}");
        }
    }
}
