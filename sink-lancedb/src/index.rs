//! The index over the embeddings.

use std::fmt;

use lancedb::{
    DistanceType, Table,
    index::{
        Index, IndexType,
        vector::{IvfFlatIndexBuilder, IvfHnswSqIndexBuilder, IvfPqIndexBuilder},
    },
};

/// How the distance between two embeddings is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The Euclidean distance.
    L2,
    /// 1 minus the cosine of the angle.
    Cosine,
    /// The negative inner product.
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

    /// How far two embeddings of one length are from each other, as pgvector gives it (LanceDB squares the Euclidean distance, and
    /// counts the inner product from 1 down). `NaN` for the cosine of a vector of zeros.
    pub(crate) fn between(self, one: &[f32], other: &[f32]) -> f64 {
        let pairs = || one.iter().zip(other).map(|(one, other)| (f64::from(*one), f64::from(*other)));
        let product = || pairs().map(|(one, other)| one * other).sum::<f64>();
        match self {
            Self::L2 => pairs().map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt(),
            Self::Dot => -product(),
            Self::Cosine => {
                let length = |of: &[f32]| of.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>();
                1.0 - (product() / (length(one) * length(other)).sqrt()).clamp(-1.0, 1.0)
            }
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

/// LanceDB's name of it.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.distance().fmt(f)
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

/// The index as configured. It has the name that LanceDB gives by itself, `embedding_idx`: one of another name is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// The kind of index.
    pub method: IndexMethod,
    /// The distance it is made for. A search by another one does not use it.
    pub metric: Metric,
    /// It is built once the table has so many rows; at least 256, for less cannot train one.
    pub min_rows: u32,
}

/// As LanceDB calls its kind and metric.
impl fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.method.index_type(), self.metric)
    }
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

/// How the index that is there stands to the one that is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFit {
    /// It is the one.
    Same,
    /// It has the name of the one and is another, by its kind or its metric. Upkeep replaces it.
    Replaced,
    /// It has another name, so somebody has made it by hand. It stays, and none is built beside it.
    ByHand,
}

impl IndexFound {
    /// How it stands to what is configured.
    pub fn fit(&self, spec: IndexSpec) -> IndexFit {
        if self.name != NAME {
            IndexFit::ByHand
        } else if self.method == spec.method.index_type().to_string()
            && self.metric.is_none_or(|metric| metric == spec.metric)
        {
            IndexFit::Same
        } else {
            IndexFit::Replaced
        }
    }
}

/// What LanceDB calls an index over the embeddings that is given no name.
const NAME: &str = "embedding_idx";

/// Rows without which none of the kinds can be trained.
const MIN_ROWS: u32 = 256;

impl IndexMethod {
    fn index_type(self) -> IndexType {
        match self {
            Self::IvfHnswSq => IndexType::IvfHnswSq,
            Self::IvfPq => IndexType::IvfPq,
            Self::IvfFlat => IndexType::IvfFlat,
        }
    }
}

impl IndexSpec {
    /// Whether the table has enough rows, and no index or one of another kind or metric that is not somebody's own.
    pub(crate) async fn is_wanted(self, table: &Table) -> lancedb::Result<bool> {
        let is_missing = find(table).await?.is_none_or(|found| found.fit(self) == IndexFit::Replaced);
        Ok(is_missing && table.count_rows(None).await? >= self.least_rows() as usize)
    }

    /// Whether a table that was just opened has something to do here: an index that [is wanted](Self::is_wanted), or as many rows
    /// beside it as make one worth its while.
    pub(crate) async fn is_due(self, table: &Table) -> lancedb::Result<bool> {
        let same = find(table).await?.filter(|found| found.fit(self) == IndexFit::Same);
        let is_behind = same.is_some_and(|found| found.rows_unindexed >= u64::from(self.least_rows()));
        Ok(is_behind || self.is_wanted(table).await?)
    }

    /// Builds the index if it [is wanted](Self::is_wanted).
    pub(crate) async fn ensure(self, table: &Table) -> lancedb::Result<()> {
        if !self.is_wanted(table).await? {
            return Ok(());
        }
        Box::pin(table.create_index(&["embedding"], self.builder()).replace(true).execute()).await
    }

    fn least_rows(self) -> u32 {
        self.min_rows.max(MIN_ROWS)
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

/// The vector index of a table, if it has one. Of several the connector's own.
pub(crate) async fn find(table: &Table) -> lancedb::Result<Option<IndexFound>> {
    let indexes = table.list_indices().await?.into_iter().filter(|index| index.columns == ["embedding"]);
    let Some(index) = indexes.min_by_key(|index| index.name != NAME) else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_mean_what_they_mean_in_postgres() {
        assert_eq!(Metric::L2.between(&[3.0, 0.0], &[0.0, 4.0]), 5.0);
        assert_eq!(Metric::Dot.between(&[1.0, 2.0], &[3.0, 4.0]), -11.0);
        assert_eq!(
            Metric::Dot.between(&[1e-9], &[1.0]),
            -f64::from(1e-9_f32),
            "a small product keeps its digits"
        );
        assert_eq!(Metric::Cosine.between(&[1.0, 0.0], &[0.0, 7.0]), 1.0);
        assert_eq!(Metric::Cosine.between(&[1.0, 1.0], &[-2.0, -2.0]), 2.0);
        assert!(Metric::Cosine.between(&[0.0], &[1.0]).is_nan());
    }
}
