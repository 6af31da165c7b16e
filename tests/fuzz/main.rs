//! Fuzzing of what reads foreign bytes: records, configurations, secrets.
//!
//! `cargo test --test fuzz` tries some inputs, `make fuzz` ten million. `EXECUTIONS` sets how many,
//! `EMBEDSINK_SEED` repeats a run with the same choices. The inputs begin with those of `corpus/`; an input that
//! gets an answer not seen before joins them for the run. An input that fails is printed and kept in a file: put
//! it into `corpus/`, and every later run tries it first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod configuration;
mod corpus;
mod decode;
mod generate;
mod mutate;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use the rest of it")]
mod random;
mod reference;
mod secret;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corpus::Corpus;
use random::Random;

/// What an ordinary run of the tests can afford.
const SHORT_RUN: usize = 200_000;
const THREADS: usize = 2;
/// No input of a few KiB may take longer.
const DEADLINE: Duration = Duration::from_millis(100);
/// How many inputs a thread remembers beyond the corpus.
const REMEMBERED: usize = 4_000;

/// A kind of input: what it is made from, and what must hold for it.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    name: &'static str,
    /// A new input.
    make: fn(&mut Random, &[Vec<u8>]) -> Vec<u8>,
    /// Tries an input. `Ok` is the kind of answer it got, `Err` what is wrong.
    run: fn(&[u8]) -> Result<String, String>,
    /// How many of 100 inputs are of this kind.
    share: usize,
}

const TARGETS: [Target; 3] = [decode::TARGET, configuration::TARGET, secret::TARGET];

#[test]
fn no_input_panics_takes_long_or_is_read_otherwise_than_the_reference_reads_it() {
    let executions = std::env::var("EXECUTIONS").map_or(SHORT_RUN, |count| count.parse().unwrap());
    let mut random = Random::new("fuzz");
    let (done, since) = (AtomicUsize::new(0), Instant::now());
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (random, done) = (Random::seeded(random.next()), &done);
                let share = executions / THREADS + usize::from(number < executions % THREADS);
                scope.spawn(move || fuzz(random, share, executions, done, since))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let answers: HashSet<String> = answers.into_iter().flatten().collect();
    println!(
        "{} executions in {:.1?}, {:.0} a second, {} kinds of answer, nothing wrong",
        done.load(Ordering::Relaxed),
        since.elapsed(),
        done.load(Ordering::Relaxed) as f64 / since.elapsed().as_secs_f64(),
        answers.len()
    );
    for seen in decode::ANSWERS {
        assert!(answers.iter().any(|answer| answer.starts_with(seen)), "no input was one of {seen:?}");
    }
}

/// Tries `count` inputs after those of the corpus; returns the kinds of answer that they got.
fn fuzz(
    mut random: Random,
    count: usize,
    total: usize,
    done: &AtomicUsize,
    since: Instant,
) -> HashSet<String> {
    let mut corpora: Vec<Corpus> = TARGETS.iter().map(|target| Corpus::read(target.name)).collect();
    let mut answers = HashSet::new();
    for (target, corpus) in TARGETS.iter().zip(&corpora) {
        for input in corpus.inputs() {
            answers.insert(check(target, input));
        }
    }
    for _ in 0..count {
        let index = pick(&mut random);
        let (target, corpus) = (&TARGETS[index], &mut corpora[index]);
        let input = (target.make)(&mut random, corpus.inputs());
        let answer = check(target, &input);
        if !answers.contains(&answer) {
            if corpus.inputs().len() < REMEMBERED {
                corpus.remember(input);
            }
            answers.insert(answer);
        }
        let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_multiple_of(1_000_000) {
            println!("{so_far} of {total} after {:.0?}", since.elapsed());
        }
    }
    answers
}

/// The index of the next target.
fn pick(random: &mut Random) -> usize {
    let mut left = random.below(TARGETS.iter().map(|target| target.share).sum());
    TARGETS
        .iter()
        .position(|target| {
            let is_here = left < target.share;
            left = left.saturating_sub(target.share);
            is_here
        })
        .unwrap()
}

/// Tries one input, and keeps it when it fails.
fn check(target: &Target, input: &[u8]) -> String {
    match outcome(target, input) {
        Ok(answer) => format!("{}: {answer}", target.name),
        Err(wrong) => {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
            std::fs::write(&path, input).unwrap();
            panic!(
                "{}: {wrong}\nthe input, kept in {}:\n{}",
                target.name,
                path.display(),
                input.escape_ascii()
            );
        }
    }
}

fn outcome(target: &Target, input: &[u8]) -> Result<String, String> {
    let timed = || {
        let since = Instant::now();
        (catch_unwind(AssertUnwindSafe(|| (target.run)(input))), since.elapsed())
    };
    let (outcome, mut took) = timed();
    // On a busy machine a thread stands still at times. How long it takes is what the fastest of some tries takes.
    for _ in 0..5 {
        if took > DEADLINE {
            took = took.min(timed().1);
        }
    }
    if took > DEADLINE {
        return Err(format!("it took {took:?}"));
    }
    outcome.unwrap_or_else(|_| Err("it panicked".to_owned()))
}
