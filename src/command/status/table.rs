//! The document for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};

use crate::framework::monitoring::Document;
use crate::monitoring::{
    DatasetFigures, Flow, IndexFigures, IndexState, Moment, PartitionFigures, Phase, Summary,
};

/// Renders it, with colours if `colour`. `later` is the word for a phase that only a later version knows.
pub(super) fn render(document: &Document, later: Option<&str>, colour: bool) -> String {
    let (health, sink) = (&document.report.health, &document.report.sink);
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.push(("received", flow(&sink.received)));
    lines.push(("settled", format!("{} in {} batches", flow(&sink.settled), sink.batches)));
    let rows = sink.rows;
    let mut of_rows =
        format!("{} upserted, {} unchanged, {} deleted", rows.upserted, rows.unchanged, rows.deleted);
    if rows.stale > 0 {
        of_rows.push_str(&format!(", {} stale", rows.stale));
    }
    lines.push(("rows", of_rows));
    lines.push(("dead letters", counted(sink.dead_letters.total, &sink.dead_letters.by_reason)));
    lines.push(("retries", counted(sink.retries.total, &sink.retries.by_sqlstate)));
    let buffer = sink.buffer;
    lines.push(("buffer", format!("{} of {}", ByteSize(buffer.used_bytes), ByteSize(buffer.limit_bytes))));
    lines.push(("last write", health.last_write.as_ref().map_or("none yet".to_owned(), ago)));
    if let Some(error) = &health.last_error {
        lines.push(("last error", format!("{}: {}", ago(&error.when), plain(&error.text))));
    }

    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    let phase = later.map_or_else(|| health.phase.as_str().to_owned(), plain);
    let phase = match health.phase {
        _ if !colour => phase,
        Phase::Failed | Phase::Stopped => format!("\x1b[31m{phase}\x1b[0m"),
        Phase::Starting | Phase::Retrying => format!("\x1b[33m{phase}\x1b[0m"),
        Phase::Running | Phase::Paused | Phase::Draining => format!("\x1b[32m{phase}\x1b[0m"),
    };
    let age = duration(health.since.age_seconds);
    say(format_args!("{}: {phase} for {age}, {}", plain(&sink.connector), plain(&health.reason)));
    let version = plain(&sink.version);
    say(format_args!("embedsink {version}, process {}, started {}", sink.pid, plain(&sink.started.at)));
    say(format_args!(""));
    for (name, value) in lines {
        say(format_args!("{name:<14}{value}"));
    }
    say(format_args!("\n{}", distributions(document)));
    say(format_args!("\n{}", partitions(&sink.partitions)));
    if let Some(indexes) = indexes(&sink.indexes) {
        say(format_args!("\n{indexes}"));
    }
    if !sink.dataset.is_empty() {
        say(format_args!("\n{}", dataset(&sink.dataset)));
    }
    text
}

fn distributions(document: &Document) -> String {
    let sink = &document.report.sink;
    let mut table = table(&["last 5 to 10 minutes", "p50", "p99", "max"]);
    let count = |value: f64| format!("{value:.0}");
    let bytes = |value: f64| ByteSize(value as u64).to_string();
    let row = |name: &str, summary: &Summary, told: &dyn Fn(f64) -> String| {
        let told = |value: Option<f64>| value.map_or("-".to_owned(), told);
        [name.to_owned(), told(summary.p50), told(summary.p99), told(summary.max)]
    };
    table.add_row(row("records a batch", &sink.batch_records, &count));
    table.add_row(row("bytes a batch", &sink.batch_bytes, &bytes));
    table.add_row(row("time to write a batch", &sink.write_seconds, &duration));
    table.add_row(row("age of a record when durable", &sink.record_age_seconds, &duration));
    trimmed(&table)
}

fn partitions(partitions: &[PartitionFigures]) -> String {
    if partitions.is_empty() {
        return "no partitions".to_owned();
    }
    let mut table = table(&["partition", "next offset", "end", "lag", "epoch"]);
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    for partition in partitions {
        table.add_row([
            format!("{}[{}]", plain(&partition.topic), partition.partition),
            partition.next_offset.to_string(),
            or_unknown(partition.end_offset.map(|end| end.to_string())),
            or_unknown(partition.lag.map(|lag| lag.to_string())),
            partition.epoch.to_string(),
        ]);
    }
    trimmed(&table)
}

/// `None` where none is configured.
fn indexes(indexes: &[IndexFigures]) -> Option<String> {
    let told: Vec<&IndexFigures> =
        indexes.iter().filter(|index| index.progress.state != IndexState::None).collect();
    if told.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["vector index of", "state", ""]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for IndexFigures { table: name, progress } in told {
        let phase = progress.phase.as_deref().map(plain);
        let percent = progress.percent.map(|percent| format!("{percent:.0} %"));
        let words: Vec<String> =
            [progress.reason.as_deref().map(plain), phase, percent].into_iter().flatten().collect();
        table.add_row([plain(name), progress.state.as_str().to_owned(), words.join(", ")]);
    }
    Some(trimmed(&table))
}

fn dataset(tables: &[DatasetFigures]) -> String {
    let header = [
        "table in the dataset",
        "rows",
        "not indexed",
        "versions",
        "fragments",
        "files",
        "on disk",
        "upkeep",
    ];
    let mut table = table(&header);
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    for DatasetFigures { stored, upkeep } in tables {
        let kept = match (&upkeep.trouble, &upkeep.last) {
            (Some(trouble), _) => format!("failed: {}", plain(trouble)),
            (None, Some(last)) => ago(last),
            (None, None) => "not yet".to_owned(),
        };
        table.add_row([
            plain(&stored.table),
            stored.rows.to_string(),
            number(stored.unindexed_rows),
            stored.versions.to_string(),
            stored.fragments.to_string(),
            number(stored.files),
            stored.disk_bytes.map_or("-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            kept,
        ]);
    }
    trimmed(&table)
}

/// A table without lines, all but its first column to the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn flow(flow: &Flow) -> String {
    format!("{} records, {}", flow.records, ByteSize(flow.bytes))
}

/// A total, and what it is made of: the most frequent first.
fn counted(total: u64, parts: &BTreeMap<String, u64>) -> String {
    let mut parts: Vec<(&String, &u64)> = parts.iter().collect();
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<String> = parts.iter().map(|(name, count)| format!("{} {count}", plain(name))).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}

fn ago(moment: &Moment) -> String {
    format!("{} ago", duration(moment.age_seconds))
}

/// A time in words, no finer than it is interesting. What is less than nothing is nothing.
fn duration(seconds: f64) -> String {
    match seconds {
        ..=0.0 => "0ms".to_owned(),
        ..1.0 => format!("{:.0}ms", seconds * 1e3),
        ..10.0 => format!("{seconds:.1}s"),
        _ => humantime::format_duration(Duration::from_secs(seconds.round() as u64)).to_string(),
    }
}

/// Text of another process, without what a terminal would obey.
pub(in crate::command) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_fine_as_they_are_interesting_and_never_negative() {
        let told = [-5.0, -0.0, 0.0, 0.25, 6.78, 61.2].map(duration);
        assert_eq!(told, ["0ms", "0ms", "0ms", "250ms", "6.8s", "1m 1s"]);
    }
}
