//! Rows that are new, the fastest way: COPY in its binary form.

use std::pin::pin;

use bytes::BytesMut;
use futures_util::SinkExt;
use tokio_postgres::types::Type;

use crate::{
    cause::Cause, connection::Parameter, encode, error::Error, row::VectorRow, table::VectorTable,
    transaction::Transaction,
};

/// How much is encoded before it is sent.
const PIECE: usize = 128 * 1024;

/// Whether the table still has what an upsert needs and COPY would not miss: a unique key, and no rule in between.
const HAS_KEY: &str = "
select not c.relhasrules and exists (
  select from pg_catalog.pg_index i
  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
  where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
    and i.indexprs is null and i.indnkeyatts = 1 and a.attname = 'id')
from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)";

impl Transaction<'_> {
    /// Inserts rows whose keys are not there yet, by COPY, and says how many. All or nothing: a key that is there, or twice
    /// among `rows`, fails the transaction with SQLSTATE 23505. The server does less for it than for an
    /// [`upsert`](Self::upsert): it need not look for each key first, and fills whole pages.
    ///
    /// A table that has lost its unique key, or has got a rule, since it was checked is an error too, of
    /// [`Class::Fatal`](crate::Class::Fatal). It prepares a statement, so it is not for connections with
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
        let inserted = inserted.map_err(|error| self.connection.unless_granted(error, table))?;
        // COPY asks for no key, and does not stop where there is none. Until the commit nobody can take it away.
        let name: [Parameter<'_>; 1] = [(&table.qualified(), Type::TEXT)];
        let answer = self.client().query_typed_opt(HAS_KEY, &name);
        let has_key = self.during(action(), async { answer.await?.map_or(Ok(false), |row| row.try_get(0)) });
        if has_key.await? {
            Ok(inserted)
        } else {
            let text = "the table no longer has a unique key on id, or has a rule".to_owned();
            Err(Error::new(action(), Cause::Program(text)))
        }
    }
}
