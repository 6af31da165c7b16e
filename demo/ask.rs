//! The search: three questions and the texts nearest to them.

use std::time::Instant;

use anyhow::Result;
use tokio_postgres::Client;

use crate::question::{Question, print};

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
            print(distance, topic.as_deref(), text.as_deref());
        }
    }
    Ok(())
}
