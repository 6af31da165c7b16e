//! The write shapes of comparable systems, each with its own good practice, fed with rows that lie in memory in
//! the very form in which the shape sends them: no broker, no decoding, no printing of numbers within the clock.
//!
//! All upsert over one connection, and over two, into a table with its primary key, as plain as people make it by hand.

use std::error::Error;
use std::time::{Instant, SystemTime};

use anyhow::{Result, ensure};
use bytes::BytesMut;
use futures_util::future::try_join_all;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use crate::ceiling::put_vector;
use crate::sample::Row;

/// Rows of a batch, where a shape has any.
const BATCH: usize = 1_000;
/// Debezium's own default.
const SMALL_BATCH: usize = 500;

/// A write shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One `insert … on conflict` a record, prepared, each its own transaction. Fluvio's sql-sink.
    PerRecord,
    /// One statement a row, pipelined in one transaction, vectors as text. Conduit.
    Pipelined,
    /// Many rows in one `values` list, prepared, vectors as text. RisingWave, Redpanda's `sql_insert`.
    Values,
    /// The batch as one JSON array for `jsonb_populate_recordset`. Vector.
    Recordset,
    /// Delete by key, then insert what is unpacked from JSON, in one transaction. Redpanda's pgvector template.
    DeleteInsert,
    /// Row by row with `cast(… as vector)`, as a JDBC batch in one transaction. Debezium with vectors.
    RowBatch,
}

impl Shape {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::PerRecord, Self::Pipelined, Self::Values, Self::Recordset, Self::DeleteInsert, Self::RowBatch];

    /// Its name in `bench.json`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::PerRecord => "insert_per_record",
            Self::Pipelined => "pipelined_statements",
            Self::Values => "multi_row_values",
            Self::Recordset => "jsonb_populate_recordset",
            Self::DeleteInsert => "delete_insert_jsonb",
            Self::RowBatch => "row_batch_text_cast",
        }
    }

    /// What it is, for a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PerRecord => "INSERT … ON CONFLICT per record, autocommit",
            Self::Pipelined => "a statement per row, pipelined, vectors as text",
            Self::Values => "multi-row VALUES",
            Self::Recordset => "jsonb_populate_recordset",
            Self::DeleteInsert => "delete and insert through jsonb",
            Self::RowBatch => "row-wise batch with text casts",
        }
    }

    /// How many of `rows` it writes: one that waits for a commit per row gets fewer.
    pub(crate) fn share(self, rows: usize) -> usize {
        if self == Self::PerRecord { rows / 5 } else { rows }
    }

    /// Rows of its batches.
    fn batch(self) -> usize {
        match self {
            Self::PerRecord => 1,
            Self::RowBatch => SMALL_BATCH,
            _ => BATCH,
        }
    }
}

/// A row in the forms in which shapes send it.
pub(crate) struct Ready {
    row: Row,
    timestamp: SystemTime,
    /// The vector as text, each number with the fewest digits.
    vector: String,
    /// The record as the producer wrote it.
    json: String,
}

impl From<Row> for Ready {
    fn from(row: Row) -> Self {
        let numbers: Vec<String> = row.embedding.iter().map(f32::to_string).collect();
        let mut json = Vec::new();
        row.render(&mut json);
        Self {
            timestamp: row.system_time(),
            vector: format!("[{}]", numbers.join(",")),
            json: String::from_utf8(json).unwrap(),
            row,
        }
    }
}

impl Ready {
    /// The parameters, with the vector as text.
    fn parameters(&self) -> [&(dyn ToSql + Sync); 6] {
        let Row { id, text, source, metadata, .. } = &self.row;
        [id, text, &self.vector, &self.timestamp, source, metadata]
    }
}

/// A vector in binary.
#[derive(Debug)]
pub(crate) struct Vector<'a>(pub(crate) &'a [f32]);

impl ToSql for Vector<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        put_vector(self.0, out);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}

const COLUMNS: &str = "id, text, embedding, \"timestamp\", source, metadata";
/// Overwrites everything, whatever stands there.
pub(crate) const ON_CONFLICT: &str = "on conflict (id) do update set text = excluded.text, embedding = excluded.embedding, \
                           \"timestamp\" = excluded.\"timestamp\", source = excluded.source, \
                           metadata = excluded.metadata";

/// Writes rows with a shape, over each of the connections an equal part, in whole batches. Returns rows a second.
pub(crate) async fn write(shape: Shape, clients: &[Client], table: &str, rows: &[Ready]) -> Result<f64> {
    let rows = &rows[..shape.share(rows.len())];
    let since = Instant::now();
    let parts = rows.chunks(rows.len().div_ceil(clients.len()).next_multiple_of(shape.batch()));
    try_join_all(parts.zip(clients).map(|(rows, client)| write_part(shape, client, table, rows))).await?;
    let took = since.elapsed().as_secs_f64();
    let count = format!("select count(*) from {table}");
    let stand: i64 = clients[0].query_one(&count, &[]).await?.get(0);
    ensure!(stand == rows.len() as i64, "{shape:?} wrote {stand} rows instead of {}", rows.len());
    Ok(rows.len() as f64 / took)
}

