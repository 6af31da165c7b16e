//! Rows most of which are there as they are: what is stored is read and compared here, and only what differs is written.
//!
//! To send all rows so that the server compares them costs it more than to read them: it has to take each vector apart number by
//! number, copy it from an array into a row, and look for each key by itself.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

use crate::{
    connection::Parameter,
    encode::{Column, Field, postgres_micros},
    error::Error,
    jsonb,
    overwrite::Overwrite,
    row::VectorRow,
    table::VectorTable,
    transaction::{Transaction, Upserted},
};

impl Transaction<'_> {
    /// As [`upsert`](Self::upsert), and faster where most rows are there already, equal in every column: these are read and
    /// neither locked nor touched. Where most differ it is slower, for they are read first.
    ///
    /// What somebody else does to an equal row at the same time counts as done after this. Takes memory for one row that is
    /// there at a time, of whose texts no more is read than the longest that is given has bytes, in characters.
    ///
    /// Returns, beside what was done, how many rows were found to be equal. Where these are few, the reading was in vain.
    pub async fn upsert_differing(
        &mut self,
        table: &VectorTable,
        rows: &[VectorRow<'_>],
        overwrite: Overwrite,
    ) -> Result<(Upserted, u64), Error> {
        if rows.is_empty() {
            return Ok((Upserted { changed: 0, stale: 0 }, 0));
        }
        let is_equal = self.compare(table, rows).await?;
        let differing = rows.iter().zip(is_equal).filter(|(_, is_equal)| !is_equal);
        let differing: Vec<VectorRow<'_>> = differing.map(|(row, _)| *row).collect();
        let equal = (rows.len() - differing.len()) as u64;
        let mut upserted = self.upsert(table, &differing, overwrite).await?;
        if overwrite == Overwrite::Older {
            // What is equal is not older.
            upserted.stale += equal;
        }
        Ok((upserted, equal))
    }

    /// Says of each row whether it is there, equal in every column. A few count as different that PostgreSQL takes for equal, such
    /// as `-0.0` and `0.0`; whoever writes these is told that nothing has changed.
    async fn compare(&mut self, table: &VectorTable, rows: &[VectorRow<'_>]) -> Result<Vec<bool>, Error> {
        let wanted = Wanted::of(rows);
        let text = beyond(rows.iter().filter_map(|row| row.text.map(str::len)).max());
        let source = beyond(rows.iter().filter_map(|row| row.source.map(str::len)).max());
        let metadata = beyond(wanted.metadata.iter().flatten().map(Range::len).max());
        let ids = Column::new(rows, Field::Id);
        let parameters: [Parameter<'_>; 4] =
            [(&ids, Type::TEXT_ARRAY), (&text, Type::INT4), (&source, Type::INT4), (&metadata, Type::INT4)];
        let sql = table.stored_sql();
        let statement = self.connection.prepare(table, sql, &parameters).await?;
        let (mut is_equal, mut is_seen) = (vec![false; rows.len()], vec![false; rows.len()]);
        let answer = async {
            let mut stored = pin!(self.connection.ask(sql, statement, &parameters).await?);
            while let Some(stored) = stored.try_next().await? {
                if let Some((place, found)) = wanted.compare(&stored)? {
                    // A table that inherits from this one may have the key too, and then nothing is certain.
                    is_equal[place] = !std::mem::replace(&mut is_seen[place], true) && found;
                }
            }
            Ok(())
        };
        let answer = self.connection.during(format!("read from {}", table.name()), answer).await;
        answer.map_err(|error| self.connection.unless_granted(error, table))?;
        Ok(is_equal)
    }
}

/// So many characters of a text are asked for that it can be told from all of at most so many bytes.
fn beyond(bytes: Option<usize>) -> i32 {
    i32::try_from(bytes.unwrap_or_default() + 1).unwrap_or(i32::MAX)
}

/// Rows to be found among those that are there.
struct Wanted<'a> {
    rows: &'a [VectorRow<'a>],
    places: HashMap<&'a str, usize>,
    /// The metadata of all rows as PostgreSQL prints it.
    printed: String,
    /// Where that of each row is; nowhere if it has none, or it is not known how it would be printed.
    metadata: Vec<Option<Range<usize>>>,
}

impl<'a> Wanted<'a> {
    fn of(rows: &'a [VectorRow<'a>]) -> Self {
        let mut printed = String::new();
        let metadata = rows.iter().map(|row| {
            let start = printed.len();
            let is_known = jsonb::print(row.metadata?, &mut printed).is_some();
            is_known.then_some(start..printed.len())
        });
        let metadata = metadata.collect();
        let places = rows.iter().enumerate().map(|(place, row)| (row.id, place)).collect();
        Self { rows, places, printed, metadata }
    }

    /// The place of the row that has the key of this one, and whether all else is equal.
    fn compare(&self, stored: &Row) -> Result<Option<(usize, bool)>, tokio_postgres::Error> {
        let column =
            |index| stored.try_get::<_, Option<Raw<'_>>>(index).map(|raw| raw.map(|Raw(bytes)| bytes));
        let id = column(0)?.and_then(|id| std::str::from_utf8(id).ok());
        let Some(place) = id.and_then(|id| self.places.get(id).copied()) else { return Ok(None) };
        let row = &self.rows[place];
        let printed = self.metadata[place].clone().map(|range| &self.printed[range]);
        let timestamp = row.timestamp.map(|micros| postgres_micros(micros).to_be_bytes());
        let is_equal = column(1)?.is_some_and(|vector| same_numbers(vector, row.embedding))
            && column(2)? == row.text.map(str::as_bytes)
            && column(3)? == timestamp.as_ref().map(<[u8; 8]>::as_slice)
            && column(4)? == row.source.map(str::as_bytes)
            && row.metadata.is_some() == printed.is_some()
            && column(5)? == printed.map(str::as_bytes);
        Ok(Some((place, is_equal)))
    }
}

/// Whether a vector in pgvector's binary form has just these numbers: how many as `i16`, an unused `i16`, and each as
/// big-endian `f32` (`vector_send`).
fn same_numbers(vector: &[u8], embedding: &[f32]) -> bool {
    let Some((_, numbers)) = vector.split_at_checked(4) else {
        return false;
    };
    let (numbers, rest) = numbers.as_chunks::<4>();
    let bits = |(stored, number): (&[u8; 4], &f32)| u32::from_be_bytes(*stored) ^ number.to_bits();
    // To the end without looking: nearly always there is no difference to find, and this takes several at a time.
    rest.is_empty()
        && numbers.len() == embedding.len()
        && numbers.iter().zip(embedding).map(bits).fold(0, |all, difference| all | difference) == 0
}

/// A value as it is sent.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(ty: &Type) -> bool {
        [Type::TEXT, Type::BYTEA, Type::TIMESTAMPTZ].contains(ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_equals_only_the_same_numbers_bit_by_bit() {
        let two = b"\0\x02\0\0\x3f\x80\0\0\x80\0\0\0";
        assert!(same_numbers(two, &[1.0, -0.0]));
        for other in [&[1.0, 0.0][..], &[1.0], &[1.0, -0.0, 0.0], &[], &[-0.0, 1.0]] {
            assert!(!same_numbers(two, other), "{other:?}");
        }
        for damaged in [&two[..11], &two[..3], b""] {
            assert!(!same_numbers(damaged, &[1.0, -0.0]));
        }
    }
}
