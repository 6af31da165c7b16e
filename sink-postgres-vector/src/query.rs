//! Rows read back, by key or by nearness, as people look for them. Nothing here writes.

use std::time::{Duration, Instant};

use tokio_postgres::{
    Client, Row,
    types::{Kind, ToSql, Type},
};

use crate::{
    connection::{Connection, Parameter},
    encode::Vector,
    error::Error,
    ident::Ident,
    index::Metric,
    table::VectorTable,
};

/// As many candidates an HNSW index looks at in one pass at most (`hnsw.ef_search`).
const MOST_CANDIDATES: u32 = 1000;

/// A question to a table.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// Which rows.
    pub wanted: Wanted<'a>,
    /// At most so many.
    pub limit: u32,
    /// Whether the rows come with their vectors.
    pub with_vector: bool,
}

/// Which rows are asked for.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// Any, in the order of their keys.
    All,
    /// The one with this key.
    Id(&'a str),
    /// Those nearest to a vector, the nearest first.
    Near {
        /// It has the table's dimension.
        vector: &'a [f32],
        /// What near means.
        metric: Metric,
        /// A key that is left out.
        except: Option<&'a str>,
    },
}

/// Rows as they were found.
pub struct Answer {
    /// In their order.
    pub rows: Vec<FoundRow>,
    /// How long the statement took, on its way there and back too.
    pub took: Duration,
    /// The vector index that it went by, if it did.
    pub index: Option<Ident>,
}

/// A row. It has no `Debug`, since that would show its values.
pub struct FoundRow {
    /// The key.
    pub id: String,
    /// The text.
    pub text: Option<String>,
    /// RFC 3339 in UTC, to the microsecond; or PostgreSQL's word for what that cannot say.
    pub timestamp: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// A JSON value.
    pub metadata: Option<String>,
    /// The vector, where it was asked for.
    pub vector: Option<Vec<f32>>,
    /// How far it is from the vector that was asked for. `NaN` where the metric has no answer.
    pub distance: Option<f64>,
}

/// Indexes of the table, or of its partitions, that know nearness: the name, the same as `explain` writes it, and what
/// it knows. Those that can be used come first.
const INDEXES: &str = r#"
select i.relname::text, pg_catalog.to_json(i.relname::text)::text, o.opcname::text
from pg_catalog.pg_index x
join pg_catalog.pg_class i on i.oid = x.indexrelid
join pg_catalog.pg_am m on m.oid = i.relam
join pg_catalog.pg_opclass o on o.oid = x.indclass[0]
join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
where (x.indrelid = $1::text::pg_catalog.regclass
       or x.indrelid in (select relid from pg_catalog.pg_partition_tree($1::text::pg_catalog.regclass)))
  and m.amname in ('hnsw', 'ivfflat') and a.attname = 'embedding' and x.indpred is null and x.indisvalid
order by x.indrelid = $1::text::pg_catalog.regclass desc, i.relname"#;

struct KnownIndex {
    name: Ident,
    explained: String,
    metric: Option<Metric>,
}

impl VectorTable {
    /// Asks for rows, in a transaction that is rolled back. The server plans as it does for everybody, and it is asked
    /// how it would: [`Answer::index`] is what its plan for this very statement names. An HNSW index is told to look at as
    /// many candidates as rows are asked for, 1000 at most; and from pgvector 0.8 on, to go on where that was not enough.
    ///
    /// Cancel-safe as [`Connection::begin`] is: dropping the future makes the connection unusable.
    pub async fn ask(&self, connection: &mut Connection, query: &Query<'_>) -> Result<Answer, Error> {
        let known = match query.wanted {
            Wanted::Near { .. } => self.known_indexes(connection).await?,
            Wanted::All | Wanted::Id(_) => Vec::new(),
        };
        let limit = i64::from(query.limit);
        let (sql, vector) = (self.query_sql(query), Vector(query.vector()));
        let parameters = self.parameters(query, &vector, &limit);
        let transaction = connection.begin().await?;
        let answer = async {
            let client = transaction.client();
            client.batch_execute(&self.settings(query)).await?;
            let plan = plan(client, &sql, &parameters).await?;
            let begun = Instant::now();
            let rows = client.query_typed(&sql, &parameters).await?;
            let took = begun.elapsed();
            let rows = rows.iter().map(|row| found(row, query)).collect::<Result<_, _>>()?;
            let names = |index: &&KnownIndex| plan.contains(&index.explained);
            let index = known.iter().find(names).map(|index| index.name.clone());
            Ok(Answer { rows, took, index })
        };
        let answer = transaction.during(format!("read the table {}", self.name()), answer).await?;
        transaction.rollback().await?;
        Ok(answer)
    }

    /// The first vector index that can be used, with its metric. `None` where there is none.
    pub async fn metric_of_an_index(
        &self,
        connection: &Connection,
    ) -> Result<Option<(Ident, Metric)>, Error> {
        let known = self.known_indexes(connection).await?;
        Ok(known.into_iter().find_map(|index| Some((index.name, index.metric?))))
    }

