//! What a table holds for given keys.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use lancedb::{
    Table,
    arrow::arrow_array::{
        Array, FixedSizeListArray, RecordBatch, StringArray, TimestampNanosecondArray,
        cast::AsArray,
        types::{Float32Type, TimestampNanosecondType},
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

/// Rows as they are stored, to be found by key.
pub(crate) struct Stored {
    batches: Vec<Columns>,
    places: HashMap<String, (usize, usize)>,
}

/// The filter for some keys.
pub(crate) fn with_keys<'a>(column: &str, keys: impl Iterator<Item = &'a str>) -> DfExpr {
    col(column).in_list(keys.map(lit).collect(), false)
}

impl Stored {
    pub(crate) fn nothing() -> Self {
        Self { batches: Vec::new(), places: HashMap::new() }
    }

    /// Reads whole rows.
    pub(crate) async fn read(
        table: &Table,
        handle: &Handle,
        keys: impl Iterator<Item = &str>,
    ) -> Result<Self, Error> {
        let query = table.query().only_if_expr(with_keys("id", keys)).select(Select::columns(&COLUMNS));
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = read.await.map_err(handle.reading())?;
        let batches: Vec<Columns> = batches.iter().map(Columns::of).collect();
        let mut places = HashMap::new();
        for (number, batch) in batches.iter().enumerate() {
            for row in 0..batch.id.len() {
                if places.insert(batch.id.value(row).to_owned(), (number, row)).is_some() {
                    return Err(twice(handle.name()));
                }
            }
        }
        Ok(Self { batches, places })
    }

    /// The timestamp of the row with this key, if there is one.
    pub(crate) fn find(&self, id: &str) -> Option<Found<'_>> {
        let (batch, row) = *self.places.get(id)?;
        Some(Found { columns: &self.batches[batch], row })
    }
}

/// One stored row.
pub(crate) struct Found<'a> {
    columns: &'a Columns,
    row: usize,
}

impl Found<'_> {
    /// In microseconds.
    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.columns.timestamp_nanos(self.row).map(|nanos| nanos.div_euclid(1_000))
    }

    /// Whether the row is stored just so, bit by bit.
    pub(crate) fn equals(&self, row: &VectorRow<'_>) -> bool {
        let Columns { text, source, metadata, .. } = self.columns;
        let of = |column: &StringArray, value: Option<&str>| match value {
            None => column.is_null(self.row),
            Some(value) => column.is_valid(self.row) && column.value(self.row) == value,
        };
        self.columns.timestamp_nanos(self.row) == row.timestamp.map(|micros| micros * 1_000)
            && of(text, row.text)
            && of(source, row.source)
            && of(metadata, row.metadata)
            && self.columns.embedding_is(self.row, row.embedding)
    }
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
        let column = |name| batch.column_by_name(name).expect("the column was asked for");
        Self {
            id: column("id").as_string().clone(),
            text: column("text").as_string().clone(),
            embedding: column("embedding").as_fixed_size_list().clone(),
            timestamp: column("timestamp").as_primitive::<TimestampNanosecondType>().clone(),
            source: column("source").as_string().clone(),
            metadata: column("metadata").as_string().clone(),
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
