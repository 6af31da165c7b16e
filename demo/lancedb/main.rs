//! The demo without a database server: 1,000 texts go through Kafka into a LanceDB folder, and three questions
//! find their neighbours.
//!
//! `make demo-lancedb` starts the broker, builds the connector and runs this. The steps are those of `make demo`; what is in the
//! folder it asks the connector's own commands: `offsets show` and `query`. The questions come when the connector has
//! stopped, for nothing has to run that they could ask. A second run changes no row.
#![forbid(unsafe_code)]

#[path = "../connector.rs"]
mod connector;
mod look;
#[path = "../produce.rs"]
mod produce;
#[path = "../question.rs"]
mod question;
#[allow(dead_code, reason = "the demo with Postgres uses the rest of it")]
#[path = "../settings.rs"]
mod settings;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use crate::connector::Connector;
use crate::look::{Commands, Counts};
use crate::produce::Deliveries;
use crate::question::Question;
use crate::settings::{Settings, root};

/// The folder of the dataset, as the configuration has it.
const DATA: &str = ".local/demo/lancedb";

/// The time between two looks, each of which is a process.
const POLL: Duration = Duration::from_millis(250);

/// How long the connector may take for one step.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the demo and says in one line what went wrong, if anything did.
#[tokio::main]
async fn main() -> ExitCode {
    match until_terminated().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed. {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo. SIGTERM ends it early and takes the connector along.
async fn until_terminated() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        result = demo() => result,
        _ = terminated.recv() => bail!("It was told to stop."),
    }
}

/// The whole demo, from the configuration to the hints at the end.
async fn demo() -> Result<()> {
    let settings = Settings::read("demo/lancedb/lancedb.yaml", true)?;
    let records = produce::load(&root().join("demo/embeddings.jsonl.gz"))?;
    let questions = question::load(&root().join("demo/questions.json"))?;
    let commands = Commands::of(&settings)?;

    let partitions = produce::create_topic(&settings).await?;
    println!("Topic {} on {}: {partitions} partitions.", settings.topic, settings.bootstrap);
    let before = commands.offsets()?;
    let mut connector = Connector::start(&settings)?;
    println!("Connector started: {}", connector.command());
    println!("Its log: {}", connector::LOG);
    let ready = async {
        let taken = |now: &look::Offsets| {
            now.iter()
                .filter(|(partition, (_, epoch))| before.get(partition).map(|(_, old)| old) < Some(epoch))
                .count()
        };
        until("take every partition", || Ok(taken(&commands.offsets()?) >= partitions)).await
    };
    connector.watch(ready).await?;

    let earlier = commands.ids()?;
    let expected: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
    let (deliveries, began) = (Arc::new(Deliveries::default()), Instant::now());
    let arriving = async {
        produce::produce(&settings, records, Arc::clone(&deliveries)).await?;
        until("write all records", || {
            let stored = commands.offsets()?;
            let is_stored = |place: &produce::Place| {
                stored.get(&place.partition).is_some_and(|(next, _)| *next > place.offset)
            };
            Ok(deliveries.places().iter().all(is_stored))
        })
        .await
    };
    connector.watch(arriving).await?;
    let took = began.elapsed();

    let ended = connector.stop().await?;
    println!("\nConnector stopped with SIGTERM: exit code 0 after {:.2} s.", ended.as_secs_f64());
    summarize(&commands, &expected, &earlier, took)?;
    ask(&commands, &questions)?;
    farewell(&commands, &settings);
    Ok(())
}

/// Prints what was written, how long it took and where the connector stands.
fn summarize(
    commands: &Commands,
    expected: &[String],
    earlier: &HashSet<String>,
    took: Duration,
) -> Result<()> {
    let (counts, rows) = (Counts::read()?, commands.ids()?);
    let stored = expected.iter().filter(|id| rows.contains(*id)).count();
    let new = expected.iter().filter(|id| rows.contains(*id) && !earlier.contains(*id)).count();
    println!("\nWhat was written");
    println!("  records produced                {:>7}", expected.len());
    println!("  rows in the table               {stored:>7}");
    println!("    new                           {new:>7}");
    println!("    changed                       {:>7}", counts.upserted.saturating_sub(new));
    println!("    unchanged, left alone         {:>7}", counts.unchanged);
    println!("  first produce to last position  {:>7.3} s", took.as_secs_f64());

    println!("\nWhere the connector stands (embedsink_offsets)");
    println!("  partition   next offset   epoch");
    for (partition, (next_offset, epoch)) in commands.offsets()? {
        println!("  {partition:>9}   {next_offset:>11}   {epoch:>5}");
    }
    if stored < expected.len() {
        bail!("{} rows are missing. Look at the table embedsink_dead_letters.", expected.len() - stored);
    }
    Ok(())
}

/// Asks each question and prints its three nearest neighbours by cosine distance.
fn ask(commands: &Commands, questions: &[Question]) -> Result<()> {
    for question in questions {
        let answer = commands.nearest(question.embedding.get())?;
        println!("\n{}  ({:.1} ms)", question.question, answer.took_ms);
        println!("  distance  topic         text");
        for row in &answer.rows {
            question::print(row.distance, row.topic.as_deref(), row.text.as_deref());
        }
    }
    Ok(())
}

/// Says what to try next.
fn farewell(commands: &Commands, settings: &Settings) {
    let (program, file) = (commands.program(), settings.file.display());
    println!("\nWhat to run next");
    println!("  make demo-lancedb    again: the rows stay 1,000, and the unchanged ones are left alone");
    println!("  {program} query --config {file} embeddings --limit 5");
    println!("  {program} offsets show --config {file}");
    println!("  make down            stop the broker; its data stays");
    println!("The rows are in {DATA}. Read on in docs/lancedb.md, also how to open them in Python.");
}

/// Looks again and again until it is done.
async fn until(what: &str, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let (began, mut poll) = (Instant::now(), interval(POLL));
    loop {
        poll.tick().await;
        if is_done()? {
            return Ok(());
        }
        if began.elapsed() > DEADLINE {
            bail!("The connector did not {what} within {} s.", DEADLINE.as_secs());
        }
    }
}
