//! One fault, many times: counting, telling how far it is, and the line of figures in the end.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::random::Random;
use crate::support::stage::Stage;

/// How often a campaign tells how far it is.
const TELL: Duration = Duration::from_secs(30);

/// A campaign in rounds. Each round has a topic and a database of its own, so that what the test keeps in
/// memory to compare with stays small.
pub(crate) struct Campaign {
    name: &'static str,
    wanted: usize,
    struck: usize,
    records: usize,
    since: Instant,
    told: Instant,
    pub(crate) random: Random,
}

impl Campaign {
    /// A campaign that strikes as often as the environment's `variable` says. Says its seed.
    pub(crate) fn new(name: &'static str, variable: &str, default: usize) -> Self {
        let wanted = std::env::var(variable).map_or(default, |count| count.parse().unwrap());
        let (random, now) = (Random::new(name), Instant::now());
        println!("{name}: {wanted} times ({variable})");
        Self { name, wanted, struck: 0, records: 0, since: now, told: now, random }
    }

    /// How often to strike in the next round, at most `most`; `None` when all is done.
    pub(crate) fn round(&self, most: usize) -> Option<usize> {
        let left = self.wanted - self.struck;
        (left > 0).then_some(left.min(most))
    }

    /// Topic, database and connector of a round, on the servers at these ports.
    pub(crate) async fn stage(&mut self, postgres: u16, kafka: u16) -> Stage {
        Stage::seeded(postgres, kafka, self.random.split(), 5_000).await
    }

    /// Takes note of one strike.
    pub(crate) fn struck(&mut self) {
        self.struck += 1;
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            println!("{}: {} of {} after {:?}", self.name, self.struck, self.wanted, self.since.elapsed());
        }
    }

    /// Ends a round: proves that its tables and dead letters equal the fold of its log, that every record was
    /// applied once, and that no position went back.
    pub(crate) async fn verify(&mut self, stage: &Stage) {
        stage.assert_complete().await;
        self.records += stage.log.len();
    }

    /// Prints the line of figures and keeps it in `target/chaos.txt`. Every round was verified, so the zeros are
    /// what was found.
    pub(crate) fn report(self, more: &str) {
        let Self { name, struck, records, since, .. } = self;
        let line = format!(
            "{name}: {struck} times, {records} records, 0 lost, 0 applied twice, 0 regressions, {} s{more}",
            since.elapsed().as_secs()
        );
        println!("{line}");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos.txt");
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// Writes more records when fewer than `ahead` are left to settle.
pub(crate) async fn keep_ahead(stage: &mut Stage, ahead: usize) {
    let left = stage.log.len() - stage.settled().await;
    if left < ahead {
        stage.produce(2 * ahead);
    }
}
