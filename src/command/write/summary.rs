//! What came of an import.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::command::status::plain;
use crate::config::TargetSettings;
use crate::lifecycle::StopReport;
use crate::source::file::{FileInput, Reading};
use crate::write::Effect;

/// What came of an import.
#[derive(Debug, Default)]
pub(super) struct Summary {
    name: String,
    topic: String,
    is_standard: bool,
    /// It was to begin at the first line, whatever is stored.
    again: bool,
    /// Where dead letters are, otherwise in LanceDB.
    is_in_postgres: bool,
    records: u64,
    blank: u64,
    effect: Effect,
    dead_letters: BTreeMap<String, u64>,
    took: Duration,
    /// The first line that is not written yet, if any was written in this run.
    next: Option<i64>,
    end: Option<i64>,
    was_written: bool,
}

impl Summary {
    /// Of this input, of which nothing is written yet.
    pub(super) fn of(input: &FileInput, target: &TargetSettings, again: bool) -> Self {
        let (name, topic) = (plain(input.name()), input.topic().to_owned());
        let is_in_postgres = target.postgres().is_some();
        Self { name, topic, is_standard: input.is_standard(), again, is_in_postgres, ..Self::default() }
    }

    /// Nothing more comes.
    pub(super) fn close(&mut self, report: &StopReport, reading: &Reading) {
        let totals = &report.totals;
        self.records = totals.records;
        self.blank = reading.blank();
        self.effect = totals.effect;
        self.dead_letters =
            totals.dead_letters.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
        self.took = report.ran_for;
        self.next = totals.next_offsets.values().copied().next();
        self.end = reading.end();
        self.was_written = reading.was_stored();
    }

    /// Whether all of the input is written, now or before.
    pub(super) fn is_complete(&self) -> bool {
        self.was_written || self.end.is_some() && self.next == self.end
    }

    /// How to write what is left.
    pub(super) fn how_to_go_on(&self) -> String {
        match (self.is_standard, self.next) {
            // The same command would begin anew.
            (false, Some(next)) if self.again => {
                format!("lines up to {} are written; without --again it goes on behind them", next - 1)
            }
            (false, Some(next)) => {
                format!("lines up to {} are written; the same command goes on behind them", next - 1)
            }
            (false, None) => "nothing was written in this run; the same command tries again".to_owned(),
            (true, Some(next)) => format!(
                "lines up to {} are written; standard input has no position, so give it from line {next} on",
                next - 1
            ),
            (true, None) => "nothing was written".to_owned(),
        }
    }

    /// How many records a second.
    fn rate(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { self.records as f64 / seconds } else { 0.0 }
    }

    /// As lines for people.
    pub(super) fn text(&self) -> String {
        let Self { name, effect, .. } = self;
        if self.was_written {
            return format!("{name} was written completely before; --again writes it again\n");
        }
        let mut text = format!(
            "{name}: {} in {:.2} s, {:.0} a second; {}\n\
             {} upserted, {} unchanged, {} deleted",
            counted(self.records, "record"),
            self.took.as_secs_f64(),
            self.rate(),
            counted(self.blank, "blank line"),
            effect.upserted,
            effect.unchanged,
            effect.deleted
        );
        if effect.stale > 0 {
            text.push_str(&format!(", {} stale", effect.stale));
        }
        text.push_str(&format!(", {} dead-lettered", effect.dead_lettered));
        if !self.dead_letters.is_empty() {
            let mut reasons: Vec<(&String, &u64)> = self.dead_letters.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let reasons: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            text.push_str(&format!(" ({})", reasons.join(", ")));
            let topic = plain(&self.topic);
            text.push_str(&match self.is_in_postgres {
                true => format!("; look at them: embedsink dlq list --topic '{topic}'"),
                false => format!("; they are in the table embedsink_dead_letters, with the topic '{topic}'"),
            });
        }
        text.push('\n');
        text
    }

    /// As one JSON object.
    pub(super) fn json(&self) -> String {
        let effect = self.effect;
        let object = json!({
            "input": self.name,
            "topic": self.topic,
            "complete": self.is_complete(),
            "written_before": self.was_written,
            "records": self.records,
            "blank_lines": self.blank,
            "upserted": effect.upserted,
            "unchanged": effect.unchanged,
            "deleted": effect.deleted,
            "stale": effect.stale,
            "dead_lettered": effect.dead_lettered,
            "dead_letters": self.dead_letters,
            "seconds": self.took.as_secs_f64(),
            "records_per_second": self.rate(),
            "next_line": self.next,
        });
        format!("{object}\n")
    }
}

/// A count with its noun.
fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
