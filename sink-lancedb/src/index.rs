//! The index over the embeddings.

use lancedb::{
    DistanceType,
    index::{
        Index,
        vector::{IvfFlatIndexBuilder, IvfHnswSqIndexBuilder, IvfPqIndexBuilder},
    },
};

use crate::{error::Error, handle::Handle, upkeep::index_on};

/// How the distance between two embeddings is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The Euclidean distance, squared as LanceDB returns it.
    L2,
    /// 1 minus the cosine of the angle.
    Cosine,
    /// 1 minus the inner product.
    Dot,
}

impl Metric {
    pub(crate) fn distance(self) -> DistanceType {
        match self {
            Self::L2 => DistanceType::L2,
            Self::Cosine => DistanceType::Cosine,
            Self::Dot => DistanceType::Dot,
        }
    }

    fn of(distance: DistanceType) -> Option<Self> {
        match distance {
            DistanceType::L2 => Some(Self::L2),
            DistanceType::Cosine => Some(Self::Cosine),
            DistanceType::Dot => Some(Self::Dot),
            _ => None,
        }
    }
}

/// The kind of index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexMethod {
    /// Graphs over numbers of 8 bits: fast and exact enough for most, a quarter of the embeddings' size.
    IvfHnswSq,
    /// Product quantization: the smallest, the least exact.
    IvfPq,
    /// Whole embeddings in groups: the largest, exact within the groups that are searched.
    IvfFlat,
}

/// The index as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// The kind of index.
    pub method: IndexMethod,
    /// The distance it is made for. A search by another one does not use it.
    pub metric: Metric,
    /// It is built once the table has so many rows; at least 256, for less cannot train one.
    pub min_rows: u32,
}

/// The index as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexFound {
    /// Its name.
    pub name: String,
    /// LanceDB's name of its kind.
    pub method: String,
    /// The distance it is made for.
    pub metric: Option<Metric>,
    /// Rows in it, some of which may have been deleted since.
    pub rows_indexed: u64,
    /// Rows written since its last refresh. A search looks through them one by one.
    pub rows_unindexed: u64,
    /// Pieces it is in.
    pub pieces: u32,
}

/// Rows without which none of the kinds can be trained.
const MIN_ROWS: u32 = 256;

impl IndexSpec {
    /// Builds the index if the table has enough rows and none is there. Returns whether it was built. An index that is
    /// there stays, of whatever kind.
    pub(crate) async fn ensure(self, handle: &mut Handle) -> Result<bool, Error> {
        let failed = |error| Error::engine("build the vector index", &error);
        let table = handle.take().await?;
        let rows = table.count_rows(None).await.map_err(handle.reading())?;
        let enough = rows >= self.min_rows.max(MIN_ROWS) as usize;
        let build = enough && index_on(&table, "embedding").await.map_err(handle.reading())?.is_none();
        if build {
            Box::pin(table.create_index(&["embedding"], self.builder()).execute()).await.map_err(failed)?;
        }
        handle.give(table);
        Ok(build)
    }

    fn builder(self) -> Index {
        let distance = self.metric.distance();
        match self.method {
            IndexMethod::IvfHnswSq => {
                Index::IvfHnswSq(IvfHnswSqIndexBuilder::default().distance_type(distance))
            }
            IndexMethod::IvfPq => Index::IvfPq(IvfPqIndexBuilder::default().distance_type(distance)),
            IndexMethod::IvfFlat => Index::IvfFlat(IvfFlatIndexBuilder::default().distance_type(distance)),
        }
    }
}

/// The vector index of a table, if it has one.
pub(crate) async fn find(table: &lancedb::Table) -> lancedb::Result<Option<IndexFound>> {
    let Some(index) = index_on(table, "embedding").await? else { return Ok(None) };
    let known = table.index_stats(&index.name).await?;
    Ok(Some(IndexFound {
        method: index.index_type.to_string(),
        metric: known.as_ref().and_then(|known| known.distance_type).and_then(Metric::of),
        rows_indexed: index.num_indexed_rows.unwrap_or(0),
        rows_unindexed: index.num_unindexed_rows.unwrap_or(0),
        pieces: index.num_segments.unwrap_or(0),
        name: index.name,
    }))
}
