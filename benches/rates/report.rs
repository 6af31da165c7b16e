//! The figures of a run: gathered, then printed as a table, and written as JSON and as the document's table.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::scale::Scale;
use crate::shape::Shape;

/// The figures that `bench.json` has whatever was measured; null where a step was left out or failed.
const KEYS: [&str; 12] = [
    "copy_rows_per_s",
    "end_to_end_rows_per_s",
    "ratio_to_copy",
    "replay_rows_per_s",
    "metadata_only_hnsw_rows_per_s",
    "blind_hnsw_rows_per_s",
    "backfill_seconds",
    "backfill_incremental_seconds",
    "load_then_index_seconds",
    "p99_visible_ms",
    "peak_rss_mb",
    "decode_mb_per_s",
];

/// Figures that are quotients of others.
const RATIOS: [(&str, &str, &str); 14] = [
    ("ratio_to_copy", "end_to_end_rows_per_s", "copy_rows_per_s"),
    ("ratio_to_copy_768", "end_to_end_rows_per_s_768", "copy_rows_per_s_768"),
    ("ratio_to_copy_1536", "end_to_end_rows_per_s_1536", "copy_rows_per_s_1536"),
    ("replay_to_fresh", "replay_rows_per_s", "end_to_end_rows_per_s"),
    ("replay_to_fresh_768", "replay_rows_per_s_768", "end_to_end_rows_per_s_768"),
    ("replay_to_fresh_1536", "replay_rows_per_s_1536", "end_to_end_rows_per_s_1536"),
    ("metadata_only_to_blind", "metadata_only_hnsw_rows_per_s", "blind_hnsw_rows_per_s"),
    (
        "metadata_only_to_blind_two_connections",
        "metadata_only_hnsw_rows_per_s",
        "blind_hnsw_two_connections_rows_per_s",
    ),
    ("metadata_only_to_blind_768", "metadata_only_hnsw_rows_per_s_768", "blind_hnsw_rows_per_s_768"),
    ("ratio_to_two_copies", "end_to_end_rows_per_s", "copy_two_connections_rows_per_s"),
    ("backfill_to_by_hand", "backfill_seconds", "load_then_index_seconds"),
    ("incremental_to_deferred", "backfill_incremental_seconds", "backfill_seconds"),
    ("peak_rss_large_to_small", "peak_rss_mb", "peak_rss_small_mb"),
    ("decode_to_end_to_end", "decode_records_per_s", "end_to_end_rows_per_s"),
];