    async fn known_indexes(&self, connection: &Connection) -> Result<Vec<KnownIndex>, Error> {
        let table = self.qualified();
        let answer = async {
            let rows = connection.client().query_typed(INDEXES, &[(&table, Type::TEXT)]).await?;
            rows.iter().map(known_index).collect()
        };
        connection.during(format!("look for vector indexes of {}", self.name()), answer).await
    }

    fn query_sql(&self, query: &Query<'_>) -> String {
        let vector = if query.with_vector { "t.embedding::float4[]" } else { "null::float4[]" };
        let columns = format!(
            r#"t.id::text, t.text::text,
pg_catalog.to_json(pg_catalog.timezone('UTC', t."timestamp")) operator(pg_catalog.#>>) '{{}}',
t.source::text, t.metadata::text, {vector}"#
        );
        let table = self.qualified();
        match query.wanted {
            Wanted::All => format!("select {columns} from {table} as t order by t.id limit $1"),
            Wanted::Id(_) => format!("select {columns} from {table} as t where t.id = $2 limit $1"),
            Wanted::Near { metric, except, .. } => {
                let distance = format!("t.embedding operator({}.{}) $2", self.extension(), metric.operator());
                let condition = if except.is_some() { "where t.id <> $3 " } else { "" };
                format!(
                    "select {columns}, {distance} from {table} as t {condition}order by {distance} limit $1"
                )
            }
        }
    }

    /// A session of ours prefers keys to reading from end to end, which is not how others would be served.
    fn settings(&self, query: &Query<'_>) -> String {
        let mut settings =
            "set local enable_seqscan to default; set local max_parallel_workers_per_gather to default"
                .to_owned();
        if !matches!(query.wanted, Wanted::Near { .. }) {
            return settings;
        }
        // One is left out, perhaps. What the role has is not lowered: it would find less than others do.
        let candidates = query.limit.saturating_add(1).min(MOST_CANDIDATES);
        // The extension's library knows its settings only once it is loaded, which a value of its type does. Rows that were
        // deleted, and the one that is left out, are candidates too; only `strict_order` makes up for them, in order.
        settings.push_str(&format!(
            "; select '[0]'::{}.vector; \
             select pg_catalog.set_config(name, greatest(setting::int, {candidates})::text, true) \
             from pg_catalog.pg_settings where name = 'hnsw.ef_search'; \
             select pg_catalog.set_config(name, 'strict_order', true) \
             from pg_catalog.pg_settings where name = 'hnsw.iterative_scan' and setting = 'off'",
            self.extension()
        ));
        settings
    }

    fn parameters<'p>(
        &self,
        query: &'p Query<'_>,
        vector: &'p Vector<'_>,
        limit: &'p i64,
    ) -> Vec<Parameter<'p>> {
        let mut parameters: Vec<Parameter<'p>> = vec![(limit, Type::INT8)];
        match &query.wanted {
            Wanted::All => {}
            Wanted::Id(id) => parameters.push((id, Type::TEXT)),
            Wanted::Near { except, .. } => {
                let element = match self.vector_array().kind() {
                    Kind::Array(element) => element.clone(),
                    _ => unreachable!("it is the type of an array"),
                };
                parameters.push((vector, element));
                if let Some(id) = except {
                    parameters.push((id as &(dyn ToSql + Sync), Type::TEXT));
                }
            }
        }
        parameters
    }
}

impl<'a> Query<'a> {
    fn vector(&self) -> &'a [f32] {
        match self.wanted {
            Wanted::Near { vector, .. } => vector,
            Wanted::All | Wanted::Id(_) => &[],
        }
    }
}

/// The names of the indexes in the server's plan, as it writes them.
async fn plan(
    client: &Client,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let explain = format!("explain (format yaml, costs off) {sql}");
    let mut names = Vec::new();
    for row in client.query_typed(&explain, parameters).await? {
        let text: &str = row.try_get(0)?;
        names.extend(
            text.lines().filter_map(|line| Some(line.trim().strip_prefix("Index Name: ")?.to_owned())),
        );
    }
    Ok(names)
}

fn known_index(row: &Row) -> Result<KnownIndex, tokio_postgres::Error> {
    Ok(KnownIndex {
        name: Ident::new(row.try_get::<_, String>(0)?).expect("a name from the catalog is a name"),
        explained: row.try_get(1)?,
        metric: Metric::of_operator_class(row.try_get(2)?),
    })
}

fn found(row: &Row, query: &Query<'_>) -> Result<FoundRow, tokio_postgres::Error> {
    let timestamp: Option<String> = row.try_get(2)?;
    let is_time = |text: &String| text.ends_with(|c: char| c.is_ascii_digit());
    Ok(FoundRow {
        id: row.try_get(0)?,
        text: row.try_get(1)?,
        timestamp: timestamp.map(|text| if is_time(&text) { text + "Z" } else { text }),
        source: row.try_get(3)?,
        metadata: row.try_get(4)?,
        vector: row.try_get(5)?,
        distance: if matches!(query.wanted, Wanted::Near { .. }) { row.try_get(6)? } else { None },
    })
}
