//! The questions, and how their answers look.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The widest line of the table, in characters.
const WIDTH: usize = 100;

/// Where the text column begins.
const INDENT: usize = 26;

/// A question with its embedding. The JSON array of numbers is also pgvector's text form.
#[derive(Deserialize)]
pub(crate) struct Question {
    pub(crate) question: String,
    pub(crate) embedding: Box<RawValue>,
}

/// Reads the questions.
pub(crate) fn load(path: &Path) -> Result<Vec<Question>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged. Make it again: demo/embed.py", path.display()))
}

/// Prints one neighbour, its text in lines that fit.
pub(crate) fn print(distance: f64, topic: Option<&str>, text: Option<&str>) {
    let lines = wrap(text.unwrap_or("-"), WIDTH - INDENT);
    let text = lines.join(&format!("\n{:INDENT$}", ""));
    println!("  {distance:>8.3}  {:<12}  {text}", topic.unwrap_or("-"));
}

/// Breaks a text between words into lines that fit a width.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
