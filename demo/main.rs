//! The demo: 1,000 texts go through Kafka into pgvector, and three questions find their neighbours.
//!
//! `make demo` starts the servers, builds the connector and runs this. The steps, in order:
//! read `connector.yaml`, create the topic, start the connector, produce the records, watch them
//! arrive in Postgres, ask the questions, stop the connector. A second run changes no row.
#![forbid(unsafe_code)]

mod arrive;
mod ask;
mod connector;
mod produce;
mod question;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::{Client, NoTls};

use crate::arrive::{Expected, Report};
use crate::connector::Connector;
use crate::produce::Deliveries;
use crate::settings::{Settings, root};

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
    let settings = Settings::read("connector.yaml", false)?;
    let records = produce::load(&root().join("demo/embeddings.jsonl.gz"))?;
    let questions = question::load(&root().join("demo/questions.json"))?;

    let partitions = produce::create_topic(&settings).await?;
    let postgres = connect(&settings).await?;
    println!("Topic {} on {}: {partitions} partitions.", settings.topic, settings.bootstrap);

    let before = arrive::epochs(&postgres, &settings).await?;
    let mut connector = Connector::start(&settings)?;
    println!("Connector started: {}", connector.command());
    println!("Its log: {}", connector::LOG);
    connector.watch(arrive::ready(&postgres, &settings, partitions, &before)).await?;

    let expected = Expected::read(&postgres, records.iter().map(|record| record.id.clone())).await?;
    let deliveries = Arc::new(Deliveries::default());
    let sending = produce::produce(&settings, records, Arc::clone(&deliveries));
    let arriving = arrive::follow(&postgres, &settings, &expected, &deliveries);
    // The clock starts with the first poll of `arriving`, just before the first record is sent.
    let (report, ()) = connector.watch(async { tokio::try_join!(arriving, sending) }).await?;

    summarize(&postgres, &settings, &report).await?;
    ask::ask(&postgres, &questions).await?;

    let ended = connector.stop().await?;
    println!("\nConnector stopped with SIGTERM: exit code 0 after {:.2} s.", ended.as_secs_f64());
    farewell(&settings)
}

/// Opens the demo's own connection to Postgres.
async fn connect(settings: &Settings) -> Result<Client> {
    let config = settings.postgres()?;
    let (client, connection) = config.connect(NoTls).await.with_context(|| {
        format!("Postgres does not answer on port {:?} (make up starts it)", config.get_ports())
    })?;
    tokio::spawn(async move {
        // The queries that the connection carries report its end themselves.
        connection.await.ok();
    });
    Ok(client)
}

/// Prints what was written, how long it took and where the connector stands.
async fn summarize(postgres: &Client, settings: &Settings, report: &Report) -> Result<()> {
    println!("\nWhat was written");
    println!("  records produced            {:>7}", report.produced);
    println!("  rows in the table           {:>7}", report.rows);
    println!("    new                       {:>7}", report.new);
    println!("    changed                   {:>7}", report.changed);
    println!("    unchanged, left alone     {:>7}", report.unchanged);
    println!("  first produce to last row   {:>7.3} s", report.took.as_secs_f64());
    println!("  records per second          {:>7.0}", report.produced as f64 / report.took.as_secs_f64());

    println!("\nWhere the connector stands (embedsink.offsets)");
    println!("  partition   next offset   epoch");
    for stand in arrive::offsets(postgres, settings).await? {
        println!("  {:>9}   {:>11}   {:>5}", stand.partition, stand.next_offset, stand.epoch);
    }
    Ok(())
}

/// Says what to try next.
fn farewell(settings: &Settings) -> Result<()> {
    println!("\nWhat to run next");
    println!("  make demo    again: the rows stay 1,000, and the unchanged ones are left alone");
    println!("  make test    the tests that prove the delivery guarantee");
    println!("  make down    stop the servers; their data stays");
    println!("  {}", settings.psql()?);
    println!("               look at the tables: embeddings, embedsink.offsets, embedsink.dead_letters");
    println!("Read on in README.md and ARCHITECTURE.md. connector.yaml explains each setting.");
    Ok(())
}
