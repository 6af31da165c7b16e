//! Looking into a target table: rows, or the nearest to a vector.
//!
//! What is asked of a target stands in `postgres.rs` and `lancedb.rs`, and nowhere else here.

#[cfg(feature = "lancedb")]
mod lancedb;
mod postgres;
mod print;

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::failure::{self, Failure};
use super::files::Files;
use crate::config::{Settings, TableSettings, TargetSettings, nearest};
use crate::decode;
use crate::error::ConnectorError;

/// As many neighbours are given at most: an HNSW index of pgvector looks at no more candidates at once.
const MOST_NEIGHBOURS: u32 = 1000;

/// What `embedsink query` is asked for.
#[derive(Debug, Args)]
pub struct QueryOptions {
    /// Which connector.
    #[command(flatten)]
    files: Files,
    /// One of its tables.
    #[arg(value_name = "TABLE")]
    table: String,
    /// The row with this id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["near_id", "near"])]
    id: Option<String>,
    /// The rows nearest to the one with this id, which is left out.
    #[arg(long, value_name = "ID", conflicts_with = "near")]
    near_id: Option<String>,
    /// The rows nearest to this vector, a JSON array; `-` reads it from standard input.
    #[arg(long, value_name = "VECTOR", allow_hyphen_values = true)]
    near: Option<String>,
    /// At most so many rows. Neighbours: 1000 at most.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print each row whole, as a JSON object a line, and then one with how it was found.
    #[arg(long)]
    json: bool,
    /// The vectors, too.
    #[arg(long, requires = "json")]
    with_vector: bool,
}

/// A row as it is printed.
#[derive(Serialize)]
struct Found {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f64>,
    timestamp: Option<String>,
    source: Option<String>,
    text: Option<String>,
    metadata: Option<Box<RawValue>>,
    #[serde(rename = "embedding", skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

/// What came of a question.
struct Answer {
    rows: Vec<Found>,
    took: Duration,
    /// How near was measured, where that was asked.
    nearness: Option<Nearness>,
}

/// How near was measured.
struct Nearness {
    metric: &'static str,
    /// pgvector's operator for it.
    operator: Option<&'static str>,
    /// Why by this one, in words.
    origin: String,
    /// The vector index that was used.
    index: Option<String>,
    /// The metric is one of angles: a vector of zeros has none.
    is_angular: bool,
}

/// One table of the target.
enum Target {
    Database(Box<postgres::Database>),
    #[cfg(feature = "lancedb")]
    Dataset(lancedb::Dataset),
}

impl Target {
    /// Checks that the table is there, has its shape and may be read.
    async fn open(settings: &Settings, table: &TableSettings) -> Result<Self, Failure> {
        match &settings.target {
            TargetSettings::Postgres(server) => {
                let opened = postgres::Database::open(settings, server, table).await?;
                Ok(Self::Database(Box::new(opened)))
            }
            #[cfg(feature = "lancedb")]
            TargetSettings::Lance(dataset) => lancedb::Dataset::open(dataset, table).await.map(Self::Dataset),
            // The configuration refuses it before.
            #[cfg(not(feature = "lancedb"))]
            TargetSettings::Lance(_) => Err(ConnectorError::Defect("no LanceDB in it".to_owned()).into()),
        }
    }

    /// The row with this id, if there is one.
    async fn row(&mut self, id: &str, with_vector: bool) -> Result<Answer, Failure> {
        match self {
            Self::Database(database) => database.row(id, with_vector).await,
            #[cfg(feature = "lancedb")]
            Self::Dataset(dataset) => dataset.row(id, with_vector).await,
        }
    }

    /// Some rows.
    async fn rows(&mut self, limit: u32, with_vector: bool) -> Result<Answer, Failure> {
        match self {
            Self::Database(database) => database.rows(limit, with_vector).await,
            #[cfg(feature = "lancedb")]
            Self::Dataset(dataset) => dataset.rows(limit, with_vector).await,
        }
    }

    /// The rows nearest to a vector of the right dimension.
    async fn near(
        &mut self,
        vector: &[f32],
        except: Option<&str>,
        limit: u32,
        with_vector: bool,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Database(database) => database.near(vector, except, limit, with_vector).await,
            #[cfg(feature = "lancedb")]
            Self::Dataset(dataset) => dataset.near(vector, except, limit, with_vector).await,
        }
    }

    async fn close(self) {
        match self {
            Self::Database(database) => database.close().await,
            #[cfg(feature = "lancedb")]
            Self::Dataset(_) => {}
        }
    }
}

/// Asks and prints. Returns the exit code: 0 done, 1 failed, 78 bad configuration, which is also where a right is missing
/// or the table does not fit.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub async fn query(options: &QueryOptions) -> io::Result<u8> {
    failure::report(ask(options).await)
}

