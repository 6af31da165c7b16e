//! The ways in which a batch can be put into a table, beside each other: rows from memory over one connection, a
//! transaction a batch, into the table that embedsink makes.
//!
//! Statements have the number of rows that suits each best: a merge needs all of a batch at once, and with arrays half a megabyte is cheapest.
//!
//! Each writes rows into the empty table, and then the same once more: what is there as it is must stay untouched.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sink_postgres_vector::{
    ConnectOptions, Connection, Ident, Overwrite, TableSpec, Tls, TlsMode, VectorRow, VectorTable,
};
use tokio_postgres::Client;

use crate::backlog::target;
use crate::ceiling::Encoded;
use crate::report::Report;
use crate::sample::{Row, Rows, Version};
use crate::scale::Scale;
use crate::stand::{Stand, settle};
use crate::support::connector::Connector;
use crate::support::postgres::{Database, one};

/// Rows of a transaction.
const BATCH: usize = 2_000;
/// Rows of a statement, where their number can be chosen: half a megabyte of them.
const PIECE: usize = 280;

/// How rows get into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// COPY into it. Only rows that are new.
    Copy,
    /// COPY into a temporary table of the session, then one `insert … select … on conflict`.
    TemporaryTable,
    /// `insert … select unnest(…) on conflict`, arrays in binary.
    Arrays,
    /// The rows of the keys are read and compared here, and only what differs is sent.
    ReadBack,
}

impl Way {
    const ALL: [Self; 4] = [Self::Copy, Self::TemporaryTable, Self::Arrays, Self::ReadBack];

    fn key(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::TemporaryTable => "temporary_table",
            Self::Arrays => "arrays",
            Self::ReadBack => "read_back",
        }
    }
}

/// Merges what was copied into the temporary table, with the guard of the sink's own upsert.
const MERGE: &str = r#"insert into embeddings as t (id, text, embedding, "timestamp", source, metadata)
select id, text, embedding, "timestamp", source, metadata from staged
on conflict (id) do update set text = excluded.text, embedding = excluded.embedding, "timestamp" = excluded."timestamp",
  source = excluded.source, metadata = excluded.metadata
where (t.text, t."timestamp", t.source, t.metadata)
      is distinct from (excluded.text, excluded."timestamp", excluded.source, excluded.metadata)
   or (t.embedding = excluded.embedding) is not true"#;

/// Measures each way, round by round.
pub(crate) async fn measure(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    let (database, topic, rows) = (stand.database().await, stand.empty_topic().await, Rows::new(384));
    Connector::new(&topic, &database, &target(384)).migrate().await;
    let client = database.connect().await;
    let rows: Vec<Row> = (0..scale.ways).map(|number| rows.row(number, Version::default())).collect();
    let encoded: Vec<Encoded> = rows.chunks(BATCH).map(|batch| Encoded::of(batch.iter().cloned())).collect();
    let mut connection = open(&database).await?;
    let spec = TableSpec { name: Ident::new("embeddings")?, dimensions: 384 };
    for round in 1..=scale.rounds {
        println!("  round {round} of {}", scale.rounds);
        for way in Way::ALL {
            settle(&client, "truncate embeddings").await?;
            let table = VectorTable::check(connection.client(), &spec).await?;
            for state in ["fresh", "unchanged"] {
                if (way, state) == (Way::Copy, "unchanged") {
                    continue;
                }
                let since = Instant::now();
                let changed = match way {
                    Way::TemporaryTable => merge(&client, &encoded).await?,
                    _ => write(way, &mut connection, &table, &rows).await?,
                };
                let rate = rows.len() as f64 / since.elapsed().as_secs_f64();
                let expected = if state == "fresh" { rows.len() as u64 } else { 0 };
                ensure!(changed == expected, "{way:?} changed {changed} rows and not {expected}");
                report.add(format!("ways.{state}.{}", way.key()), rate);
            }
            let stand: i64 = one(&client, "select count(*) from embeddings").await;
            ensure!(stand == rows.len() as i64, "{way:?} left {stand} rows");
        }
    }
    connection.close().await;
    Ok(())
}

async fn open(database: &Database) -> Result<Connection> {
    let options = ConnectOptions {
        host: "127.0.0.1".to_owned(),
        port: database.port(),
        database: database.name().to_owned(),
        user: "postgres".to_owned(),
        password: None,
        tls: Tls { mode: TlsMode::Disable, ca_file: None, client: None },
        application_name: "bench".to_owned(),
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(60),
        prepared: true,
    };
    Ok(Connection::open(&options).await?)
}

/// By the sink's own code. Returns how many rows changed.
async fn write(way: Way, connection: &mut Connection, table: &VectorTable, rows: &[Row]) -> Result<u64> {
    let mut changed = 0;
    for batch in rows.chunks(BATCH) {
        let rows: Vec<VectorRow<'_>> = batch.iter().map(vector_row).collect();
        let mut transaction = connection.begin_for(BATCH * 2_000).await?;
        if way == Way::Copy {
            changed += transaction.insert(table, &rows).await?;
        } else {
            for piece in rows.chunks(PIECE) {
                changed += match way {
                    Way::ReadBack => {
                        transaction.upsert_differing(table, piece, Overwrite::Always).await?.0.changed
                    }
                    _ => transaction.upsert(table, piece, Overwrite::Always).await?.changed,
                };
            }
        }
        drop(transaction.commit().await?);
    }
    Ok(changed)
}

/// Over a temporary table. Its rows are encoded before the clock starts.
async fn merge(client: &Client, batches: &[Encoded]) -> Result<u64> {
    let make = "create temporary table if not exists staged (like embeddings) on commit delete rows";
    client.batch_execute(make).await?;
    let merge = client.prepare(MERGE).await?;
    let mut changed = 0;
    for batch in batches {
        client.batch_execute("begin").await?;
        batch.copy(std::slice::from_ref(client), "staged").await?;
        changed += client.execute(&merge, &[]).await?;
        client.batch_execute("commit").await?;
    }
    Ok(changed)
}

fn vector_row(row: &Row) -> VectorRow<'_> {
    VectorRow {
        id: &row.id,
        text: Some(&row.text),
        embedding: &row.embedding,
        timestamp: Some(row.timestamp),
        source: Some(row.source),
        metadata: Some(&row.metadata),
    }
}
