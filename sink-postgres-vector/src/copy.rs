//! Rows that are new, the fastest way: COPY in its binary form.

use std::pin::pin;

use bytes::BytesMut;
use futures_util::SinkExt;

use crate::{
    cause::Cause, encode, error::Error, row::VectorRow, table::VectorTable, transaction::Transaction,
};

/// How much is encoded before it is sent.
const PIECE: usize = 128 * 1024;

impl Transaction<'_> {
    /// Inserts rows whose keys are not there yet, by COPY, and says how many. All or nothing: a key that is there, or twice
    /// among `rows`, fails the transaction with SQLSTATE 23505. The server does less for it than for an
    /// [`upsert`](Self::upsert): it need not look for each key first, and fills whole pages.
    ///
    /// It prepares a statement, so it is not for connections with
    /// [`prepared: false`](crate::ConnectOptions::prepared). Columns beyond the six get their defaults. Sent while it is
    /// encoded, so it takes next to no memory.
    pub async fn insert(&mut self, table: &VectorTable, rows: &[VectorRow<'_>]) -> Result<u64, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let action = || format!("write to {}", table.name());
        let statement = self.connection.copy_statement(table).await?;
        let mut sink = pin!(self.during(action(), self.client().copy_in(&statement)).await?);
        let mut piece = BytesMut::with_capacity(PIECE);
        piece.extend_from_slice(encode::COPY_HEADER);
        for row in rows {
            let encoded = encode::copy_row(row, &mut piece);
            encoded.map_err(|error| Error::new(action(), Cause::Program(error.to_string())))?;
            if piece.len() >= PIECE {
                self.during(action(), sink.feed(piece.split().freeze())).await?;
                piece.reserve(PIECE);
            }
        }
        piece.extend_from_slice(encode::COPY_TRAILER);
        self.during(action(), sink.feed(piece.freeze())).await?;
        let inserted = self.during(action(), sink.finish()).await;
        inserted.map_err(|error| self.connection.unless_granted(error, table))
    }
}
