//! The pipeline over a source and a target in memory, through histories that a seed decides.
//!
//! Gatherers, scribes, decoding, batches and the rhythm of retries are the real ones. The group that shares the
//! partitions out ([`group`]), what the source delivers ([`source`]) and what becomes of each write ([`target`])
//! are drawn: crashes, zombies, hand-overs, re-announcements, duplicates, late records, commits in doubt, refused
//! rows, writes that hang. Time is virtual, everything runs in one thread, so a seed gives one history.
//!
//! One invariant, looked at after each crash and in the end: tables and dead letters equal the fold of the log up
//! to the stored positions. In the end these are the ends of the log.

mod group;
mod log;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "shared with the tests against servers, which use the rest of it")]
mod random;
mod source;
mod target;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use group::Group;
use target::Happening;

/// Seeds that a run of the tests goes through; `EMBEDSINK_SEEDS` changes that.
const SEEDS: u64 = 100_000;

/// What a history came to. Another run of the same seed must come to the same.
#[derive(Debug, PartialEq, Eq)]
struct History {
    /// All that happened, in its order, as one number.
    trace: u64,
    counts: BTreeMap<Happening, u64>,
}

/// Plays the history of a seed.
fn play(seed: u64) -> Result<History, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|fault| fault.to_string())?;
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { Group::new(seed).play().await })));
    played.unwrap_or_else(|_| Err("a part of it panicked; the message stands above".to_owned()))
}

#[test]
fn in_every_history_the_target_equals_the_fold_of_the_log() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (first, count) = match variable("EMBEDSINK_SEED") {
        Some(seed) => (seed, 1),
        None => (0, variable("EMBEDSINK_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= count {
                        return;
                    }
                    if let Err(complaint) = play(seed) {
                        failed.lock().unwrap().get_or_insert((seed, complaint));
                    }
                }
            });
        }
    });
    if let Some((seed, complaint)) = failed.into_inner().unwrap() {
        panic!(
            "seed {seed}: {complaint}\nrepeat it with: EMBEDSINK_SEED={seed} cargo test --release --lib simulator"
        );
    }
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in 0..50 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}

#[test]
fn histories_hold_what_they_are_for() {
    let mut counts: BTreeMap<Happening, u64> = BTreeMap::new();
    for seed in 0..200 {
        for (what, count) in play(seed).unwrap().counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("in 200 histories: {counts:?}");
    for what in Happening::ALL {
        assert!(counts.get(&what).is_some_and(|count| *count >= 50), "{what:?} is too rare: {counts:?}");
    }
}
