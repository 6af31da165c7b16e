//! What a table holds for given keys, compared with what is to be written.
//!
//! Invariant: no row is kept. First come only keys and timestamps; a row that differs by its timestamp differs, and is not read.
//! The others are read whole, but few at a time.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use lancedb::{
    Table,
    arrow::arrow_array::{
        Array, FixedSizeListArray, RecordBatch, StringArray, TimestampNanosecondArray,
        cast::AsArray,
        types::{Float32Type, TimestampNanosecondType, UInt64Type},
    },
    expr::{DfExpr, col, lit},
    query::{ExecutableQuery, QueryBase, Select},
};

use crate::{
    contract::Mismatch,
    error::Error,
    handle::Handle,
    row::{StoredRow, VectorRow},
};

/// The columns of a table of embeddings, in the order in which they are read.
pub(crate) const COLUMNS: [&str; 6] = ["id", "text", "embedding", "timestamp", "source", "metadata"];

/// LanceDB's name for the place of a row.
const PLACE: &str = "_rowid";

/// So many rows are read whole at a time, and fewer where they are large. Somebody may have stored rows larger than those that they are
/// compared with, and of their own size nothing is known before.
const PIECE_ROWS: usize = 256;

/// The same in bytes of the rows that they are compared with.
const PIECE_BYTES: usize = 4 << 20;

/// The filter for some keys.
pub(crate) fn with_keys<'a>(column: &str, keys: impl Iterator<Item = &'a str>) -> DfExpr {
    col(column).in_list(keys.map(lit).collect(), false)
}

/// The rows that are there for some keys.
pub(crate) struct Stored {
    found: HashMap<String, Found>,
}

/// One row that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    place: u64,
    nanos: Option<i64>,
    /// Whether it is stored just so, bit by bit.
    pub(crate) is_equal: bool,
}

impl Found {
    /// Its timestamp in microseconds.
    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.nanos.map(|nanos| nanos.div_euclid(1_000))
    }
}

impl Stored {
    /// Reads which keys are there, and their timestamps. None counts as equal to anything.
    pub(crate) async fn read(
        table: &Table,
        handle: &Handle,
        keys: impl Iterator<Item = &str>,
    ) -> Result<Self, Error> {
        let mut found = HashMap::new();
        if table.count_rows(None).await.map_err(handle.reading())? == 0 {
            return Ok(Self { found });
        }
        let query = table.query().only_if_expr(with_keys("id", keys));
        let query = query.select(Select::columns(&["id", "timestamp"])).with_row_id();
        let mut batches = query.execute().await.map_err(handle.reading())?;
        while let Some(batch) = batches.try_next().await.map_err(handle.reading())? {
            let id: &StringArray = column(&batch, "id").as_string();
            let timestamp = column(&batch, "timestamp").as_primitive::<TimestampNanosecondType>();
            for (row, place) in places(&batch).enumerate() {
                let nanos = timestamp.is_valid(row).then(|| timestamp.value(row));
                let one = Found { place, nanos, is_equal: false };
                if found.insert(id.value(row).to_owned(), one).is_some() {
                    return Err(twice(handle.name()));
                }
            }
        }
        Ok(Self { found })
    }

    /// The same, and whether each is equal to the row that has its key.
    pub(crate) async fn compare(
        table: &Table,
        handle: &Handle,
        rows: &[VectorRow<'_>],
    ) -> Result<Self, Error> {
        let mut stored = Self::read(table, handle, rows.iter().map(|row| row.id)).await?;
        let may_be_equal = |row: &&VectorRow<'_>| {
            let found = stored.find(row.id);
            found.is_some_and(|found| found.nanos == row.timestamp.map(|micros| micros * 1_000))
        };
        let candidates: Vec<&VectorRow<'_>> = rows.iter().filter(may_be_equal).collect();
        for piece in pieces(&candidates) {
            let wanted: HashMap<&str, &VectorRow<'_>> = piece.iter().map(|row| (row.id, *row)).collect();
            let places = piece.iter().filter_map(|row| Some(stored.find(row.id)?.place)).collect();
            let query = table.take_row_ids(places).select(Select::columns(&COLUMNS));
            let mut batches = query.execute().await.map_err(handle.reading())?;
            while let Some(batch) = batches.try_next().await.map_err(handle.reading())? {
                let columns = Columns::of(&batch);
                for place in 0..batch.num_rows() {
                    let id = columns.id.value(place);
                    if let (Some(row), Some(found)) = (wanted.get(id), stored.found.get_mut(id)) {
                        found.is_equal = columns.equal(place, row);
                    }
                }
            }
        }
        Ok(stored)
    }

    /// The row with this key, if there is one.
    pub(crate) fn find(&self, id: &str) -> Option<Found> {
        self.found.get(id).copied()
    }
}

