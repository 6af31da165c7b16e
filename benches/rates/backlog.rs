//! Rates: the ceiling, the peers' shapes, and the connector from end to end over a backlog, in turn, round by round.

use anyhow::{Result, ensure};
use tokio_postgres::Client;

use crate::ceiling::{Encoded, create_table};
use crate::drain::{Drain, drain};
use crate::report::Report;
use crate::sample::{Rows, Version};
use crate::scale::Scale;
use crate::shape::{self, Ready, Shape};
use crate::stand::{Stand, settle};
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::postgres::Database;
use crate::support::record;

/// What the connector writes to.
pub(crate) fn target(dimensions: usize) -> record::Shape {
    let tables: &'static [(&'static str, usize)] = match dimensions {
        384 => &[("embeddings", 384)],
        768 => &[("embeddings", 768)],
        _ => &[("embeddings", 1536)],
    };
    record::Shape { tables, partitions: crate::stand::PARTITIONS, ids: 0, tombstones: 0, damaged: 0 }
}

/// A table with its rows' records in topics: as they are, with every other row's content changed, as that with all
/// metadata changed, and half as many further rows.
struct Scene<'a> {
    stand: &'a Stand,
    clients: Vec<Client>,
    database: Database,
    base: Topic,
    half: Topic,
    metadata: Topic,
    /// Rows that come after all these.
    more: Topic,
    records: usize,
    dimensions: usize,
    suffix: String,
}

/// Measures everything at this length of vectors; the peers' shapes only if some rows are wanted of them.
pub(crate) async fn measure(
    stand: &Stand,
    report: &mut Report,
    scale: &Scale,
    (dimensions, records): (usize, usize),
    shape_rows: usize,
) -> Result<()> {
    let rows = Rows::new(dimensions);
    let scene = Scene::prepare(stand, &rows, dimensions, records).await?;
    let encoded = Encoded::of((0..records).map(|number| rows.row(number, Version::default())));
    let ready: Vec<Ready> =
        (0..shape_rows).map(|number| rows.row(number, Version::default()).into()).collect();
    let rounds = if dimensions == 384 { scale.main_rounds } else { scale.rounds };
    for round in 1..=rounds {
        println!("  {dimensions} dimensions, round {round} of {rounds}");
        scene.ceiling(report, &encoded).await?;
        if shape_rows > 0 {
            scene.shapes(report, &ready).await?;
        }
        scene.end_to_end(report).await?;
    }
    Ok(())
}

impl<'a> Scene<'a> {
    async fn prepare(stand: &'a Stand, rows: &Rows, dimensions: usize, records: usize) -> Result<Self> {
        let database = stand.database().await;
        let all = 0..records;
        let base = stand.topic(rows, all.clone().map(|number| (number, Version::default()))).await;
        let half = |number: usize| Version { content: number as u64 / 4 % 2, metadata: 0 };
        let halved = stand.topic(rows, all.clone().map(|number| (number, half(number)))).await;
        let relabelled = all.map(|number| (number, Version { metadata: 1, ..half(number) }));
        let metadata = stand.topic(rows, relabelled).await;
        let more = records..records + records / 2;
        let more = stand.topic(rows, more.map(|number| (number, Version::default()))).await;
        Connector::new(&base, &database, &target(dimensions)).migrate().await;
        let clients = vec![database.connect().await, database.connect().await];
        settle(&clients[0], &create_table("peer", dimensions)).await?;
        let suffix = if dimensions == 384 { String::new() } else { format!("_{dimensions}") };
        Ok(Self { stand, database, clients, base, half: halved, metadata, more, records, dimensions, suffix })
    }

    async fn ceiling(&self, report: &mut Report, encoded: &Encoded) -> Result<()> {
        for connections in [1, 2] {
            settle(&self.clients[0], "truncate peer").await?;
            let rate = encoded.copy(&self.clients[..connections], "peer").await?;
            let name = if connections == 1 { "copy_rows_per_s" } else { "copy_two_connections_rows_per_s" };
            self.note(report, name, rate);
        }
        Ok(())
    }

    async fn shapes(&self, report: &mut Report, ready: &[Ready]) -> Result<()> {
        for shape in Shape::ALL {
            for (connections, group) in [(1, "shapes"), (2, "shapes_two_connections")] {
                settle(&self.clients[0], "truncate peer").await?;
                let rate = shape::write(shape, &self.clients[..connections], "peer", ready).await?;
                report.add(format!("{group}.{}", shape.key()), rate);
            }
        }
        settle(&self.clients[0], "truncate peer").await
    }

    async fn end_to_end(&self, report: &mut Report) -> Result<()> {
        let client = &self.clients[0];
        settle(client, "truncate embeddings").await?;
        let fresh = self.drain(&self.base, self.records).await?;
        let stand: i64 = client.query_one("select count(*) from embeddings", &[]).await?.get(0);
        ensure!(stand == self.records as i64, "{stand} rows stand where {} were taken", self.records);
        self.note(report, "end_to_end_rows_per_s", fresh.rate());
        self.note(report, "end_to_end_steady_rows_per_s", fresh.steady);
        self.note(report, "first_record_ms", fresh.first.as_secs_f64() * 1000.0);
        self.note(report, "end_to_end_peak_rss_mb", fresh.peak as f64 / 1e6);
        for (part, seconds) in ["connector", "broker", "postgres"].into_iter().zip(fresh.cpu) {
            let of_a_million = seconds * 1e6 / self.records as f64;
            self.note(report, &format!("cpu_seconds_per_million_{part}"), of_a_million);
        }

        settle(client, "vacuum analyze embeddings").await?;
        let before = updates(client).await?;
        let replay = self.drain(&self.base, self.records).await?;
        let updated = updates(client).await?.all - before.all;
        ensure!(updated == 0, "a replay of unchanged records updated {updated} rows");
        self.note(report, "replay_rows_per_s", replay.rate());

        settle(client, "").await?;
        let half = self.drain(&self.half, self.records).await?;
        self.note(report, "half_changed_rows_per_s", half.rate());

        settle(client, "vacuum embeddings").await?;
        let metadata = self.drain(&self.metadata, self.records).await?;
        self.note(report, "metadata_only_rows_per_s", metadata.rate());

        settle(client, "vacuum embeddings").await?;
        let more = self.drain(&self.more, self.records / 2).await?;
        self.note(report, "fresh_into_full_rows_per_s", more.rate());
        Ok(())
    }

    /// A connector of a new name, which reads the topic from its beginning.
    async fn drain(&self, topic: &Topic, records: usize) -> Result<Drain> {
        let connector = Connector::new(topic, &self.database, &target(self.dimensions));
        drain(self.stand, &connector, &self.clients[0], records).await
    }

    fn note(&self, report: &mut Report, name: &str, value: f64) {
        report.add(format!("{name}{}", self.suffix), value);
    }
}

/// How many rows of the connector's table were updated so far.
#[derive(Clone, Copy)]
pub(crate) struct Updates {
    pub(crate) all: i64,
    /// Those that touched no index.
    pub(crate) hot: i64,
}

/// What Postgres has counted. The sessions that wrote must have ended.
pub(crate) async fn updates(client: &Client) -> Result<Updates> {
    let sql = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'embeddings'";
    let row = client.query_one(sql, &[]).await?;
    Ok(Updates { all: row.get(0), hot: row.get(1) })
}
