//! What a query asks of a LanceDB dataset.

use std::time::Instant;

use sink_lancedb::{Error, Metric, Mismatch, StoredRow, VectorReader};

use super::{Answer, Found, Nearness};
use crate::command::failure::Failure;
use crate::config::{LanceSettings, TableSettings};
use crate::target::lancedb::{self, failed};

/// One table of the dataset. Whoever writes it is not disturbed.
pub(super) struct Dataset {
    reader: VectorReader,
    /// The metric of the index that is configured.
    configured: Option<Metric>,
}

impl Dataset {
    /// Checks that the table is there and has its shape.
    pub(super) async fn open(settings: &LanceSettings, table: &TableSettings) -> Result<Self, Failure> {
        let dataset = lancedb::dataset(settings)?;
        let reader = VectorReader::open(&dataset, &table.name).await.map_err(failed)?;
        if reader.dimensions() != table.dimensions {
            let (there, wanted) = (reader.dimensions(), table.dimensions);
            let mismatch = Mismatch {
                problem: format!("Its vectors have {there} dimensions, not {wanted}."),
                fix: format!(
                    "If {there} are right, configure them instead of {wanted}. Else name another table."
                ),
            };
            return Err(
                failed(Error::Mismatches { table: table.name.clone(), mismatches: vec![mismatch] }).into()
            );
        }
        Ok(Self { reader, configured: table.lance_index.map(lancedb::metric) })
    }

    /// The row with this id, if there is one.
    pub(super) async fn row(&mut self, id: &str, with_vector: bool) -> Result<Answer, Failure> {
        let asked = Instant::now();
        let rows = self.reader.by_id(&[id]).await.map_err(failed)?;
        Ok(answer(rows, with_vector, asked))
    }

    /// Some rows, in no particular order.
    pub(super) async fn rows(&mut self, limit: u32, with_vector: bool) -> Result<Answer, Failure> {
        let asked = Instant::now();
        let rows = self.reader.some(limit as usize).await.map_err(failed)?;
        Ok(answer(rows, with_vector, asked))
    }

    /// The rows nearest to a vector of the right dimension.
    pub(super) async fn near(
        &mut self,
        vector: &[f32],
        except: Option<&str>,
        limit: u32,
        with_vector: bool,
    ) -> Result<Answer, Failure> {
        let index = self.reader.stats().await.map_err(failed)?.vector_index;
        let of_index = index.as_ref().and_then(|index| Some((index.name.as_str(), index.metric?)));
        let (metric, origin) = match (self.configured, of_index) {
            (Some(metric), _) => (metric, "as `tables` in the configuration has it".to_owned()),
            (None, Some((name, metric))) => (metric, format!("as the index {name} has it")),
            (None, None) => (Metric::Cosine, "as no index says otherwise".to_owned()),
        };
        // The one that is left out may be among them.
        let wanted = limit as usize + usize::from(except.is_some());
        let asked = Instant::now();
        let nearest = self.reader.nearest(vector, wanted, metric).await.map_err(failed)?;
        let took = asked.elapsed();
        let neighbours = nearest.neighbours.into_iter();
        let rows = neighbours
            .filter(|neighbour| except != Some(neighbour.row.id.as_str()))
            .take(limit as usize)
            .map(|neighbour| {
                let distance = distance(metric, neighbour.distance);
                Found {
                    distance: distance.is_finite().then_some(distance),
                    ..found(neighbour.row, with_vector)
                }
            });
        let nearness = Nearness {
            metric: match metric {
                Metric::L2 => "l2",
                Metric::Cosine => "cosine",
                Metric::Dot => "inner-product",
            },
            operator: None,
            origin,
            index: index.filter(|_| nearest.used_index).map(|index| index.name),
            is_angular: metric == Metric::Cosine,
        };
        Ok(Answer { rows: rows.collect(), took, nearness: Some(nearness) })
    }
}

/// The distance as pgvector's operators give it: LanceDB squares the Euclidean one, and counts the inner product from 1 down.
fn distance(metric: Metric, given: f32) -> f64 {
    let given = f64::from(given);
    match metric {
        Metric::L2 => given.max(0.0).sqrt(),
        Metric::Cosine => given,
        Metric::Dot => given - 1.0,
    }
}

fn answer(rows: Vec<StoredRow>, with_vector: bool, asked: Instant) -> Answer {
    let took = asked.elapsed();
    Answer { rows: rows.into_iter().map(|row| found(row, with_vector)).collect(), took, nearness: None }
}

fn found(row: StoredRow, with_vector: bool) -> Found {
    let timestamp = row.timestamp.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    Found {
        id: row.id,
        distance: None,
        timestamp: timestamp.map(|timestamp| timestamp.to_string()),
        source: row.source,
        text: row.text,
        metadata: row.metadata.and_then(|json| serde_json::value::RawValue::from_string(json).ok()),
        vector: with_vector.then_some(row.embedding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_mean_what_they_mean_in_postgres() {
        assert_eq!(distance(Metric::L2, 25.0), 5.0);
        assert_eq!(distance(Metric::Cosine, 0.25), 0.25);
        assert_eq!(distance(Metric::Dot, -2.0), -3.0, "an inner product of 3");
    }
}