/// Where each row of a batch that was read with its place is. They are good for the version that they were read from: in another one
/// they find nothing, or another key.
pub(crate) fn places(batch: &RecordBatch) -> impl Iterator<Item = u64> {
    column(batch, PLACE).as_primitive::<UInt64Type>().values().iter().copied()
}

/// The rows in pieces that are read at a time, none of them empty.
fn pieces<'r, 'a>(rows: &'r [&'a VectorRow<'a>]) -> impl Iterator<Item = &'r [&'a VectorRow<'a>]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take(PIECE_ROWS).take_while(|row| {
            let is_first_or_fits = bytes < PIECE_BYTES;
            let text = |text: Option<&str>| text.map_or(0, str::len);
            bytes += size_of_val(row.embedding) + text(row.text) + text(row.source) + text(row.metadata);
            is_first_or_fits
        });
        let (piece, behind) = rest.split_at(fit.count());
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> &'b dyn Array {
    batch.column_by_name(name).expect("the column was asked for")
}

/// The columns of one batch that was read.
pub(crate) struct Columns {
    id: StringArray,
    text: StringArray,
    embedding: FixedSizeListArray,
    timestamp: TimestampNanosecondArray,
    source: StringArray,
    metadata: StringArray,
}

impl Columns {
    /// Takes [`COLUMNS`] of a batch of a table whose schema was checked.
    pub(crate) fn of(batch: &RecordBatch) -> Self {
        Self {
            id: column(batch, "id").as_string().clone(),
            text: column(batch, "text").as_string().clone(),
            embedding: column(batch, "embedding").as_fixed_size_list().clone(),
            timestamp: column(batch, "timestamp").as_primitive::<TimestampNanosecondType>().clone(),
            source: column(batch, "source").as_string().clone(),
            metadata: column(batch, "metadata").as_string().clone(),
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = StoredRow> {
        let text = |column: &StringArray, row| column.is_valid(row).then(|| column.value(row).to_owned());
        (0..self.id.len()).map(move |row| StoredRow {
            id: self.id.value(row).to_owned(),
            text: text(&self.text, row),
            embedding: self.numbers(row).unwrap_or_default(),
            timestamp: self.timestamp_nanos(row).map(|nanos| nanos.div_euclid(1_000)),
            source: text(&self.source, row),
            metadata: text(&self.metadata, row),
        })
    }

    /// Whether a row is stored just so, bit by bit.
    fn equal(&self, place: usize, row: &VectorRow<'_>) -> bool {
        let of = |column: &StringArray, value: Option<&str>| match value {
            None => column.is_null(place),
            Some(value) => column.is_valid(place) && column.value(place) == value,
        };
        self.timestamp_nanos(place) == row.timestamp.map(|micros| micros * 1_000)
            && of(&self.text, row.text)
            && of(&self.source, row.source)
            && of(&self.metadata, row.metadata)
            && self.embedding_is(place, row.embedding)
    }

    fn timestamp_nanos(&self, row: usize) -> Option<i64> {
        self.timestamp.is_valid(row).then(|| self.timestamp.value(row))
    }

    fn numbers(&self, row: usize) -> Option<Vec<f32>> {
        let whole = self.embedding.is_valid(row).then(|| self.embedding.value(row))?;
        Some(whole.as_primitive::<Float32Type>().values().to_vec())
    }

    fn embedding_is(&self, row: usize, numbers: &[f32]) -> bool {
        if self.embedding.is_null(row) {
            return false;
        }
        let stored = self.embedding.value(row);
        let stored = stored.as_primitive::<Float32Type>().values();
        stored.len() == numbers.len()
            && stored.iter().zip(numbers).all(|(one, other)| one.to_bits() == other.to_bits())
    }
}

/// Somebody else has written a key twice. A merge of that key would fail for ever, or write it a third time.
fn twice(table: &str) -> Error {
    let mismatch = Mismatch {
        problem: "Its column id, which is the key, holds some key more than once.".to_owned(),
        fix: "Let one row of each key stay (in Python: delete the others, or write the table anew)."
            .to_owned(),
    };
    Error::Mismatches { table: table.to_owned(), mismatches: vec![mismatch] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_with_the_row_that_fills_it_and_none_is_empty() {
        let text = "x".repeat(PIECE_BYTES / 3);
        let row = |text| VectorRow {
            id: "a",
            text: Some(text),
            embedding: &[],
            timestamp: None,
            source: None,
            metadata: None,
        };
        let (large, small) = (row(text.as_str()), row(""));
        let lengths = |rows: &[&VectorRow<'_>]| pieces(rows).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[&large; 8]), [4, 4]);
        assert_eq!(lengths(&vec![&small; PIECE_ROWS + 1]), [PIECE_ROWS, 1]);
        assert!(lengths(&[]).is_empty());
    }
}
