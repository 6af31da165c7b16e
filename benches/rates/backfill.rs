//! From an empty table to one that can be searched by HNSW.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio_postgres::Client;

use crate::backlog::target;
use crate::ceiling::{Encoded, create_table};
use crate::drain::Work;
use crate::index::{EF_CONSTRUCTION, M, create_index};
use crate::report::Report;
use crate::sample::{Rows, Version};
use crate::scale::Scale;
use crate::stand::{Stand, settle};
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::postgres::Database;

const IS_SEARCHABLE: &str = "
select exists (
  select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
  where i.indrelid = 'embeddings'::regclass and a.amname = 'hnsw' and i.indisvalid and i.indisready)";

/// Measures it. What needs the connector's own index is left out, with the reason as the error, where the
/// connector does not know the key.
pub(crate) async fn measure(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    let (rows, count) = (Rows::new(384), scale.backfill);
    let topic = stand.topic(&rows, (0..count).map(|number| (number, Version::default()))).await;
    let encoded = Encoded::of((0..count).map(|number| rows.row(number, Version::default())));
    for _ in 0..scale.slow_rounds {
        by_hand(stand, report, &encoded).await?;
        for (build, key) in [("deferred", "backfill_seconds"), ("immediate", "backfill_incremental_seconds")]
        {
            println!("  {count} rows, the index {build}");
            report.add(key, by_connector(stand, &topic, build, count).await?.as_secs_f64());
        }
    }
    Ok(())
}

/// How long it takes from the start of the process until a search goes by the index.
async fn by_connector(stand: &Stand, topic: &Topic, build: &str, count: usize) -> Result<Duration> {
    let database = stand.database().await;
    let connector = connector(topic, &database, build);
    check(&connector)?;
    connector.migrate().await;
    let client = database.connect().await;
    let work = Work::start(stand, &connector, count);
    work.settle(stand, &client).await?;
    let took = work.until(async || is_searchable(&client).await).await?;
    ensure!(uses_index(&client, count).await?, "a search does not use the index, or finds nothing");
    work.stop(&client).await?;
    Ok(took)
}

async fn by_hand(stand: &Stand, report: &mut Report, encoded: &Encoded) -> Result<()> {
    println!("  {} rows, loaded and indexed by hand", encoded.rows());
    let database = stand.database().await;
    let clients = [database.connect().await];
    settle(&clients[0], &create_table("embeddings", 384)).await?;
    let since = Instant::now();
    encoded.copy(&clients, "embeddings").await?;
    report.add("load_seconds", since.elapsed().as_secs_f64());
    for statement in create_index("embeddings").split(';') {
        clients[0].batch_execute(statement).await?;
    }
    report.add("load_then_index_seconds", since.elapsed().as_secs_f64());
    Ok(())
}

fn connector(topic: &Topic, database: &Database, build: &str) -> Connector {
    let mut connector = Connector::new(topic, database, &target(384));
    connector.tables = format!(
        "embeddings: {{dimensions: 384, index: {{kind: hnsw, metric: cosine, m: {M}, \
         ef-construction: {EF_CONSTRUCTION}, build: {build}}}}}"
    );
    connector
}

/// Whether the connector takes this configuration.
fn check(connector: &Connector) -> Result<()> {
    connector.write();
    let done = Command::new(env!("CARGO_BIN_EXE_embedsink"))
        .args(["check", "--config", &connector.path()])
        .env_clear()
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "the connector refuses `tables.embeddings.index`, so its backfill is not measured:\n{}",
            said.trim()
        );
    }
    Ok(())
}

async fn is_searchable(client: &Client) -> Result<bool> {
    Ok(client.query_one(IS_SEARCHABLE, &[]).await?.get(0))
}

/// Whether a search goes by the index, and all rows are there.
async fn uses_index(client: &Client, rows: usize) -> Result<bool> {
    let stand: i64 = client.query_one("select count(*) from embeddings", &[]).await?.get(0);
    let search = "explain select id from embeddings \
                  order by embedding <=> (select embedding from embeddings limit 1) limit 10";
    let plan = client.query(search, &[]).await?;
    let goes_by_it = plan.iter().any(|line| line.get::<_, &str>(0).contains("Index Scan using"));
    Ok(stand == rows as i64 && goes_by_it)
}
