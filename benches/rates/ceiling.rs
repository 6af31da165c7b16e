//! The ceiling: what the database takes when nothing is left to be done for it. Binary COPY of rows that are encoded
//! already, into an empty table with its primary key.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::sample::Row;

/// 2000-01-01, where PostgreSQL counts from, in microseconds since 1970-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: &[u8] = b"\xff\xff";
/// Bytes of one message, roughly.
const CHUNK: usize = 256 * 1024;

/// A table as people make it by hand: pages filled up, a primary key, nothing else.
pub(crate) fn create_table(name: &str, dimensions: usize) -> String {
    format!(
        "create extension if not exists vector; \
         create table {name} (id varchar(255) primary key, text text, embedding vector({dimensions}), \
         \"timestamp\" timestamptz, source varchar(255), metadata jsonb)"
    )
}

/// Encoded rows.
pub(crate) struct Encoded {
    rows: usize,
    chunks: Vec<Bytes>,
}

impl Encoded {
    /// Encodes rows.
    pub(crate) fn of(rows: impl Iterator<Item = Row>) -> Self {
        let (mut count, mut chunks, mut out) = (0, Vec::new(), BytesMut::with_capacity(2 * CHUNK));
        for row in rows {
            encode(&row, &mut out);
            count += 1;
            if out.len() >= CHUNK {
                chunks.push(out.split().freeze());
                out.reserve(2 * CHUNK);
            }
        }
        chunks.push(out.freeze());
        Self { rows: count, chunks }
    }

    /// How many they are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Copies them into a table, over each of the connections an equal part. Returns rows a second.
    pub(crate) async fn copy(&self, clients: &[Client], table: &str) -> Result<f64> {
        let since = Instant::now();
        let parts = self.chunks.chunks(self.chunks.len().div_ceil(clients.len()));
        let copied: u64 = try_join_all(parts.zip(clients).map(|(part, client)| copy(client, table, part)))
            .await?
            .iter()
            .sum();
        ensure!(copied == self.rows as u64, "{copied} rows were copied instead of {}", self.rows);
        Ok(self.rows as f64 / since.elapsed().as_secs_f64())
    }
}

async fn copy(client: &Client, table: &str, chunks: &[Bytes]) -> Result<u64> {
    let sql = format!(
        "copy {table} (id, text, embedding, \"timestamp\", source, metadata) from stdin (format binary)"
    );
    let sink = client.copy_in::<_, Bytes>(&sql).await?;
    let mut sink = std::pin::pin!(sink);
    sink.feed(Bytes::from_static(SIGNATURE)).await?;
    for chunk in chunks {
        sink.feed(chunk.clone()).await?;
    }
    sink.feed(Bytes::from_static(END)).await?;
    Ok(sink.finish().await?)
}

/// Appends one row in the binary form of COPY.
fn encode(row: &Row, out: &mut BytesMut) {
    out.put_i16(6);
    put(&row.id, out);
    put(&row.text, out);
    out.put_i32(4 + 4 * row.embedding.len() as i32);
    put_vector(&row.embedding, out);
    out.put_i32(8);
    out.put_i64(row.timestamp - POSTGRES_EPOCH);
    put(row.source, out);
    out.put_i32(1 + row.metadata.len() as i32);
    out.put_u8(1);
    out.put_slice(row.metadata.as_bytes());
}

/// Appends a vector in its binary form.
pub(crate) fn put_vector(embedding: &[f32], out: &mut BytesMut) {
    out.put_i16(embedding.len() as i16);
    out.put_i16(0);
    let start = out.len();
    out.resize(start + 4 * embedding.len(), 0);
    for (bytes, number) in out[start..].chunks_exact_mut(4).zip(embedding) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
}

fn put(text: &str, out: &mut BytesMut) {
    out.put_i32(text.len() as i32);
    out.put_slice(text.as_bytes());
}
