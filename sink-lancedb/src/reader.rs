//! Looking into a table of embeddings, beside whoever writes it.

use futures_util::TryStreamExt;
use lancedb::{
    Table,
    arrow::{
        arrow_array::RecordBatch,
        arrow_schema::{DataType, SchemaRef},
    },
    query::{ColumnOrdering, ExecutableQuery, QueryBase, Select},
};

use crate::{
    contract,
    dataset::Dataset,
    error::Error,
    handle::Handle,
    index::{self, IndexFound, Metric},
    row::StoredRow,
    stats::{self, TableStats},
    stored::{self, COLUMNS, Columns, with_keys},
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
    /// How far it is, by the metric asked for: of the embedding itself, also where an index found it that knows only roughly.
    pub distance: f64,
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

    /// The rows with these keys, in the order of their keys. Keys that are not there are no error.
    pub async fn by_id(&mut self, ids: &[&str]) -> Result<Vec<StoredRow>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.handle.take().await?;
        let query = table.query().only_if_expr(with_keys("id", ids.iter().copied()));
        let rows = self.rows(query.select(Select::columns(&COLUMNS))).await?;
        self.handle.give(table);
        Ok(rows)
    }

    /// The first rows by their keys, as many as `limit`. Of all others only the keys are read.
    pub async fn first(&mut self, limit: usize) -> Result<Vec<StoredRow>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let table = self.handle.take().await?;
        let failed = self.handle.reading();
        // All of it from one version: places are good for no other.
        table.checkout(table.version().await.map_err(&failed)?).await.map_err(&failed)?;
        let rows = self.first_of(&table, limit).await?;
        table.checkout_latest().await.map_err(&failed)?;
        self.handle.give(table);
        Ok(rows)
    }

    async fn first_of(&self, table: &Table, limit: usize) -> Result<Vec<StoredRow>, Error> {
        if table.count_rows(None).await.map_err(self.handle.reading())? <= limit {
            return self.rows(table.query().select(Select::columns(&COLUMNS))).await;
        }
        let by_key = ColumnOrdering::asc_nulls_last("id".to_owned());
        let query = table.query().select(Select::columns(&["id"])).with_row_id();
        let query = query.order_by(Some(vec![by_key])).limit(limit);
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = Box::pin(read).await.map_err(self.handle.reading())?;
        let places = batches.iter().flat_map(stored::places).collect();
        self.rows(table.take_row_ids(places).select(Select::columns(&COLUMNS))).await
    }

    /// What a query for [`COLUMNS`] finds, sorted.
    async fn rows(&self, query: impl ExecutableQuery) -> Result<Vec<StoredRow>, Error> {
        let read = async { query.execute().await?.try_collect::<Vec<RecordBatch>>().await };
        let batches = Box::pin(read).await.map_err(self.handle.reading())?;
        let rows = batches.iter().flat_map(|batch| Columns::of(batch).rows().collect::<Vec<_>>());
        let mut rows: Vec<StoredRow> = rows.collect();
        rows.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(rows)
    }

    /// The vector index, if there is one. Of several the connector's own.
    pub async fn vector_index(&mut self) -> Result<Option<IndexFound>, Error> {
        let table = self.handle.take().await?;
        let found = index::find(&table).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        Ok(found)
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
            // Candidates are compared by their embeddings, and not only by what the index keeps of these.
            let query = query.refine_factor(1).limit(limit).select(Select::columns(&columns));
            let plan = query.explain_plan(false).await?;
            let used_index = plan.lines().any(|line| line.trim_start().starts_with("ANN"));
            Ok((query.execute().await?.try_collect::<Vec<RecordBatch>>().await?, used_index))
        };
        let (batches, used_index) = Box::pin(read).await.map_err(self.handle.reading())?;
        self.handle.give(table);
        let rows = batches.iter().flat_map(|batch| Columns::of(batch).rows().collect::<Vec<_>>());
        let neighbour = |row: StoredRow| Neighbour { distance: metric.between(&row.embedding, vector), row };
        let mut neighbours: Vec<Neighbour> = rows.map(neighbour).collect();
        neighbours.sort_by(|one, other| one.distance.total_cmp(&other.distance));
        Ok(Nearest { neighbours, used_index })
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
