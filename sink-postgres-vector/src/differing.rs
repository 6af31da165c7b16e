//! Rows most of which are there as they are: what is stored is read and compared here, and only what differs is written.
//!
//! To send all rows so that the server compares them costs it more than to read them: it has to take each vector apart number by
//! number, copy it from an array into a row, and look for each key by itself.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::{FromSql, Type};

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
    /// What somebody else does to an equal row at the same time counts as done after this. Takes memory for 8 MiB of what is
    /// there, or for one row, of whose texts no more is read than the longest that is given has bytes, in characters.
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
        let limits = Limits::of(&wanted);
        let (mut is_equal, mut is_seen) = (vec![false; rows.len()], vec![false; rows.len()]);
        for asked in rows.chunks(limits.rows_at_once(rows)) {
            let ids = Column::new(asked, Field::Id);
            let parameters: [Parameter<'_>; 4] = [
                (&ids, Type::TEXT_ARRAY),
                (&limits.text, Type::INT4),
                (&limits.source, Type::INT4),
                (&limits.metadata, Type::INT4),
            ];
            let sql = table.stored_sql();
            let statement = self.connection.prepare(table, sql, &parameters).await?;
            let answer = async {
                let mut answers = pin!(self.connection.ask(sql, statement, &parameters).await?);
                while let Some(answer) = answers.try_next().await? {
                    let Raw(mut stored) = answer.try_get::<_, Option<Raw<'_>>>(0)?.unwrap_or(Raw(&[]));
                    while let Some(columns) = next_record(&mut stored) {
                        let Some((place, found)) = wanted.compare(columns) else { continue };
                        // A table that inherits from this one may have the key too, and then nothing is certain.
                        is_equal[place] = !std::mem::replace(&mut is_seen[place], true) && found;
                    }
                }
                Ok(())
            };
            let answer = self.connection.during(format!("read from {}", table.name()), answer).await;
            answer.map_err(|error| self.connection.unless_granted(error, table))?;
        }
        Ok(is_equal)
    }
}

/// How many characters of each text are asked for: so many that it can be told from all that are given.
struct Limits {
    text: i32,
    source: i32,
    metadata: i32,
}

impl Limits {
    /// Bytes. No answer has more, unless one row alone has.
    const ANSWER: usize = 8 << 20;
    /// Bytes. A key that is longer has no index.
    const KEY: usize = 4 << 10;

    fn of(wanted: &Wanted<'_>) -> Self {
        let beyond = |longest: Option<usize>| i32::try_from(longest.unwrap_or(0) + 1).unwrap_or(i32::MAX);
        Self {
            text: beyond(wanted.rows.iter().filter_map(|row| row.text.map(str::len)).max()),
            source: beyond(wanted.rows.iter().filter_map(|row| row.source.map(str::len)).max()),
            metadata: beyond(wanted.metadata.iter().flatten().map(Range::len).max()),
        }
    }

    /// So many rows are asked for at once that no answer is too large.
    fn rows_at_once(&self, rows: &[VectorRow<'_>]) -> usize {
        // UTF-8 has at most four bytes for a character.
        let texts = [self.text, self.source, self.metadata].map(|limit| 4 * limit.unsigned_abs() as usize);
        let vector = rows.iter().map(|row| size_of_val(row.embedding)).max().unwrap_or(0);
        (Self::ANSWER / (Self::KEY + vector + texts.iter().sum::<usize>())).max(1)
    }
}

/// The columns of a row that is there: id, vector, text, timestamp, source and metadata.
type Columns<'a> = [Option<&'a [u8]>; 6];

/// Takes the first record away, as `record_send` (`rowtypes.c`) wrote it: the number of columns, and of each its type, its length or
/// -1 for null, and its bytes. `None` at the end, and where it is something else.
fn next_record<'a>(stored: &mut &'a [u8]) -> Option<Columns<'a>> {
    let mut columns = [None; 6];
    if next_number(stored)? != columns.len() as i32 {
        return None;
    }
    for column in &mut columns {
        let _type = next_number(stored)?;
        if let Ok(length) = usize::try_from(next_number(stored)?) {
            let (bytes, behind) = stored.split_at_checked(length)?;
            (*column, *stored) = (Some(bytes), behind);
        }
    }
    Some(columns)
}

fn next_number(stored: &mut &[u8]) -> Option<i32> {
    let (number, behind) = stored.split_first_chunk()?;
    *stored = behind;
    Some(i32::from_be_bytes(*number))
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
    fn compare(&self, [id, vector, text, timestamp, source, metadata]: Columns<'_>) -> Option<(usize, bool)> {
        let place = *self.places.get(std::str::from_utf8(id?).ok()?)?;
        let row = &self.rows[place];
        let printed = self.metadata[place].clone().map(|range| &self.printed[range]);
        let micros = row.timestamp.map(|micros| postgres_micros(micros).to_be_bytes());
        let is_equal = vector.is_some_and(|vector| same_numbers(vector, row.embedding))
            && text == row.text.map(str::as_bytes)
            && timestamp == micros.as_ref().map(<[u8; 8]>::as_slice)
            && source == row.source.map(str::as_bytes)
            && row.metadata.is_some() == printed.is_some()
            && metadata == printed.map(str::as_bytes);
        Some((place, is_equal))
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
        *ty == Type::BYTEA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_one_by_one_and_what_is_cut_off_is_none() {
        let mut stored = 6_i32.to_be_bytes().to_vec();
        for column in [Some(&b"a"[..]), Some(b""), None, None, None, Some(b"{}")] {
            stored.extend(25_i32.to_be_bytes());
            stored.extend(column.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
            stored.extend(column.unwrap_or_default());
        }
        let twice = [&stored[..], &stored].concat();
        let mut rest = &twice[..];
        let columns = [Some(&b"a"[..]), Some(b""), None, None, None, Some(b"{}")];
        assert_eq!(next_record(&mut rest), Some(columns));
        assert_eq!(next_record(&mut rest), Some(columns));
        assert_eq!(next_record(&mut rest), None);
        for end in 0..stored.len() {
            assert_eq!(next_record(&mut &stored[..end]), None, "{end}");
        }
        stored[3] = 5;
        assert_eq!(next_record(&mut &stored[..]), None, "another number of columns");
    }

    #[test]
    fn an_answer_is_small_whatever_the_longest_text_has() {
        let at_once = |text| {
            let embedding = &[0.0; 384];
            let rows =
                [VectorRow { id: "a", text, embedding, timestamp: None, source: None, metadata: None }];
            Limits::of(&Wanted::of(&rows)).rows_at_once(&rows)
        };
        let (usual, long) = ("x".repeat(120), "x".repeat(100_000));
        assert!(at_once(Some(&usual)) > 1_000 && at_once(None) >= at_once(Some(&usual)));
        assert_eq!(at_once(Some(&long)), 20);
        assert_eq!(at_once(Some(&long.repeat(30))), 1);
    }

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
