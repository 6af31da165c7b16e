//! `embedsink.batch`: when a batch is written. What is usual depends on what a commit costs the target.

use std::time::Duration;

use super::field::join;
use super::problem::{Origin, Report};
use super::quantity::{self, Limits};
use super::section::Section;
use super::settings::BatchSettings;
use super::sink::SinkKind;

const MAX_ROWS: Limits<u32> =
    Limits { least: 1, most: 100_000, why: "a batch holds at least one row, and is kept in memory whole" };
const MAX_BYTES: Limits<usize> = Limits {
    least: 64 << 10,
    most: 256 << 20,
    why: "a batch needs room for a record, and is kept in memory whole",
};
const MAX_WAIT: Limits<Duration> = Limits {
    least: Duration::from_millis(1),
    most: Duration::from_secs(60),
    why: "a record waits this long before it is written",
};
const LINGER: Limits<Duration> = Limits {
    least: Duration::ZERO,
    most: Duration::from_secs(60),
    why: "a record waits this long before it is written, though it could be at once",
};

/// Reads the section.
pub(super) fn read(embedsink: &Section<'_>, kind: SinkKind, report: &mut Report) -> Option<BatchSettings> {
    let batch = embedsink.section("batch", "embedsink.batch", report)?;
    let usual = usual(kind);
    let max_rows = match batch.get("max-rows") {
        Some(field) => field.count(&MAX_ROWS, report).and_then(|rows| usize::try_from(rows).ok()),
        None => Some(usual.max_rows),
    };
    let max_bytes = match batch.get("max-bytes") {
        Some(field) => field.size(&MAX_BYTES, report),
        None => Some(usual.max_bytes),
    };
    let max_wait = match batch.get("max-wait") {
        Some(field) => field.duration(&MAX_WAIT, report),
        None => Some(usual.max_wait),
    };
    let linger = match batch.get("linger") {
        Some(field) => field.duration(&LINGER, report).and_then(|linger| {
            let fits = max_wait.is_none_or(|max_wait| linger <= max_wait);
            if !fits {
                let what = format!("{} is longer than `batch.max-wait`", field.quoted());
                field.complain(report, what, "give less, or raise max-wait");
            }
            fits.then_some(linger)
        }),
        None => max_wait.map(|max_wait| max_wait.min(usual.linger)),
    };
    let read =
        BatchSettings { max_rows: max_rows?, max_bytes: max_bytes?, max_wait: max_wait?, linger: linger? };
    tell_usual(&batch, &read, report);
    Some(read)
}

/// What a batch is when the file says nothing.
fn usual(kind: SinkKind) -> BatchSettings {
    match kind {
        // Each commit is a version with files of its own, so fewer are made.
        SinkKind::Lance => BatchSettings {
            max_rows: 10_000,
            max_bytes: 32 << 20,
            max_wait: Duration::from_secs(1),
            linger: Duration::from_millis(500),
        },
        SinkKind::Postgres { .. } | SinkKind::Unclear => BatchSettings {
            max_rows: 2_000,
            max_bytes: 8 << 20,
            max_wait: Duration::from_millis(200),
            linger: Duration::from_millis(5),
        },
    }
}

/// Tells what is in force without standing in the file.
fn tell_usual(batch: &Section<'_>, read: &BatchSettings, report: &mut Report) {
    let told = [
        ("max-rows", read.max_rows.to_string()),
        ("max-bytes", format!("{}MiB", read.max_bytes >> 20)),
        ("max-wait", quantity::exact_duration(read.max_wait)),
        ("linger", quantity::exact_duration(read.linger)),
    ];
    for (key, text) in told {
        if batch.get(key).is_none() {
            report.resolve(join(&batch.path, key), Some(text), Origin::Default);
        }
    }
}