async fn ask(options: &QueryOptions) -> Result<(), Failure> {
    let settings = Settings::from_file(&options.files.config, options.files.secrets.as_deref());
    let settings = settings.map_err(ConnectorError::from)?;
    let Some(table) = settings.tables.iter().find(|table| table.name == options.table) else {
        return Err(no_such_table(&settings, &options.table));
    };
    let is_near = options.near.is_some() || options.near_id.is_some();
    if is_near && options.limit > MOST_NEIGHBOURS {
        let why = format!("--limit is {}, and {MOST_NEIGHBOURS} neighbours are given at most", options.limit);
        return Err(Failure::Refused(why));
    }
    // What is wrong with the vector is said before anything is connected.
    let given = options.near.as_deref().map(|text| read_vector(text, table.dimensions)).transpose()?;
    let mut target = Target::open(&settings, table).await?;
    let answer = match (&options.id, &options.near_id, given) {
        (Some(id), ..) => {
            let answer = target.row(id, options.with_vector).await?;
            if answer.rows.is_empty() {
                return Err(no_such_row(&options.table, id));
            }
            answer
        }
        (None, Some(id), _) => {
            let mut found = target.row(id, true).await?;
            let row = found.rows.pop().ok_or_else(|| no_such_row(&options.table, id))?;
            let Some(vector) = row.vector else {
                return Err(Failure::Refused(format!("the row {id:?} of {} has no vector", options.table)));
            };
            neighbours(&mut target, &vector, Some(id), options).await?
        }
        (None, None, Some(vector)) => neighbours(&mut target, &vector, None, options).await?,
        (None, None, None) => target.rows(options.limit, options.with_vector).await?,
    };
    target.close().await;
    print::print(options, &answer)
}

async fn neighbours(
    target: &mut Target,
    vector: &[f32],
    except: Option<&str>,
    options: &QueryOptions,
) -> Result<Answer, Failure> {
    let answer = target.near(vector, except, options.limit, options.with_vector).await?;
    if answer.nearness.as_ref().is_some_and(|nearness| nearness.is_angular)
        && vector.iter().all(|n| *n == 0.0)
    {
        let why = "the vector is all zeros, which has no direction: no cosine distance to it is defined";
        return Err(Failure::Refused(why.to_owned()));
    }
    Ok(answer)
}

fn no_such_table(settings: &Settings, table: &str) -> Failure {
    let names = || settings.tables.iter().map(|table| table.name.as_str());
    let hint = match nearest(table, names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("its tables are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Failure::Refused(format!("the connector {} has no table {table:?}; {hint}", settings.connector))
}

fn no_such_row(table: &str, id: &str) -> Failure {
    Failure::Refused(format!("the table {table} has no row with the id {id:?}"))
}

/// The vector that is given, or stands on standard input.
fn read_vector(text: &str, dimensions: u16) -> Result<Vec<f32>, Failure> {
    match text {
        "-" => {
            let mut typed = Vec::new();
            io::stdin().lock().read_to_end(&mut typed).map_err(|error| {
                Failure::Refused(format!("the vector cannot be read from standard input: {error}"))
            })?;
            parse_vector(&typed, dimensions)
        }
        text => parse_vector(text.as_bytes(), dimensions),
    }
}

fn parse_vector(bytes: &[u8], dimensions: u16) -> Result<Vec<f32>, Failure> {
    let unusable = |why: &str| {
        Failure::Refused(format!("the vector cannot be used: {why}. Give a JSON array, such as '[0.1, 0.2]'"))
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| unusable("what was given for --near is no text in UTF-8, and so no JSON"))?;
    let mut vector = Vec::new();
    decode::vector(text, &mut vector)
        .map_err(|reject| unusable(&reject.message.replace("`embedding`", "--near")))?;
    if vector.len() != usize::from(dimensions) {
        let why =
            format!("--near has {} numbers, and the vectors of the table have {dimensions}", vector.len());
        return Err(Failure::Refused(why));
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read_vector(text, 2).expect_err(text).to_string()
    }

    #[test]
    fn a_vector_that_is_no_text_is_refused_with_what_to_give() {
        let why = parse_vector(b"\xff\xfe[1, 2]", 2).unwrap_err().to_string();
        assert!(why.contains("--near is no text in UTF-8") && why.contains("Give a JSON array"), "{why}");
    }

    #[test]
    fn a_vector_is_an_array_of_as_many_finite_numbers_as_the_table_has() {
        assert_eq!(read_vector(" [0.5, -1e-3] ", 2).unwrap(), [0.5, -0.001]);
        for (text, part) in [
            ("[1]", "has 1 numbers, and the vectors of the table have 2"),
            ("[]", "has 0 numbers"),
            ("[1, 1e39]", "too large for a 32-bit float"),
            ("[1, NaN]", "--near"),
            ("[1, 2] x", "follows"),
            ("1, 2", "--near is not an array"),
            ("", "cannot be used"),
        ] {
            let said = refused(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