async fn write_part(shape: Shape, client: &Client, table: &str, rows: &[Ready]) -> Result<()> {
    match shape {
        Shape::PerRecord => per_record(client, table, rows).await,
        Shape::Pipelined => pipelined(client, table, rows, shape.batch(), "$3::text::vector").await,
        Shape::Values => values(client, table, rows).await,
        Shape::Recordset => recordset(client, table, rows).await,
        Shape::DeleteInsert => delete_insert(client, table, rows).await,
        Shape::RowBatch => {
            pipelined(client, table, rows, shape.batch(), "cast(cast($3 as text) as vector)").await
        }
    }
}

async fn per_record(client: &Client, table: &str, rows: &[Ready]) -> Result<()> {
    let sql =
        format!("insert into {table} ({COLUMNS}) values ($1, $2, $3, $4, $5, $6::text::jsonb) {ON_CONFLICT}");
    let statement = client.prepare(&sql).await?;
    for Ready { row: Row { id, text, embedding, source, metadata, .. }, timestamp, .. } in rows {
        client.execute(&statement, &[id, text, &Vector(embedding), timestamp, source, metadata]).await?;
    }
    Ok(())
}

async fn pipelined(client: &Client, table: &str, rows: &[Ready], batch: usize, vector: &str) -> Result<()> {
    let sql = format!(
        "insert into {table} ({COLUMNS}) values ($1, $2, {vector}, $4, $5, $6::text::jsonb) {ON_CONFLICT}"
    );
    let statement = client.prepare(&sql).await?;
    for batch in rows.chunks(batch) {
        client.batch_execute("begin").await?;
        try_join_all(batch.iter().map(|row| execute(client, &statement, row))).await?;
        client.batch_execute("commit").await?;
    }
    Ok(())
}

async fn execute(client: &Client, statement: &Statement, row: &Ready) -> Result<u64> {
    Ok(client.execute(statement, &row.parameters()).await?)
}

async fn values(client: &Client, table: &str, rows: &[Ready]) -> Result<()> {
    let places: Vec<String> = (0..BATCH)
        .map(|row| {
            let [id, text, vector, timestamp, source, metadata] =
                std::array::from_fn(|field| row * 6 + field + 1);
            format!(
                "(${id}, ${text}, ${vector}::text::vector, ${timestamp}, ${source}, ${metadata}::text::jsonb)"
            )
        })
        .collect();
    let sql = format!("insert into {table} ({COLUMNS}) values {} {ON_CONFLICT}", places.join(", "));
    let statement = client.prepare(&sql).await?;
    for batch in rows.chunks_exact(BATCH) {
        let parameters: Vec<_> = batch.iter().flat_map(Ready::parameters).collect();
        client.execute(&statement, &parameters).await?;
    }
    Ok(())
}

async fn recordset(client: &Client, table: &str, rows: &[Ready]) -> Result<()> {
    let sql = format!(
        "insert into {table} ({COLUMNS}) select {COLUMNS} from jsonb_populate_recordset(null::{table}, $1::text::jsonb) \
         {ON_CONFLICT}"
    );
    let statement = client.prepare(&sql).await?;
    for batch in rows.chunks(BATCH) {
        client.execute(&statement, &[&json(batch)]).await?;
    }
    Ok(())
}

async fn delete_insert(client: &Client, table: &str, rows: &[Ready]) -> Result<()> {
    let delete = client.prepare(&format!("delete from {table} where id = any($1)")).await?;
    let insert = format!(
        "insert into {table} ({COLUMNS}) select r->>'id', r->>'text', (r->>'embedding')::vector, \
         (r->>'timestamp')::timestamptz, r->>'source', r->'metadata' from jsonb_array_elements($1::text::jsonb) as r"
    );
    let insert = client.prepare(&insert).await?;
    for batch in rows.chunks(BATCH) {
        let ids: Vec<&str> = batch.iter().map(|ready| ready.row.id.as_str()).collect();
        client.batch_execute("begin").await?;
        client.execute(&delete, &[&ids]).await?;
        client.execute(&insert, &[&json(batch)]).await?;
        client.batch_execute("commit").await?;
    }
    Ok(())
}

/// The records of a batch as one array.
fn json(batch: &[Ready]) -> String {
    let records: Vec<&str> = batch.iter().map(|ready| ready.json.as_str()).collect();
    format!("[{}]", records.join(", "))
}
