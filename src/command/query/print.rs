//! Rows in a table for people, or whole as JSON.

use std::io;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::{Answer, Found, QueryOptions};
use crate::command::failure::Failure;
use crate::command::output;
use crate::command::status::plain;

/// How many characters of a text stand in a table.
const WIDE: usize = 60;
const NARROW: usize = 40;

pub(super) fn print(options: &QueryOptions, answer: &Answer) -> Result<(), Failure> {
    if options.json {
        for row in &answer.rows {
            let row = serde_json::to_string(row).map_err(io::Error::from)?;
            output::print(row + "\n")?;
        }
        return Ok(output::print(format!("{}\n", summary(options, answer)))?);
    }
    let mut text: String = table(answer).lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text.push_str(&words(answer));
    text.push('\n');
    Ok(output::print(text)?)
}

fn summary(options: &QueryOptions, answer: &Answer) -> serde_json::Value {
    let nearness = answer.nearness.as_ref();
    json!({"summary": {
        "table": options.table,
        "rows": answer.rows.len(),
        "took_ms": millis(answer),
        "metric": nearness.map(|nearness| nearness.metric),
        "operator": nearness.and_then(|nearness| nearness.operator),
        "index": nearness.and_then(|nearness| nearness.index.as_deref()),
    }})
}

fn words(answer: &Answer) -> String {
    let count = answer.rows.len();
    let noun = if count == 1 { "row" } else { "rows" };
    let mut words = format!("{count} {noun} in {} ms", millis(answer));
    if let Some(nearness) = &answer.nearness {
        let operator = nearness.operator.map_or(String::new(), |operator| format!(" ({operator})"));
        words.push_str(&format!("; distance: {}{operator}, {}; ", nearness.metric, plain(&nearness.origin)));
        match &nearness.index {
            Some(index) => words.push_str(&format!("found by the vector index {}", plain(index))),
            None => words.push_str("no vector index was used: every row was compared"),
        }
    }
    words
}

/// To the microsecond.
fn millis(answer: &Answer) -> f64 {
    answer.took.as_micros() as f64 / 1e3
}

fn table(answer: &Answer) -> Table {
    let has_distance = answer.nearness.is_some();
    let mut table = Table::new();
    let mut header = vec!["id", "timestamp", "source", "text", "metadata"];
    if has_distance {
        header.insert(1, "distance");
    }
    table.load_style(presets::NOTHING);
    if !answer.rows.is_empty() {
        table.set_header(header);
    }
    for row in &answer.rows {
        let mut cells = cells(row);
        if has_distance {
            let distance = row.distance.map_or("-".to_owned(), |distance| format!("{distance:.6}"));
            cells.insert(1, distance);
        }
        table.add_row(cells);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if has_distance && index == 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn cells(row: &Found) -> Vec<String> {
    let or_none = |text: Option<&str>, most| text.map_or("-".to_owned(), |text| cut(text, most));
    vec![
        cut(&row.id, WIDE),
        or_none(row.timestamp.as_deref(), WIDE),
        or_none(row.source.as_deref(), NARROW),
        or_none(row.text.as_deref(), WIDE),
        or_none(row.metadata.as_deref().map(serde_json::value::RawValue::get), NARROW),
    ]
}

/// The beginning of a text, without what a terminal would obey.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => plain(text),
        Some((end, _)) => plain(&text[..end]).trim_end().to_owned() + "…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_nothing_in_it_is_obeyed() {
        assert_eq!(cut("naïve", 5), "naïve");
        assert_eq!(cut("naïve text", 3), "naï…");
        assert_eq!(cut("two words", 4), "two…");
        assert_eq!(cut("\x1b[31mred\r\nline\u{9b}", 60), " [31mred  line ");
    }
}
