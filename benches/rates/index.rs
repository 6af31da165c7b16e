//! Metadata that changes below an HNSW index: the connector, beside a blind upsert of the same.

use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::backlog::{target, updates};
use crate::ceiling::{Encoded, create_table};
use crate::drain::drain;
use crate::report::Report;
use crate::row::{Row, Rows, Version};
use crate::scale::Scale;
use crate::shape::{ON_CONFLICT, Vector};
use crate::stand::{Stand, settle};
use crate::support::connector::Connector;

/// The parameters that every index of the benchmark has: pgvector's own defaults.
pub(crate) const M: u32 = 16;
/// See [`M`].
pub(crate) const EF_CONSTRUCTION: u32 = 64;

/// Rows of a statement of the blind upsert.
const BATCH: usize = 500;

/// An index made by hand by somebody who knows how: with memory for the whole graph, in parallel.
pub(crate) fn create_index(table: &str) -> String {
    format!(
        "set maintenance_work_mem = '1GB'; set max_parallel_maintenance_workers = 2; \
         create index on {table} using hnsw (embedding vector_cosine_ops) \
         with (m = {M}, ef_construction = {EF_CONSTRUCTION})"
    )
}

/// Measures it at this length of vectors.
pub(crate) async fn measure(
    stand: &Stand,
    report: &mut Report,
    scale: &Scale,
    (dimensions, rows): (usize, usize),
) -> Result<()> {
    let suffix = if dimensions == 384 { String::new() } else { format!("_{dimensions}") };
    let source = Rows::new(dimensions);
    let records = rows * scale.versions;
    let versions = (0..records)
        .map(|record| (record % rows, Version { content: 0, metadata: (record / rows) as u64 + 1 }));
    let topic = stand.topic(&source, versions).await;
    let database = stand.database().await;
    Connector::new(&topic, &database, &target(dimensions)).migrate().await;
    let clients = [database.connect().await, database.connect().await];

    let encoded = Encoded::of((0..rows).map(|number| source.row(number, Version::default())));
    settle(&clients[0], &create_table("peer", dimensions)).await?;
    for table in ["embeddings", "peer"] {
        encoded.copy(&clients[..1], table).await?;
        settle(&clients[0], &create_index(table)).await?;
    }
    // It would only take from the blind upsert's share of the machine.
    settle(&clients[0], "alter table peer set (autovacuum_enabled = off); vacuum analyze").await?;

    for round in 1..=scale.rounds {
        println!("  {dimensions} dimensions, round {round} of {}", scale.rounds);
        let before = updates(&clients[0]).await?;
        let connector = Connector::new(&topic, &database, &target(dimensions));
        let drain = drain(stand, &connector, &clients[0], records).await?;
        let after = updates(&clients[0]).await?;
        ensure!(after.all > before.all, "nothing was updated");
        let hot = (after.hot - before.hot) as f64 / (after.all - before.all) as f64;
        report.add(format!("metadata_only_hnsw_rows_per_s{suffix}"), drain.rate());
        report.add(format!("metadata_only_hnsw_hot_share{suffix}"), hot);

        let mut first = (round - 1) * 2 * scale.blind;
        for connections in [1, 2] {
            settle(&clients[0], "").await?;
            ensure!(first + scale.blind <= rows, "the blind upsert has fewer rows than it is to update");
            let changed: Vec<Row> = (first..first + scale.blind)
                .map(|number| source.row(number, Version { content: 0, metadata: 1 }))
                .collect();
            first += scale.blind;
            let since = Instant::now();
            let parts = changed.chunks(changed.len().div_ceil(connections));
            try_join_all(parts.zip(&clients).map(|(rows, client)| blind(client, rows))).await?;
            let rate = changed.len() as f64 / since.elapsed().as_secs_f64();
            let name = if connections == 1 { "blind_hnsw" } else { "blind_hnsw_two_connections" };
            report.add(format!("{name}_rows_per_s{suffix}"), rate);
        }
        settle(&clients[0], "").await?;
    }
    Ok(())
}

/// Upserts rows with all their columns, whatever stands there, from arrays in binary.
async fn blind(client: &Client, rows: &[Row]) -> Result<()> {
    let sql = format!(
        "insert into peer (id, text, embedding, \"timestamp\", source, metadata) \
         select unnest($1::text[]), unnest($2::text[]), unnest($3::vector[]), unnest($4::timestamptz[]), \
         unnest($5::text[]), unnest($6::text[])::jsonb {ON_CONFLICT}"
    );
    let statement = client.prepare(&sql).await?;
    for batch in rows.chunks(BATCH) {
        let ids: Vec<&str> = batch.iter().map(|row| row.id.as_str()).collect();
        let texts: Vec<&str> = batch.iter().map(|row| row.text.as_str()).collect();
        let vectors: Vec<Vector<'_>> = batch.iter().map(|row| Vector(&row.embedding)).collect();
        let timestamps: Vec<SystemTime> = batch.iter().map(Row::system_time).collect();
        let sources: Vec<&str> = batch.iter().map(|row| row.source).collect();
        let metadata: Vec<&str> = batch.iter().map(|row| row.metadata.as_str()).collect();
        let written = client
            .execute(&statement, &[&ids, &texts, &vectors, &timestamps, &sources, &metadata])
            .await
            .context("the blind upsert")?;
        ensure!(written == batch.len() as u64, "{written} rows were upserted instead of {}", batch.len());
    }
    Ok(())
}
