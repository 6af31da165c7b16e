//! The same records from Kafka into each target, and the same rows by LanceDB's own bulk add: in turn, round by round.
//!
//! `make bench-lancedb` runs it. `ROWS` says how many records (100,000), `ROUNDS` how often (3).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by a panic")]

#[allow(dead_code, reason = "the other benchmark uses the rest of it")]
#[path = "rates/sample.rs"]
mod sample;
#[allow(dead_code, reason = "shared with the tests, which use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lancedb::arrow::arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchIterator, StringArray,
    TimestampNanosecondArray,
};
use lancedb::arrow::arrow_schema::{DataType, Field, Schema, TimeUnit};
use sink_lancedb::{Dataset, DatasetOptions, KeyedReader, KeyedSpec, Kind, Upkeep, Value, VectorReader};

use sample::{Row, Rows, Version, id};
use support::connector::{Connector, Process};
use support::kafka::{Topic, TopicProducer};
use support::postgres::{Database, one, settled};
use support::record::Shape;
use support::servers::OwnServer;

const DIMENSIONS: usize = 384;
const TARGET: Shape =
    Shape { tables: &[("embeddings", DIMENSIONS)], partitions: 4, ids: 0, tombstones: 0, damaged: 0 };
/// How many rows go into one call of the bulk add: what a batch of the connector holds at most.
const BULK: usize = 10_000;
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("nothing is measured in a test; run make bench-lancedb");
    }
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(number("ROWS", 100_000), number("ROUNDS", 3)));
}

async fn measure(count: usize, rounds: usize) {
    let (kafka, postgres) = (OwnServer::start("kafka", "bench"), OwnServer::start("postgres", "bench"));
    let rows = Rows::new(DIMENSIONS);
    let topic = Topic::create_on(kafka.port(), TARGET.partitions).await;
    fill(&topic, &rows, count);
    let mut rates: [Vec<f64>; 5] = Default::default();
    for round in 0..=rounds {
        let found = [
            into_postgres(postgres.port(), &topic, count).await,
            into_lancedb(&topic, count).await,
            bulk_add(&rows, count).await,
        ];
        // Of the first round only the servers and caches are the wiser.
        if round > 0 {
            let [[fresh_postgres, again_postgres], [fresh_lance, again_lance], [bulk, _]] = found;
            for (rates, rate) in
                rates.iter_mut().zip([fresh_postgres, again_postgres, fresh_lance, again_lance, bulk])
            {
                rates.push(rate);
            }
        }
    }
    let names = [
        "Kafka into PostgreSQL, fresh",
        "Kafka into PostgreSQL, unchanged",
        "Kafka into LanceDB, fresh",
        "Kafka into LanceDB, unchanged",
        "LanceDB's own bulk add, from memory",
    ];
    println!(
        "\n| {count} rows of {DIMENSIONS} dimensions | rows a second | least | most |\n|---|---|---|---|"
    );
    for (name, rates) in names.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} |",
            rates[rates.len() / 2],
            rates[0],
            rates[rates.len() - 1]
        );
    }
}

fn fill(topic: &Topic, rows: &Rows, count: usize) {
    let (producer, mut payload) = (TopicProducer::new(topic), Vec::new());
    for number in 0..count {
        let row = rows.row(number, Version::default());
        row.render(&mut payload);
        let partition = (number % TARGET.partitions as usize) as i32;
        producer.send(partition, row.timestamp / 1000, Some(id(number).as_bytes()), Some(&payload));
    }
    producer.finish();
}

/// Rows a second, for a table that is empty and for one that has them all.
async fn into_postgres(port: u16, topic: &Topic, count: usize) -> [f64; 2] {
    let database = Database::create_on(port).await;
    Connector::new(topic, &database, &TARGET).migrate().await;
    let client = database.connect().await;
    let mut rates = [0.0; 2];
    for (run, rate) in rates.iter_mut().enumerate() {
        let connector = Connector::new(topic, &database, &TARGET);
        *rate = drain(&connector, count, async || settled(&client).await as usize - run * count).await;
    }
    assert_eq!(one::<i64>(&client, "select count(*) from embeddings").await, count as i64);
    rates
}

