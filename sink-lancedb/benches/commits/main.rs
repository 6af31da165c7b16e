//! What a table is like after many commits: memory, files, and the time of a search, a line every 50 commits. All keys are
//! loaded first, so the table does not grow any more.
//!
//! `COMMITS=1000 INDEX=hnsw cargo bench -p sink-lancedb --features lancedb --bench commits`. `INDEX` is hnsw, pq, flat or none;
//! `CACHE_MIB` bounds each of the two caches of each table, in place of the connector's 32 and 8 MiB. `PLOT` names a file for the figure.

mod plot;
#[path = "../../tests/support.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::time::{Duration, Instant};

use sink_lancedb::{
    Dataset, DatasetOptions, IndexMethod, IndexSpec, Metric, Overwrite, TableSpec, Upkeep, VectorReader,
    VectorTable,
};
use support::{Owned, Random, folder, rows, run, spec};

/// What the table was like after so many commits. Times are means of the commits since the look before.
struct Look {
    commit: u64,
    versions: u64,
    files: u64,
    disk_mib: u64,
    /// Of the newest version alone.
    newest_mib: u64,
    resident_mib: u64,
    write_ms: f64,
    search_ms: f64,
}

const DIMENSIONS: u16 = 128;
const KEYS: u64 = 50_000;
const BATCH: u64 = 200;
/// So many rows are in a batch of the load.
const LOAD: u64 = 10_000;

/// Resident memory in MiB, as Linux tells it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1_024)
}

/// One figure of a look.
type Value = fn(&Look) -> f64;

/// What docs/lancedb.md promises of any number of commits.
fn assert_bounded(looks: &[Look]) {
    let upkeep = Upkeep::default();
    let versions = u64::from(upkeep.keep_versions.get() + 1 + 2 * upkeep.every.get());
    for look in looks {
        assert!(look.versions <= versions, "{} versions after {} commits", look.versions, look.commit);
        assert!(look.files <= 6 * versions + 20, "{} files after {} commits", look.files, look.commit);
        assert!(
            look.disk_mib <= 8 * look.newest_mib + 16,
            "{} MiB after {} commits",
            look.disk_mib,
            look.commit
        );
    }
    let third = looks.len() / 3;
    if third < 6 {
        println!("too few commits to say whether anything grows");
        return;
    }
    let median = |looks: &[Look], value: Value| {
        let mut values: Vec<f64> = looks.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let values: [(&str, Value, f64); 3] = [
        ("resident memory", |look| look.resident_mib as f64, 1.1),
        ("a search", |look| look.search_ms, 1.5),
        ("a commit", |look| look.write_ms, 1.5),
    ];
    for (what, value, most) in values {
        let (middle, last) = (median(&looks[third..2 * third], value), median(&looks[2 * third..], value));
        println!("{what}: {middle:.1} in the middle third, {last:.1} in the last");
        assert!(last <= most * middle, "{what} grows");
    }
}

fn main() {
    let commits: u64 =
        std::env::var("COMMITS").ok().and_then(|commits| commits.parse().ok()).unwrap_or(1_000);
    let method = match std::env::var("INDEX").as_deref() {
        Ok("none") => None,
        Ok("flat") => Some(IndexMethod::IvfFlat),
        Ok("pq") => Some(IndexMethod::IvfPq),
        _ => Some(IndexMethod::IvfHnswSq),
    };
    run(async {
        let folder = folder();
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
        let mut options = DatasetOptions::new(folder.path().to_str().expect("text"));
        // All of this is as the connector has it.
        (options.index_cache, options.metadata_cache) = (32 << 20, 8 << 20);
        if let Some(mib) = number("CACHE_MIB") {
            (options.index_cache, options.metadata_cache) = (mib << 20, mib << 20);
        }
        let locked = Dataset::open(options).expect("a folder").lock().expect("locked");
        let wanted = TableSpec {
            dimensions: DIMENSIONS,
            index: method.map(|method| IndexSpec { method, metric: Metric::Cosine, min_rows: 10_000 }),
            upkeep: Upkeep::default(),
            ..spec("docs")
        };
        let mut table = VectorTable::open(&locked, wanted).await.expect("made");
        let mut reader = VectorReader::open(&locked.reading(), "docs").await.expect("opened");
        let mut random = Random(1);
        println!(
            "commit,seconds,rows,versions,fragments,files,mib,resident_mib,write_ms,upkeep_ms,search_ms,index"
        );
        for first in (0..KEYS).step_by(LOAD as usize) {
            let given: Vec<Owned> = (first..first + LOAD)
                .map(|key| Owned::sized(format!("k{key}"), random.next() >> 20, DIMENSIONS))
                .collect();
            table.upsert(&rows(&given), Overwrite::Always).await.expect("loaded");
        }
        table.tidy().await.expect("tidied");
        println!("0,0,{KEYS},,,,,{},,,,", resident());
        let mut looks = Vec::new();
        let (began, mut writing, mut tidying) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        for commit in 1..=commits {
            let first = random.below(KEYS);
            let given: Vec<Owned> = (0..BATCH)
                .map(|number| {
                    Owned::sized(
                        format!("k{}", (first + number * 13) % KEYS),
                        random.next() >> 20,
                        DIMENSIONS,
                    )
                })
                .collect();
            let before = Instant::now();
            table.upsert(&rows(&given), Overwrite::Always).await.expect("written");
            writing += before.elapsed();
            let before = Instant::now();
            table.upkeep().await.expect("tidied");
            tidying += before.elapsed();
            if commit.is_multiple_of(50) {
                let stats = table.stats().await.expect("read");
                let disk = stats.on_disk.expect("a folder");
                let before = Instant::now();
                let near = reader.nearest(&given[0].0.embedding, 10, Metric::Cosine).await.expect("found");
                let search = before.elapsed();
                println!(
                    "{commit},{},{},{},{},{},{},{},{},{},{},{}",
                    began.elapsed().as_secs(),
                    stats.rows,
                    stats.versions,
                    stats.fragments,
                    disk.files,
                    disk.bytes >> 20,
                    resident(),
                    writing.as_millis() / 50,
                    tidying.as_millis() / 50,
                    search.as_millis(),
                    near.used_index
                );
                looks.push(Look {
                    commit,
                    versions: stats.versions,
                    files: disk.files,
                    disk_mib: disk.bytes >> 20,
                    newest_mib: stats.bytes >> 20,
                    resident_mib: resident(),
                    write_ms: writing.as_secs_f64() * 1e3 / 50.0,
                    search_ms: search.as_secs_f64() * 1e3,
                });
                (writing, tidying) = (Duration::ZERO, Duration::ZERO);
            }
        }
        assert_bounded(&looks);
        if let Ok(path) = std::env::var("PLOT") {
            let index = method.map_or("no index".to_owned(), |method| format!("{method:?}"));
            let title = format!(
                "{commits} commits of {BATCH} rows over {KEYS} keys, {DIMENSIONS} dimensions, {index}"
            );
            std::fs::write(path, plot::draw(&title, &looks)).expect("the figure is written");
        }
    });
}
