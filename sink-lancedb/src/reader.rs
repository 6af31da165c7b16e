//! Looking into a table of embeddings, beside whoever writes it.

use futures_util::TryStreamExt;
use lancedb::{
    arrow::{
        arrow_array::{RecordBatch, cast::AsArray, types::Float32Type},
        arrow_schema::{DataType, SchemaRef},
    },
    query::{ExecutableQuery, QueryBase, Select},
};

use crate::{
    contract,
    dataset::Dataset,
    error::Error,
    handle::Handle,
    index::Metric,
    row::StoredRow,
    stats::{self, TableStats},
    stored::{COLUMNS, Columns, with_keys},
};

/// A table of embeddings, to read from. Each call sees what has been committed by then.
#[derive(Debug)]
pub struct VectorReader {
    handle: Handle,
    dimensions: u16,
}

/// A row near a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The row.
    pub row: StoredRow,
    /// How far it is, by the metric asked for.
    pub distance: f32,
}

/// The rows nearest to a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// The nearest first.
    pub neighbours: Vec<Neighbour>,
    /// Whether the vector index was used. Rows that are not in it yet are looked through in any case.
    pub used_index: bool,
}

impl VectorReader {
    /// Opens a table.
    ///
    /// # Errors
    /// [`Error::NoTable`]; [`Error::Mismatches`] for a table of another shape.
    pub async fn open(dataset: &Dataset, name: &str) -> Result<Self, Error> {
        let none = || Error::NoTable { table: name.to_owned(), uri: dataset.uri().to_owned() };
        let (handle, schema) = Handle::open(dataset.place(), name, None).await?.ok_or_else(none)?;
        let dimensions = dimensions(&schema).unwrap_or(0);
        contract::check(name, &contract::vectors(dimensions), &schema)?;
        Ok(Self { handle, dimensions })
    }

    /// The dimension of its embeddings.
    pub fn dimensions(&self) -> u16 {
        self.dimensions
    }

    /// The rows with these keys, in no particular order. Keys that are not there are no error.
    pub async fn by_id(&mut self, ids: &[&str]) -> Result<Vec<StoredRow>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.handle.take().await?;
        let query = table.query().only_if_expr(with_keys("id", ids.iter().copied()));
        let query = query.select(Select::columns(&COLUMNS));
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = Box::pin(read).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(batches.iter().flat_map(|batch| Columns::of(batch).rows().collect::<Vec<_>>()).collect())
    }

    /// So many rows, in no particular order.
    pub async fn some(&mut self, limit: usize) -> Result<Vec<StoredRow>, Error> {
        let table = self.handle.take().await?;
        let query = table.query().limit(limit).select(Select::columns(&COLUMNS));
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = Box::pin(read).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(batches.iter().flat_map(|batch| Columns::of(batch).rows().collect::<Vec<_>>()).collect())
    }

    /// The rows nearest to a vector, by an index if there is one for this metric.
    ///
    /// # Errors
    /// [`Error::Row`] if the vector does not have the table's dimension.
    pub async fn nearest(&mut self, vector: &[f32], limit: usize, metric: Metric) -> Result<Nearest, Error> {
        if vector.len() != usize::from(self.dimensions) {
            let problem = "the vector does not have the table's dimension";
            return Err(Error::Row { table: self.handle.name().to_owned(), index: 0, problem });
        }
        let table = self.handle.take().await?;
        let read = async {
            let columns: Vec<&str> = COLUMNS.into_iter().chain(["_distance"]).collect();
            let query =
                table.query().nearest_to(vector)?.column("embedding").distance_type(metric.distance());
            let query = query.limit(limit).select(Select::columns(&columns));
            let plan = query.explain_plan(false).await?;
            Ok((query.execute().await?.try_collect::<Vec<RecordBatch>>().await?, plan.contains("ANN")))
        };
        let (batches, used_index) = Box::pin(read).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        let neighbours = batches.iter().flat_map(|batch| {
            let distances = batch.column_by_name("_distance").expect("the column was asked for");
            let distances = distances.as_primitive::<Float32Type>().values().to_vec();
            let rows: Vec<StoredRow> = Columns::of(batch).rows().collect();
            rows.into_iter().zip(distances).map(|(row, distance)| Neighbour { row, distance })
        });
        Ok(Nearest { neighbours: neighbours.collect(), used_index })
    }

    /// Its size and the state of its indexes.
    pub async fn stats(&mut self) -> Result<TableStats, Error> {
        let table = self.handle.take().await?;
        let stats = stats::read(&table, &self.handle, "id").await?;
        self.handle.give(table);
        Ok(stats)
    }
}

fn dimensions(schema: &SchemaRef) -> Option<u16> {
    match schema.field_with_name("embedding").ok()?.data_type() {
        DataType::FixedSizeList(_, length) => u16::try_from(*length).ok(),
        _ => None,
    }
}
