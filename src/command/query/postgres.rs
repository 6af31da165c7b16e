//! What a query asks of PostgreSQL.

use sink_postgres_vector::{self as pg, Connection, Ident, Metric, Query, TableSpec, VectorTable, Wanted};

use super::{Answer, Found, Nearness};
use crate::command::failure::Failure;
use crate::config::{Settings, TableSettings};
use crate::error::ConnectorError;
use crate::target;

/// One table of the target.
pub(super) struct Target {
    connection: Connection,
    table: VectorTable,
    /// The metric of the index that is configured.
    configured: Option<Metric>,
}

impl Target {
    /// Connects, and checks that the table is there, has its shape and may be read.
    pub(super) async fn open(settings: &Settings, table: &TableSettings) -> Result<Self, Failure> {
        let connection = Connection::open(&target::connect_options(settings)).await?;
        let name = Ident::new(&table.name).map_err(|fault| ConnectorError::Defect(fault.to_string()))?;
        let spec = TableSpec { name, dimensions: table.dimensions };
        let checked = VectorTable::check_readable(connection.client(), &spec).await;
        let checked = checked.map_err(ConnectorError::from)?;
        Ok(Self { connection, table: checked, configured: table.index.map(|index| index.spec.metric) })
    }

    /// The row with this id, if there is one.
    pub(super) async fn row(&mut self, id: &str, with_vector: bool) -> Result<Answer, Failure> {
        self.ask(&Query { wanted: Wanted::Id(id), limit: 1, with_vector }).await
    }

    /// The first rows by their ids.
    pub(super) async fn rows(&mut self, limit: u32, with_vector: bool) -> Result<Answer, Failure> {
        self.ask(&Query { wanted: Wanted::All, limit, with_vector }).await
    }

    /// The rows nearest to a vector of the right dimension.
    pub(super) async fn near(
        &mut self,
        vector: &[f32],
        except: Option<&str>,
        limit: u32,
        with_vector: bool,
    ) -> Result<Answer, Failure> {
        let (metric, origin) = match self.configured {
            Some(metric) => (metric, "as `tables` in the configuration has it".to_owned()),
            None => match self.table.metric_of_an_index(&self.connection).await? {
                Some((index, metric)) => (metric, format!("as the index {index} has it")),
                None => (Metric::Cosine, "as no index says otherwise".to_owned()),
            },
        };
        let wanted = Wanted::Near { vector, metric, except };
        let found = self.table.ask(&mut self.connection, &Query { wanted, limit, with_vector }).await?;
        let nearness = Nearness {
            metric: metric.as_str(),
            operator: metric.operator(),
            origin,
            index: found.index.as_ref().map(|index| index.as_str().to_owned()),
            is_angular: metric == Metric::Cosine,
        };
        Ok(answer(found, Some(nearness)))
    }

    async fn ask(&mut self, query: &Query<'_>) -> Result<Answer, Failure> {
        Ok(answer(self.table.ask(&mut self.connection, query).await?, None))
    }

    pub(super) async fn close(self) {
        self.connection.close().await;
    }
}

fn answer(found: pg::Answer, nearness: Option<Nearness>) -> Answer {
    let row = |row: pg::FoundRow| Found {
        id: row.id,
        // A metric without an answer says NaN, which JSON cannot.
        distance: row.distance.filter(|distance| distance.is_finite()),
        timestamp: row.timestamp,
        source: row.source,
        text: row.text,
        metadata: row.metadata.and_then(|json| serde_json::value::RawValue::from_string(json).ok()),
        vector: row.vector,
    };
    Answer { rows: found.rows.into_iter().map(row).collect(), took: found.took, nearness }
}
