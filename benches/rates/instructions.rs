//! Instructions per record, counted by callgrind: they do not move with what else the machine does.
//!
//! The benchmark runs itself below it, with more and with fewer passes over the same records. Only what the further
//! passes add counts, so neither the start nor the making of the records does.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::decode::Way;
use crate::report::Report;

/// What tells the benchmark to make passes and nothing else: a way and how many.
pub(crate) const PASSES: &str = "EMBEDSINK_BENCH_PASSES";

const FEWER: u64 = 1;
const MORE: u64 = 3;

/// Counts them, at 384 dimensions. Where there is no valgrind it says so, and adds no figure.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("  valgrind is not installed (Debian package: valgrind), so instructions are not counted");
        return Ok(());
    }
    let decoded = per_record(Way::Decode)?;
    let encoded = per_record(Way::DecodeAndEncode)?;
    report.add("decode_instructions_per_record", decoded);
    report.add("encode_instructions_per_record", encoded - decoded);
    Ok(())
}

fn per_record(way: Way) -> Result<f64> {
    let (more, fewer) = (counted(way, MORE)?, counted(way, FEWER)?);
    let records = (MORE - FEWER) * Way::COUNTED as u64;
    Ok((more.checked_sub(fewer).context("callgrind counted less for more")?) as f64 / records as f64)
}

/// All instructions of a run with this many passes.
fn counted(way: Way, passes: u64) -> Result<u64> {
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .arg("--bench")
        .env(PASSES, format!("{} {passes}", way.name()))
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "callgrind failed:\n{}", said.trim());
    let counted =
        said.lines().find_map(|line| line.split_once("Collected :")).context("callgrind counted nothing")?;
    Ok(counted.1.trim().parse()?)
}

/// Makes the passes that [`PASSES`] asks for.
pub(crate) fn pass(asked: &str) -> Result<()> {
    let (name, passes) = asked.split_once(' ').context("a way and a number of passes")?;
    let way = Way::ALL.into_iter().find(|way| way.name() == name).context("an unknown way")?;
    way.pass(passes.parse()?)
}
