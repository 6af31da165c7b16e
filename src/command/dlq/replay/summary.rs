//! What came of a replay.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Outcome;
use crate::command::dlq::letters;
use crate::reject::RejectReason;
use crate::write::letters::Letter;

/// Of how many letters with a cut payload it is said where the whole record is.
const MOST_NAMED: usize = 20;

/// Letters by what became of them.
pub(super) struct Summary {
    connector: String,
    dry_run: bool,
    written: i64,
    kept: BTreeMap<RejectReason, i64>,
    cut: Vec<String>,
    more_cut: i64,
}

impl Summary {
    /// Of no letters yet.
    pub(super) fn new(connector: &str, dry_run: bool) -> Self {
        let connector = connector.to_owned();
        Self { connector, dry_run, written: 0, kept: BTreeMap::new(), cut: Vec::new(), more_cut: 0 }
    }

    /// Counts a letter.
    pub(super) fn add(&mut self, letter: &Letter, outcome: Outcome) {
        match outcome {
            Outcome::Written => self.written += 1,
            Outcome::Kept(reject) => *self.kept.entry(reject.reason).or_default() += 1,
            Outcome::Cut if self.cut.len() < MOST_NAMED => {
                let (kept, whole) = (letter.kept_bytes.unwrap_or(0), letter.payload_bytes.unwrap_or(0));
                self.cut.push(format!(
                    "letter {}: only {kept} of {whole} bytes of its payload are kept; the whole record is at {} offset {}",
                    letter.id, letter.partition, letter.offset
                ));
            }
            Outcome::Cut => self.more_cut += 1,
        }
    }

    /// As lines for people.
    pub(super) fn text(&self) -> String {
        let superseded = self.kept.get(&RejectReason::Superseded).copied().unwrap_or(0);
        let refused: Vec<(&RejectReason, &i64)> =
            self.kept.iter().filter(|(reason, _)| **reason != RejectReason::Superseded).collect();
        let refusals: i64 = refused.iter().map(|(_, count)| **count).sum();
        let cut = self.cut.len() as i64 + self.more_cut;
        let total = self.written + superseded + refusals + cut;
        let verb = if self.dry_run { "would replay" } else { "replayed" };
        let mut text = format!(
            "{verb} {} of {}: {} written, {superseded} superseded by what is there, {refusals} still refused",
            letters(total - cut),
            self.connector,
            self.written
        );
        if refusals > 0 {
            let words: Vec<String> =
                refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            write!(text, " ({})", words.join(", ")).unwrap_or_default();
        }
        text.push('\n');
        if cut > 0 {
            writeln!(text, "not tried: {}, whose payload was cut at errors.max-payload", letters(cut))
                .unwrap_or_default();
            for line in &self.cut {
                writeln!(text, "  {line}").unwrap_or_default();
            }
            if self.more_cut > 0 {
                writeln!(text, "  and {} more", self.more_cut).unwrap_or_default();
            }
        }
        if self.dry_run {
            text.push_str("nothing was changed\n");
        }
        text
    }
}
