//! What a query asks of a LanceDB dataset.

use std::time::Instant;

use serde_json::value::{RawValue, to_raw_value};
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

    /// The first rows by their ids.
    pub(super) async fn rows(&mut self, limit: u32, with_vector: bool) -> Result<Answer, Failure> {
        let asked = Instant::now();
        let rows = self.reader.first(limit as usize).await.map_err(failed)?;
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
        let index = self.reader.vector_index().await.map_err(failed)?;
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
            .map(|neighbour| Found {
                distance: neighbour.distance.is_finite().then_some(neighbour.distance),
                ..found(neighbour.row, with_vector)
            });
        let nearness = Nearness {
            metric: match metric {
                Metric::L2 => "l2",
                Metric::Cosine => "cosine",
                Metric::Dot => "inner product",
            },
            operator: None,
            origin,
            index: index.filter(|_| nearest.used_index).map(|index| index.name),
            is_angular: metric == Metric::Cosine,
        };
        Ok(Answer { rows: rows.collect(), took, nearness: Some(nearness) })
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
        metadata: row.metadata.and_then(|text| json(&text)),
        // Rows of somebody else may have none.
        vector: (with_vector && !row.embedding.is_empty()).then_some(row.embedding),
    }
}

/// A column's text as JSON on one line; as a JSON string, should somebody else have stored what is none.
fn json(text: &str) -> Option<Box<RawValue>> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => RawValue::from_string(on_one_line(value.get())).ok(),
        Err(_) => to_raw_value(text).ok(),
    }
}

/// JSON without the spaces around its parts. Numbers and strings stay as they are written.
fn on_one_line(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_kept = |c: &char| {
        let is_kept = in_string || !c.is_ascii_whitespace();
        in_string = if escaped { in_string } else { in_string != (*c == '"') };
        escaped = in_string && !escaped && *c == '\\';
        is_kept
    };
    json.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_on_one_line_whatever_was_stored() {
        let of = |text: &str| json(text).expect("it is shown").get().to_owned();
        assert_eq!(of("{\n  \"a b\" : [ 1.10,\t\"x \\\" y\" ]\r\n}"), r#"{"a b":[1.10,"x \" y"]}"#);
        assert_eq!(of(r#"{"a\\" : "b c"}"#), r#"{"a\\":"b c"}"#);
        assert_eq!(of("no json\n"), r#""no json\n""#);
    }
}
