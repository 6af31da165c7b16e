//! One dead letter, whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::list::time;
use super::{Failure, Store};
use crate::command::output;
use crate::command::status::plain;
use crate::write::letters::{self, Contents, Letter};

/// Prints the letter; with `payload` the bytes of its payload alone.
pub(super) async fn show(store: &Store, id: i64, payload: bool) -> Result<(), Failure> {
    let Some((letter, contents)) = letters::find(&store.connection, store.connector(), id).await? else {
        return Err(Failure::Refused(format!(
            "the connector {} has no dead letter {id}: it may have been replayed or purged. `embedsink dlq list` \
             shows those that there are",
            store.connector()
        )));
    };
    let shown = if payload {
        contents.payload.unwrap_or_default()
    } else {
        describe(&letter, &contents).into_bytes()
    };
    Ok(output::print(shown)?)
}

fn describe(letter: &Letter, contents: &Contents) -> String {
    let or_none = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain);
    let bytes = match (letter.payload_bytes, letter.kept_bytes) {
        (Some(whole), Some(kept)) if whole > kept => format!(
            "{kept} of {whole} bytes: it was cut, and the whole record is only at {} offset {}",
            letter.partition, letter.offset
        ),
        (_, Some(kept)) => format!("{kept} bytes"),
        _ => "none".to_owned(),
    };
    let mut lines = vec![
        ("id", letter.id.to_string()),
        ("position", plain(&format!("{} offset {}", letter.partition, letter.offset))),
        ("table", or_none(&letter.table)),
        ("reason", plain(&letter.reason)),
        ("sqlstate", or_none(&letter.sqlstate)),
        ("message", plain(&letter.message)),
        ("tries", letter.tries.to_string()),
        ("first seen", time(letter.first_seen)),
        ("last tried", time(letter.last_tried)),
        ("record time", letter.record_timestamp.map_or("-".to_owned(), time)),
        ("key", contents.key.as_deref().map_or("none".to_owned(), |key| plain(&text(key)))),
    ];
    lines.extend(headers(contents.headers.as_deref()).into_iter().map(|header| ("header", plain(&header))));
    lines.push(("payload", bytes));
    let mut shown: String = lines.iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect();
    if let Some(payload) = &contents.payload {
        // What a terminal would obey is not for it, but lines stay lines.
        let clean = |letter: char| if letter.is_control() && !"\n\t".contains(letter) { ' ' } else { letter };
        shown.push('\n');
        shown.extend(text(payload).chars().map(clean));
        shown.push('\n');
    }
    shown
}

/// Bytes as the text that they are, or in base64.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64 {}", STANDARD.encode(bytes)),
    }
}

/// Each header as `name: value`, in the record's order.
fn headers(list: Option<&str>) -> Vec<String> {
    let Some(Ok(Value::Array(list))) = list.map(serde_json::from_str) else {
        return Vec::new();
    };
    let header = |header: &Value| {
        let word = |key: &str| header.get(key).and_then(Value::as_str);
        let value = match (word("value"), word("base64")) {
            (Some(value), _) => value.to_owned(),
            (None, Some(base64)) => format!("base64 {base64}"),
            (None, None) => "none".to_owned(),
        };
        format!("{}: {value}", word("name").unwrap_or_default())
    };
    list.iter().map(header).collect()
}