async fn into_lancedb(topic: &Topic, count: usize) -> [f64; 2] {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
    let dataset = || Dataset::open(DatasetOptions::new(folder.to_str().unwrap())).unwrap();
    let mut rates = [0.0; 2];
    for (run, rate) in rates.iter_mut().enumerate() {
        let mut connector = Connector::on_lance(topic, &TARGET);
        connector.postgres = format!("uri: {}\n", folder.display());
        *rate = drain(&connector, count, async || stored(&dataset()).await - run * count).await;
    }
    let rows = VectorReader::open(&dataset(), "embeddings").await.unwrap().stats().await.unwrap().rows;
    assert_eq!(rows, count as u64);
    std::fs::remove_dir_all(&folder).unwrap();
    rates
}

/// Records that are settled in a dataset, by all connectors.
async fn stored(dataset: &Dataset) -> usize {
    let columns = [
        ("connector", Kind::Text),
        ("topic", Kind::Text),
        ("partition", Kind::Integer),
        ("next_offset", Kind::Integer),
        ("epoch", Kind::Integer),
        ("last_offset", Kind::Integer),
        ("last_timestamp", Kind::Integer),
        ("created_at", Kind::Timestamp),
        ("updated_at", Kind::Timestamp),
    ];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind)).into();
    let spec = KeyedSpec { name: "embedsink_offsets".to_owned(), columns, upkeep: Upkeep::default() };
    let Ok(mut reader) = KeyedReader::open(dataset, spec).await else { return 0 };
    let rows = reader.all(None).await.unwrap();
    rows.iter().map(|row| if let Value::Integer(next) = row.values[3] { next as usize } else { 0 }).sum()
}

/// Rows a second, from the start of the process to the last record settled.
async fn drain(connector: &Connector, count: usize, mut settled: impl AsyncFnMut() -> usize) -> f64 {
    let since = Instant::now();
    let process: Process = connector.start();
    while settled().await < count {
        tokio::time::sleep(LOOK).await;
    }
    let rate = count as f64 / since.elapsed().as_secs_f64();
    process.stop().await;
    rate
}

/// The rows in Arrow's form, added in calls of [`BULK`].
async fn bulk_add(rows: &Rows, count: usize) -> [f64; 2] {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bulk-{}", std::process::id()));
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("embedding", DataType::FixedSizeList(Arc::clone(&item), DIMENSIONS as i32), true),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("source", DataType::Utf8, true),
        Field::new("metadata", DataType::Utf8, true),
    ]));
    let all: Vec<Row> = (0..count).map(|number| rows.row(number, Version::default())).collect();
    let batches: Vec<RecordBatch> = all
        .chunks(BULK)
        .map(|rows| {
            let text = |of: fn(&Row) -> &str| {
                Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef
            };
            let numbers = rows.iter().flat_map(|row| row.embedding.iter().copied());
            let numbers = Arc::new(Float32Array::from_iter_values(numbers));
            let vectors = FixedSizeListArray::new(Arc::clone(&item), DIMENSIONS as i32, numbers, None);
            let stamps =
                TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.timestamp * 1000));
            let columns = vec![
                text(|row| &row.id),
                text(|row| &row.text),
                Arc::new(vectors),
                Arc::new(stamps),
                text(|row| row.source),
                text(|row| &row.metadata),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        })
        .collect();
    let connection = lancedb::connect(folder.to_str().unwrap()).execute().await.unwrap();
    let table = connection.create_empty_table("embeddings", Arc::clone(&schema)).execute().await.unwrap();
    let since = Instant::now();
    for batch in batches {
        let reader = RecordBatchIterator::new([Ok(batch)], Arc::clone(&schema));
        let reader: Box<dyn lancedb::arrow::arrow_array::RecordBatchReader + Send> = Box::new(reader);
        table.add(reader).execute().await.unwrap();
    }
    let rate = count as f64 / since.elapsed().as_secs_f64();
    assert_eq!(table.count_rows(None).await.unwrap(), count);
    std::fs::remove_dir_all(&folder).unwrap();
    [rate, rate]
}
