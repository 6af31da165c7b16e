//! CPU time of a process and all its descendants.

use std::fs;

/// `/proc` counts in hundredths of a second (USER_HZ), on every machine that Linux runs on today.
const TICKS: f64 = 100.0;

/// Seconds of CPU that a process and its descendants have used, those that have ended included.
pub(crate) fn seconds(process: u32) -> f64 {
    ticks(process) as f64 / TICKS
}

fn ticks(process: u32) -> u64 {
    // One that ends in between is counted by its parent from then on.
    let own = fields(process)
        .map_or(0, |fields| fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum());
    own + children(process).into_iter().map(ticks).sum::<u64>()
}

/// Whether the process has ended, though nobody may have asked for its exit status yet.
pub(crate) fn has_ended(process: u32) -> bool {
    fields(process).is_none_or(|fields| fields[0] == "Z")
}

/// What stands behind the process's name in its `stat`.
fn fields(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(") ")?;
    Some(behind.split_whitespace().map(str::to_owned).collect())
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|listing| {
            listing.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}
