//! A table with an HNSW index: what the connector does to it, beside a blind upsert of the same metadata.

use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::backlog::{target, updates};
use crate::ceiling::{Encoded, create_table};
use crate::drain::{Drain, drain};
use crate::report::Report;
use crate::sample::{Row, Rows, Version};
use crate::scale::Scale;
use crate::shape::{ON_CONFLICT, Vector};
use crate::stand::{Stand, settle};
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::postgres::Database;

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
    let same = stand.topic(&source, (0..rows).map(|number| (number, Version::default()))).await;
    let database = stand.database().await;
    Connector::new(&topic, &database, &target(dimensions)).migrate().await;
    let scene = Scene { stand, database: &database, dimensions };
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
        let drain = scene.drain(&topic, &clients[0], records).await?;
        let after = updates(&clients[0]).await?;
        ensure!(after.all > before.all, "nothing was updated");
        let hot = (after.hot - before.hot) as f64 / (after.all - before.all) as f64;
        report.add(format!("metadata_only_hnsw_rows_per_s{suffix}"), drain.rate());
        report.add(format!("metadata_only_hnsw_hot_share{suffix}"), hot);

        let blind_rows = scale.blind.min(rows / (2 * scale.rounds));
        let mut first = (round - 1) * 2 * blind_rows;
        for connections in [1, 2] {
            settle(&clients[0], "").await?;
            let changed: Vec<Row> = (first..first + blind_rows)
                .map(|number| source.row(number, Version { content: 0, metadata: 1 }))
                .collect();
            first += blind_rows;
            let since = Instant::now();
            let parts = changed.chunks(changed.len().div_ceil(connections));
            try_join_all(parts.zip(&clients).map(|(rows, client)| blind(client, rows))).await?;
            let rate = changed.len() as f64 / since.elapsed().as_secs_f64();
            let name = if connections == 1 { "blind_hnsw" } else { "blind_hnsw_two_connections" };
            report.add(format!("{name}_rows_per_s{suffix}"), rate);
        }
        settle(&clients[0], "").await?;

        // Puts back what the metadata were, so that it is not measured; then nothing is left to change.
        scene.drain(&same, &clients[0], rows).await?;
        let before = updates(&clients[0]).await?;
        let replay = scene.drain(&same, &clients[0], rows).await?;
        let updated = updates(&clients[0]).await?.all - before.all;
        ensure!(updated == 0, "a replay of unchanged records updated {updated} rows");
        report.add(format!("replay_hnsw_rows_per_s{suffix}"), replay.rate());

        let content = |number: usize| number as u64 % 2 * round as u64;
        let half = (0..scale.moved).map(|number| (number, Version { content: content(number), metadata: 0 }));
        let half = stand.topic(&source, half).await;
        let half = scene.drain(&half, &clients[0], scale.moved).await?;
        report.add(format!("half_changed_hnsw_rows_per_s{suffix}"), half.rate());

        let new = rows + (round - 1) * scale.moved..rows + round * scale.moved;
        let new = stand.topic(&source, new.map(|number| (number, Version::default()))).await;
        let new = scene.drain(&new, &clients[0], scale.moved).await?;
        report.add(format!("fresh_hnsw_rows_per_s{suffix}"), new.rate());
        // The next round begins with what this one began with, but for the further rows.
        scene.drain(&same, &clients[0], rows).await?;
        settle(&clients[0], "vacuum embeddings").await?;
    }
    Ok(())
}

/// Where the connector is measured.
struct Scene<'a> {
    stand: &'a Stand,
    database: &'a Database,
    dimensions: usize,
}

impl Scene<'_> {
    /// A connector of a new name takes the topic from its beginning.
    async fn drain(&self, topic: &Topic, client: &Client, records: usize) -> Result<Drain> {
        let connector = Connector::new(topic, self.database, &target(self.dimensions));
        drain(self.stand, &connector, client, records).await
    }
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
