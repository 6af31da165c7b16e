//! What embedsink is worth: its rates, beside the database's own ceiling and the write shapes of comparable systems,
//! on one Postgres and one Kafka broker in one run.
//!
//! `make bench` runs it; `QUICK=1` makes it short, `ONLY=rates,freshness` picks steps. The figures are printed, written
//! to target/bench.json and target/bench.md, and drawn: target/bench.svg, and after a full run docs/bench.svg.
//! docs/performance.md says what each figure is.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by a panic")]

mod backfill;
mod backlog;
mod ceiling;
mod chart;
mod cpu;
mod decode;
mod drain;
// The sink keeps its encoding to itself.
#[path = "../../sink-postgres-vector/src/encode.rs"]
#[allow(dead_code, unused_imports, reason = "its tests are run where it belongs")]
mod encode;
mod freshness;
mod index;
mod instructions;
mod machine;
mod memory;
mod report;
#[path = "../../sink-postgres-vector/src/row.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is public where it belongs")]
mod row;
mod sample;
mod scale;
mod shape;
mod stand;
#[allow(dead_code, reason = "shared with the tests, which use the rest of it")]
#[path = "../../tests/support/mod.rs"]
mod support;
mod way;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use report::Report;
use scale::{Scale, Step};
use stand::Stand;

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured in a test; run make bench");
        return ExitCode::SUCCESS;
    }
    if let Ok(asked) = std::env::var(instructions::PASSES) {
        return match instructions::pass(&asked) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.context("a runtime").and_then(|runtime| runtime.block_on(until_interrupted())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe benchmark failed. {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it. An interrupt ends it early, and takes the servers along.
async fn until_interrupted() -> Result<()> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        result = run() => result,
        _ = interrupted.recv() => bail!("It was interrupted."),
        _ = terminated.recv() => bail!("It was told to stop."),
    }
}

async fn run() -> Result<()> {
    let (scale, steps) = (Scale::from_environment()?, scale::wanted()?);
    let (mut report, begun) = (Report::default(), Instant::now());
    let stand = if steps == [Step::Decode] { None } else { Some(Stand::start().await?) };
    if let Some(stand) = &stand {
        machine::note(&mut report, &stand.database().await.connect().await, stand.broker()).await?;
    }
    for step in &steps {
        println!("{}", step.name());
        let since = Instant::now();
        if let Err(error) = measure(*step, stand.as_ref(), &mut report, &scale).await {
            eprintln!("  {} failed: {error:#}", step.name());
            report.fail(step.name(), format!("{error:#}"));
        }
        println!("  took {:.0} s", since.elapsed().as_secs_f64());
    }
    report.add("run_seconds", begun.elapsed().as_secs_f64());
    report.finish();
    write(&report, &scale, steps.len() == Step::ALL.len())?;
    if let [(step, why), ..] = report.failures() {
        bail!("{} of {} steps failed; the first is {step}: {why}", report.failures().len(), steps.len());
    }
    Ok(())
}

async fn measure(step: Step, stand: Option<&Stand>, report: &mut Report, scale: &Scale) -> Result<()> {
    let Some(stand) = stand.filter(|_| step != Step::Decode) else {
        decode::measure(report, scale)?;
        return instructions::measure(report);
    };
    let [small, middle, large] = scale.backlog;
    match step {
        Step::Decode => Ok(()),
        Step::Rates => backlog::measure(stand, report, scale, (384, small), scale.shape).await,
        Step::Ways => way::measure(stand, report, scale).await,
        Step::Wide => {
            backlog::measure(stand, report, scale, (768, middle), 0).await?;
            backlog::measure(stand, report, scale, (1536, large), 0).await
        }
        Step::Index => {
            for (dimensions, rows) in [384, 768, 1536].into_iter().zip(scale.indexed) {
                index::measure(stand, report, scale, (dimensions, rows)).await?;
            }
            Ok(())
        }
        Step::Backfill => backfill::measure(stand, report, scale).await,
        Step::Freshness => freshness::measure(stand, report, scale).await,
        Step::Memory => memory::measure(stand, report, scale).await,
    }
}

/// Prints the table and writes the files.
fn write(report: &Report, scale: &Scale, is_complete: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the target folder")?;
    let kind = if scale.is_quick { "a quick run" } else { "a full run" };
    let figure = chart::draw(report, &format!("embedsink, {kind} of make bench"));
    fs::write(target.join("bench.json"), format!("{:#}\n", report.json(scale)))?;
    fs::write(target.join("bench.md"), report.markdown())?;
    fs::write(target.join("bench.svg"), &figure)?;
    // The figure of the documents is one of a full run.
    if is_complete && !scale.is_quick {
        fs::write(root.join("docs/bench.svg"), figure)?;
    }
    println!("\n{}\n\n{}", report.table(), report.markdown());
    println!("written: {0}/bench.json, {0}/bench.md and {0}/bench.svg", target.display());
    Ok(())
}