/// What was measured, by name, in the order of the rounds.
#[derive(Default)]
pub(crate) struct Report {
    figures: BTreeMap<String, Vec<f64>>,
    order: Vec<String>,
    failures: Vec<(&'static str, String)>,
    /// What it was measured on.
    on: Vec<(&'static str, String)>,
}

impl Report {
    /// Says what it was measured on.
    pub(crate) fn on(&mut self, what: &'static str, which: String) {
        self.on.push((what, which));
    }

    /// Adds a measurement. Several of one name are repeats.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        println!("    {name}: {}", rounded(value));
        if !self.figures.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.figures.entry(name).or_default().push(value);
    }

    /// Keeps why a step could not be measured.
    pub(crate) fn fail(&mut self, step: &'static str, why: String) {
        self.failures.push((step, why));
    }

    /// Why steps could not be measured.
    pub(crate) fn failures(&self) -> &[(&'static str, String)] {
        &self.failures
    }

    /// Works out the quotients: of each round, since what is measured right behind each other had the same machine. Of
    /// medians where the two were not measured in the same rounds.
    pub(crate) fn finish(&mut self) {
        let ratios = [
            ("shapes", "ratio_to_best_shape"),
            ("shapes_two_connections", "ratio_to_best_shape_two_connections"),
        ];
        for (group, name) in ratios {
            let rates: Vec<&[f64]> =
                Shape::ALL.iter().map(|shape| self.repeats(&format!("{group}.{}", shape.key()))).collect();
            let best = |round: usize| {
                rates.iter().filter_map(|rates| rates.get(round)).copied().fold(f64::NAN, f64::max)
            };
            let quotients: Vec<f64> = self
                .repeats("end_to_end_rows_per_s")
                .iter()
                .enumerate()
                .map(|(round, rate)| rate / best(round))
                .filter(|quotient| quotient.is_finite())
                .collect();
            self.add_all(name, quotients);
        }
        for (name, dividend, divisor) in RATIOS {
            let (dividends, divisors) = (self.repeats(dividend), self.repeats(divisor));
            let quotients = if dividends.len() == divisors.len() {
                dividends.iter().zip(divisors).map(|(dividend, divisor)| dividend / divisor).collect()
            } else {
                let medians = self.median(dividend).zip(self.median(divisor));
                medians.map(|(dividend, divisor)| dividend / divisor).into_iter().collect()
            };
            self.add_all(name, quotients);
        }
    }

    fn repeats(&self, name: &str) -> &[f64] {
        self.figures.get(name).map_or(&[], Vec::as_slice)
    }

    fn add_all(&mut self, name: &str, values: Vec<f64>) {
        values.into_iter().for_each(|value| self.add(name, value));
    }

    /// The median of a figure's repeats.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let values = self.sorted(name)?;
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    /// The least and the most of a figure's repeats.
    pub(crate) fn range(&self, name: &str) -> Option<(f64, f64)> {
        let values = self.sorted(name)?;
        Some((*values.first()?, *values.last()?))
    }

    fn sorted(&self, name: &str) -> Option<Vec<f64>> {
        let mut values = self.figures.get(name)?.clone();
        values.sort_by(f64::total_cmp);
        Some(values)
    }

    /// The contents of `bench.json`.
    pub(crate) fn json(&self, scale: &Scale) -> Value {
        let mut all: Map<String, Value> = KEYS.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
        let mut spread = Map::new();
        all.insert("shapes".to_owned(), json!({}));
        for name in &self.order {
            let median = json!(self.median(name).map(rounded));
            match name.split_once('.') {
                Some((group, shape)) => {
                    let group = all.entry(group).or_insert_with(|| json!({}));
                    group[shape] = median;
                }
                None => {
                    all.insert(name.clone(), median);
                }
            }
            if let Some((least, most)) = self.range(name).filter(|_| self.figures[name].len() > 1) {
                spread.insert(name.clone(), json!([rounded(least), rounded(most)]));
            }
        }
        all.insert("spread".to_owned(), Value::Object(spread));
        let failures: Map<String, Value> =
            self.failures.iter().map(|(step, why)| ((*step).to_owned(), json!(why))).collect();
        all.insert("failed".to_owned(), Value::Object(failures));
        let mut run: Map<String, Value> =
            self.on.iter().map(|(what, which)| ((*what).to_owned(), json!(which))).collect();
        run.insert("quick".to_owned(), json!(scale.is_quick));
        run.insert("rounds".to_owned(), json!(scale.rounds));
        run.insert("main_rounds".to_owned(), json!(scale.main_rounds));
        all.insert("run".to_owned(), Value::Object(run));
        Value::Object(all)
    }

    /// The rows of the table: name, median, least, most.
    fn lines(&self) -> impl Iterator<Item = [String; 4]> {
        self.order.iter().map(|name| {
            let shown = |value: Option<f64>| value.map(readable).unwrap_or_default();
            let range = self.range(name).filter(|_| self.figures[name].len() > 1);
            [
                name.clone(),
                shown(self.median(name)),
                shown(range.map(|range| range.0)),
                shown(range.map(|range| range.1)),
            ]
        })
    }

    /// The table as it is printed.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["figure", "median", "least", "most"]);
        self.lines().for_each(|line| {
            table.add_row(line);
        });
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    /// The table for docs/performance.md.
    pub(crate) fn markdown(&self) -> String {
        let on: Vec<String> = self.on.iter().map(|(what, which)| format!("{what} {which}")).collect();
        let mut text = format!("Measured on: {}.\n\n", on.join(", "));
        text.push_str("| figure | median | least | most |\n|---|--:|--:|--:|\n");
        for [name, median, least, most] in self.lines() {
            text.push_str(&format!("| `{name}` | {median} | {least} | {most} |\n"));
        }
        text
    }
}

/// With four digits that count; there are no more in any measurement.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// For people: thousands apart.
pub(crate) fn readable(value: f64) -> String {
    let value = rounded(value);
    if value.abs() < 1000.0 {
        return value.to_string();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}
