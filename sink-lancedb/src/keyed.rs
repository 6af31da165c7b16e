//! Small tables with a key, whose columns the caller names: for whatever has to be kept beside the rows.

use std::{fmt, sync::Arc};

use futures_util::TryStreamExt;
use lancedb::{
    arrow::{
        arrow_array::{
            Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
            cast::AsArray,
            types::{Int64Type, TimestampMicrosecondType},
        },
        arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    query::{ExecutableQuery, QueryBase},
};

use crate::{
    dataset::{Dataset, LockedDataset},
    error::Error,
    handle::Handle,
    stats::{self, TableStats},
    stored::with_keys,
    table::{merge, unique},
    upkeep::{Schedule, Tidied, Upkeep},
};

/// The key's column.
const KEY: &str = "key";

/// What a column holds. Each can be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// 64 bits with a sign.
    Integer,
    /// Bytes.
    Bytes,
    /// Microseconds since the Unix epoch: timestamp[us], in UTC and without a time zone.
    Timestamp,
}

/// A value of a column of its kind, or null.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// In any column.
    Null,
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Integer`].
    Integer(i64),
    /// Of [`Kind::Bytes`].
    Bytes(Vec<u8>),
    /// Of [`Kind::Timestamp`], microseconds since the Unix epoch.
    Timestamp(i64),
}

/// Says of which kind it is, never what.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Text(_) => "Text",
            Self::Integer(_) => "Integer",
            Self::Bytes(_) => "Bytes",
            Self::Timestamp(_) => "Timestamp",
        })
    }
}

/// A row: its key, and a value for each column in the order of [`KeyedSpec::columns`].
#[derive(Clone, PartialEq)]
pub struct KeyedRow {
    /// The key.
    pub key: String,
    /// The values.
    pub values: Vec<Value>,
}

/// Says how many values there are, never which.
impl fmt::Debug for KeyedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRow").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

/// A table as the caller wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedSpec {
    /// Its name: ASCII letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Its columns beside `key`, which is a string.
    pub columns: Vec<(String, Kind)>,
    /// How it is kept small.
    pub upkeep: Upkeep,
}

impl KeyedSpec {
    fn schema(&self) -> SchemaRef {
        let others = self.columns.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true));
        Arc::new(Schema::new([crate::contract::key(KEY)].into_iter().chain(others).collect::<Vec<_>>()))
    }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Bytes => DataType::Binary,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

/// A small table with one row a key, written by this process alone.
///
/// There is no transaction over two tables. What is kept here of a [`VectorTable`](crate::VectorTable) is therefore written
/// after its rows: after a crash between the two the rows are written again, which their keys make harmless.
///
/// Every call commits once or not at all. After an error what it was to write is there or not, as a whole; writing the same again is
/// harmless and settles it. A commit that was begun goes on when the future is dropped, and the next call waits for it.
#[derive(Debug)]
pub struct KeyedTable {
    reader: KeyedReader,
    schema: SchemaRef,
    schedule: Schedule,
}

/// Such a table, to read from. Each call sees what has been committed by then.
#[derive(Debug)]
pub struct KeyedReader {
    handle: Handle,
    spec: KeyedSpec,
}

impl KeyedTable {
    /// Opens the table, and makes it if it is missing.
    ///
    /// # Errors
    /// [`Error::Mismatches`] for a table of another shape.
    pub async fn open(dataset: &LockedDataset, spec: KeyedSpec) -> Result<Self, Error> {
        let (mut handle, schema) = Handle::open_or_create(dataset, &spec.name, &spec.schema()).await?;
        let schedule = Schedule::open(spec.upkeep, None, &mut handle, KEY).await?;
        Ok(Self { reader: KeyedReader { handle, spec }, schema, schedule })
    }

    /// Writes rows; those whose key is there are replaced.
    ///
    /// # Errors
    /// [`Error::SameKey`] for two rows of one key and [`Error::Row`] for a row whose values are not those of the columns, before
    /// anything is written.
    pub async fn put(&mut self, rows: &[KeyedRow]) -> Result<(), Error> {
        self.write(rows, true).await.map(drop)
    }

    /// Writes the rows whose key is not there, and leaves those that are as they are. Returns how many were written.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_missing(&mut self, rows: &[KeyedRow]) -> Result<u64, Error> {
        self.write(rows, false).await
    }

    async fn write(&mut self, rows: &[KeyedRow], replace: bool) -> Result<u64, Error> {
        let KeyedReader { handle, spec } = &mut self.reader;
        unique(&spec.name, rows.iter().map(|row| row.key.as_str()))?;
        if let Some(index) = rows.iter().position(|row| !fits(&spec.columns, row)) {
            let problem = "its values are not of the kinds of the columns";
            return Err(Error::Row { table: spec.name.clone(), index, problem });
        }
        if rows.is_empty() {
            return Ok(0);
        }
        let batch = encode(&self.schema, spec, rows).map_err(|error| handle.writing()(error.into()))?;
        let table = handle.take().await?;
        let written = handle.write(merge(table.clone(), KEY, batch, replace)).await?;
        handle.give(table);
        self.schedule.committed(written);
        Ok(written)
    }

    /// Deletes by key. Keys that are not there are no error.
    pub async fn remove(&mut self, keys: &[&str]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let handle = &mut self.reader.handle;
        let table = handle.take().await?;
        let filter = with_keys(KEY, keys.iter().copied());
        let target = table.clone();
        let done = handle.write(async move { target.delete(&filter).await }).await?;
        handle.give(table);
        self.schedule.committed(0);
        Ok(done.num_deleted_rows)
    }

    /// Reads, among what this has written.
    pub fn reader(&mut self) -> &mut KeyedReader {
        &mut self.reader
    }

    /// As [`VectorTable::upkeep`](crate::VectorTable::upkeep).
    pub async fn upkeep(&mut self) -> Result<Option<Tidied>, Error> {
        if !self.schedule.is_due() {
            return Ok(None);
        }
        self.schedule.tidy(&mut self.reader.handle, KEY).await.map(Some)
    }

    /// The same now, due or not.
    pub async fn tidy(&mut self) -> Result<Tidied, Error> {
        self.schedule.tidy_all(&mut self.reader.handle, KEY).await
    }

    /// As [`VectorTable::prune`](crate::VectorTable::prune).
    pub async fn prune(&mut self) -> Result<u64, Error> {
        self.schedule.prune(&mut self.reader.handle).await
    }
}

impl KeyedReader {
    /// Opens a table.
    ///
    /// # Errors
    /// [`Error::NoTable`]; [`Error::Mismatches`] for a table of another shape.
    pub async fn open(dataset: &Dataset, spec: KeyedSpec) -> Result<Self, Error> {
        let none = || Error::NoTable { table: spec.name.clone(), uri: dataset.uri().to_owned() };
        let found = Handle::open(dataset.place(), &spec.name, Some(&spec.schema())).await?;
        let (handle, _) = found.ok_or_else(none)?;
        Ok(Self { handle, spec })
    }

    /// The rows with these keys, in no particular order. Keys that are not there are no error.
    pub async fn get(&mut self, keys: &[&str]) -> Result<Vec<KeyedRow>, Error> {
        if keys.is_empty() { Ok(Vec::new()) } else { self.read(Some(keys), None).await }
    }

    /// So many rows at most, in no particular order; all without a limit.
    pub async fn all(&mut self, limit: Option<usize>) -> Result<Vec<KeyedRow>, Error> {
        self.read(None, limit).await
    }

    /// How many rows there are.
    pub async fn count(&mut self) -> Result<u64, Error> {
        let table = self.handle.take().await?;
        let count = table.count_rows(None).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(count as u64)
    }

    /// Its size.
    pub async fn stats(&mut self) -> Result<TableStats, Error> {
        let table = self.handle.take().await?;
        let stats = stats::read(&table, &self.handle, KEY).await?;
        self.handle.give(table);
        Ok(stats)
    }

    async fn read(&mut self, keys: Option<&[&str]>, limit: Option<usize>) -> Result<Vec<KeyedRow>, Error> {
        let table = self.handle.take().await?;
        let mut query = table.query();
        if let Some(keys) = keys {
            query = query.only_if_expr(with_keys(KEY, keys.iter().copied()));
        }
        if let Some(limit) = limit {
            query = query.limit(limit);
        }
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = Box::pin(read).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(batches.iter().flat_map(|batch| decode(&self.spec, batch)).collect())
    }
}

fn fits(columns: &[(String, Kind)], row: &KeyedRow) -> bool {
    let fits = |(value, (_, kind)): (&Value, &(String, Kind))| match value {
        Value::Null => true,
        Value::Text(_) => *kind == Kind::Text,
        Value::Integer(_) => *kind == Kind::Integer,
        Value::Bytes(_) => *kind == Kind::Bytes,
        Value::Timestamp(_) => *kind == Kind::Timestamp,
    };
    row.values.len() == columns.len() && row.values.iter().zip(columns).all(fits)
}

/// One batch with the columns of the table's own schema, in its order. The rows fit.
fn encode(schema: &SchemaRef, spec: &KeyedSpec, rows: &[KeyedRow]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let Some(place) = spec.columns.iter().position(|(name, _)| name == field.name()) else {
            return Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.key))) as ArrayRef;
        };
        let values = rows.iter().map(|row| &row.values[place]);
        match spec.columns[place].1 {
            Kind::Text => Arc::new(values.map(|value| value.text()).collect::<StringArray>()),
            Kind::Integer => Arc::new(values.map(Value::number).collect::<Int64Array>()),
            Kind::Bytes => Arc::new(values.map(|value| value.bytes()).collect::<BinaryArray>()),
            Kind::Timestamp => Arc::new(values.map(Value::number).collect::<TimestampMicrosecondArray>()),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

impl Value {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    fn number(&self) -> Option<i64> {
        if let Self::Integer(number) | Self::Timestamp(number) = self { Some(*number) } else { None }
    }
}

fn decode(spec: &KeyedSpec, batch: &RecordBatch) -> Vec<KeyedRow> {
    let column = |name: &str| batch.column_by_name(name).expect("the schema was checked");
    let keys = column(KEY).as_string::<i32>();
    let row = |row: usize| {
        let value = |(name, kind): &(String, Kind)| {
            let column = column(name);
            match kind {
                _ if column.is_null(row) => Value::Null,
                Kind::Text => Value::Text(column.as_string::<i32>().value(row).to_owned()),
                Kind::Integer => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
                Kind::Bytes => Value::Bytes(column.as_binary::<i32>().value(row).to_owned()),
                Kind::Timestamp => {
                    Value::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row))
                }
            }
        };
        KeyedRow { key: keys.value(row).to_owned(), values: spec.columns.iter().map(value).collect() }
    };
    (0..batch.num_rows()).map(row).collect()
}
