//! Dead letters in a table, or one a line.

use std::time::SystemTime;

use comfy_table::{Table, presets};
use serde_json::json;

use super::{Failure, Store, letters};
use crate::command::output;
use crate::command::status::plain;
use crate::write::letters::{Letter, Range, Selection};

/// How many are asked for at once.
const PAGE: i64 = 1000;

/// Prints the letters, at most `limit`, and says if there are more.
pub(super) async fn list(
    store: &Store,
    selection: &Selection,
    limit: i64,
    json: bool,
) -> Result<(), Failure> {
    let extent = Range::all(selection).extent(&store.connection).await?;
    let mut range = Range { up_to: extent.last, ..Range::all(selection) };
    let mut table = Table::new();
    let header = ["id", "position", "table", "reason", "sqlstate", "tries", "first seen", "message"];
    table.load_style(presets::NOTHING).set_header(header);
    let mut told = 0;
    while told < limit {
        let page = range.page(&store.connection, PAGE.min(limit - told)).await?;
        let Some(last) = page.last() else { break };
        range.after = last.id;
        told += page.len() as i64;
        if json {
            output::print(page.iter().map(|letter| format!("{}\n", object(letter))).collect::<String>())?;
        } else {
            table.add_rows(page.iter().map(row));
        }
    }
    if !json && told > 0 {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        output::print(table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>())?;
    } else if !json {
        output::print("no dead letters\n")?;
    }
    let more = extent.count - told;
    if more > 0 {
        let told = letters(told);
        // Beside the list, which a program may be reading.
        output::tell(&format!(
            "{told} shown, {more} more; --limit N shows more, the filters of --help fewer\n"
        ));
    }
    Ok(())
}

fn row(letter: &Letter) -> [String; 8] {
    let or_none = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain);
    [
        letter.id.to_string(),
        plain(&format!("{} {}", letter.partition, letter.offset)),
        or_none(&letter.table),
        plain(&letter.reason),
        or_none(&letter.sqlstate),
        letter.tries.to_string(),
        time(letter.first_seen),
        plain(&letter.message),
    ]
}

fn object(letter: &Letter) -> serde_json::Value {
    json!({
        "id": letter.id,
        "topic": letter.partition.topic(),
        "partition": letter.partition.number(),
        "offset": letter.offset,
        "table": letter.table,
        "reason": letter.reason,
        "sqlstate": letter.sqlstate,
        "message": letter.message,
        "tries": letter.tries,
        "first_seen": time(letter.first_seen),
        "last_tried": time(letter.last_tried),
        "record_timestamp": letter.record_timestamp.map(time),
        "payload_bytes": letter.payload_bytes,
        "is_cut": letter.is_cut(),
    })
}

/// A moment as `--since` takes it.
pub(in crate::command) fn time(moment: SystemTime) -> String {
    humantime::format_rfc3339_millis(moment).to_string()
}
