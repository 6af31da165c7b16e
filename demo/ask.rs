//! The search: three questions and the texts nearest to them.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;

/// The widest line of the table, in characters.
const WIDTH: usize = 100;

/// Where the text column begins.
const INDENT: usize = 26;

/// A question with its embedding. The JSON array of numbers is also pgvector's text form.
#[derive(Deserialize)]
pub(crate) struct Question {
    question: String,
    embedding: Box<RawValue>,
}

/// Reads the questions.
pub(crate) fn load(path: &Path) -> Result<Vec<Question>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged. Make it again: demo/embed.py", path.display()))
}

/// Asks each question and prints its three nearest neighbours by cosine distance.
pub(crate) async fn ask(postgres: &Client, questions: &[Question]) -> Result<()> {
    let nearest = postgres
        .prepare(
            "select embedding <=> $1::text::vector, metadata->>'topic', text \
             from embeddings order by 1 limit 3",
        )
        .await?;
    for question in questions {
        let started = Instant::now();
        let rows = postgres.query(&nearest, &[&question.embedding.get()]).await?;
        let took = started.elapsed();
        println!("\n{}  ({:.1} ms)", question.question, took.as_secs_f64() * 1000.0);
        println!("  distance  topic         text");
        for row in rows {
            let distance: f64 = row.get(0);
            let topic: Option<String> = row.get(1);
            let text: Option<String> = row.get(2);
            let lines = wrap(text.as_deref().unwrap_or("-"), WIDTH - INDENT);
            let text = lines.join(&format!("\n{:INDENT$}", ""));
            println!("  {distance:>8.3}  {:<12}  {text}", topic.as_deref().unwrap_or("-"));
        }
    }
    Ok(())
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
