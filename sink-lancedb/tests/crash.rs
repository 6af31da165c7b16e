//! Killed in the middle of writes.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use sink_lancedb::{
    Dataset, DatasetOptions, Deletion, KeyedRow, KeyedSpec, KeyedTable, Kind, LockedDataset, Overwrite,
    TableSpec, Value, VectorTable,
};

use crate::support::{Model, Owned, Random, contents, dataset, folder, rows, run, spec, tight};

/// Names the folder to the child, which is this same test.
const CHILD: &str = "SINK_LANCEDB_TEST_CHILD";
const THIS: &str = "crash::a_writer_killed_at_any_moment_leaves_a_table_that_equals_the_log_with_unique_keys";

fn positions() -> KeyedSpec {
    KeyedSpec {
        name: "_positions".to_owned(),
        columns: vec![("next".to_owned(), Kind::Integer)],
        upkeep: tight(5, 3, 1_000),
    }
}

fn wanted() -> TableSpec {
    TableSpec { upkeep: tight(5, 3, 1_000), ..spec("docs") }
}

/// The rows and deletions of one step of the log. Keys come again, and no key is in both.
fn step(number: u64) -> (Vec<Owned>, Vec<String>) {
    let mut random = Random(number);
    let mut keys: Vec<u64> = (0..60).map(|_| random.below(400)).collect();
    keys.sort_unstable();
    keys.dedup();
    let deleted = keys.split_off(keys.len() - 10);
    let upserted = keys.into_iter().map(|key| Owned::new(format!("k{key}"), number * 1_000 + key)).collect();
    (upserted, deleted.into_iter().map(|key| format!("k{key}")).collect())
}

fn apply(model: &mut Model, number: u64, deletions: bool) {
    let (upserted, deleted) = step(number);
    model.extend(upserted.into_iter().map(|Owned(row)| (row.id.clone(), row)));
    if deletions {
        deleted.iter().for_each(|key| drop(model.remove(key)));
    }
}

async fn next(table: &mut KeyedTable) -> u64 {
    let found = table.reader().get(&["log"]).await.expect("read");
    match found.first().map(|row| &row.values[0]) {
        Some(Value::Integer(next)) => *next as u64,
        _ => 0,
    }
}

/// Writes the log from where it was left, until it is killed.
async fn write_on(locked: &LockedDataset) {
    let mut kept = KeyedTable::open(locked, positions()).await.expect("opened");
    let mut table = VectorTable::open(locked, wanted()).await.expect("opened");
    let mut number = next(&mut kept).await;
    println!("begin");
    loop {
        let (upserted, deleted) = step(number);
        table.upsert(&rows(&upserted), Overwrite::Always).await.expect("written");
        let deleted: Vec<Deletion<'_>> = deleted.iter().map(|id| Deletion { id, timestamp: None }).collect();
        table.delete(&deleted, Overwrite::Always).await.expect("deleted");
        number += 1;
        kept.put(&[KeyedRow { key: "log".to_owned(), values: vec![Value::Integer(number as i64)] }])
            .await
            .expect("put");
        println!("\ndone {number}");
        std::io::stdout().flush().expect("the parent listens");
        table.upkeep().await.expect("tidied");
        kept.upkeep().await.expect("tidied");
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_table_that_equals_the_log_with_unique_keys() {
    if let Ok(uri) = env::var(CHILD) {
        let locked =
            Dataset::open(DatasetOptions::new(uri)).expect("a folder").lock().expect("nobody else writes");
        return run(write_on(&locked));
    }
    let folder = folder();
    let seed = env::var("EMBEDSINK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("EMBEDSINK_SEED={seed}");
    let mut random = Random(seed);
    let mut reached = 0;
    for _ in 0..20 {
        let mut child = Command::new(env::current_exe().expect("this program has a path"))
            .args(["--exact", THIS, "--nocapture", "--test-threads", "1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let (lines, heard) = mpsc::sync_channel(1_000);
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let listener = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(number) = line.strip_prefix("done ") {
                    lines.send(number.parse::<u64>().expect("a number")).expect("the test listens");
                }
            }
        });
        // Some steps, and then a part of one.
        for _ in 0..random.below(4) {
            reached = heard.recv_timeout(Duration::from_secs(300)).expect("the child writes on");
        }
        if let Ok(number) = heard.recv_timeout(Duration::from_micros(random.below(400_000))) {
            reached = number;
        }
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
        listener.join().expect("it has listened to the end");
        reached = heard.try_iter().last().unwrap_or(reached);

        run(async {
            let locked = dataset(&folder).lock().expect("the lock ended with its process");
            let mut kept = KeyedTable::open(&locked, positions()).await.expect("opened");
            let next = next(&mut kept).await;
            assert!(next >= reached, "{next} is stored, {reached} was told");
            drop(VectorTable::open(&locked, wanted()).await.expect("opened"));
            let found = contents(&locked.reading(), "docs").await;
            let mut before = Model::new();
            (0..next).for_each(|number| apply(&mut before, number, true));
            let (mut between, mut after) = (before.clone(), before.clone());
            apply(&mut between, next, false);
            apply(&mut after, next, true);
            assert!(
                [before, between, after].contains(&found),
                "the table is none of a step's states, at {next}"
            );
        });
    }
    println!("killed 20 times, at {reached} steps");
    assert!(reached > 0);
}
