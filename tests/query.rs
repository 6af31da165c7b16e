//! Looking into a target table: `embedsink query`.

use std::fs::{self, File};

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::connector::Connector;
use crate::support::postgres::{Database, run};
use crate::support::record::Shape;

const PLAIN: Shape =
    Shape { tables: &[("embeddings", 3)], partitions: 1, ids: 20, tombstones: 10, damaged: 0 };

/// Rows around the axes.
const ROWS: &str = r#"
insert into embeddings (id, text, embedding, "timestamp", source, metadata) values
  ('x', 'along x', '[1, 0, 0]', '2024-01-01T00:00:00Z', 'test', '{"a": [1, "b"]}'),
  ('near x', repeat('a long text ', 50), '[0.9, 0.1, 0]', null, null, null),
  ('far x', E'red \x1b[31m text\nand a line', '[10, 0.5, 0]', '2024-01-01T00:00:00.123456Z', null, null),
  ('y', null, '[0, 1, 0]', null, null, null)"#;

/// A connector whose table has rows.
struct Desk {
    connector: Connector,
    database: Database,
    client: Client,
}

impl Desk {
    async fn open(tables: &str) -> Self {
        let database = Database::create().await;
        let mut connector = Connector::without_source(&database, &PLAIN);
        connector.tables = tables.to_owned();
        connector.migrate().await;
        let client = database.connect().await;
        run(&client, ROWS).await;
        Self { connector, database, client }
    }

    fn arguments<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        ["query", "--config", path].into_iter().chain(more.iter().copied()).collect()
    }

    async fn query(&self, more: &[&str]) -> String {
        self.connector.write();
        self.connector.run(&Self::arguments(&self.connector.path(), more)).outputs().await
    }

    async fn fails(&self, code: i32, more: &[&str]) -> String {
        self.connector.write();
        self.connector.run(&Self::arguments(&self.connector.path(), more)).ends_with(code).await
    }

    /// The rows, and the summary behind them.
    async fn json(&self, more: &[&str]) -> (Vec<Value>, Value) {
        let more: Vec<&str> = more.iter().copied().chain(["--json"]).collect();
        let text = self.query(&more).await;
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = lines.pop().unwrap()["summary"].clone();
        (lines, summary)
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn rows_are_shown_by_their_ids_cut_for_people_and_whole_for_programs() {
    let desk = Desk::open("embeddings: {dimensions: 3}").await;
    let (rows, summary) = desk.json(&["embeddings"]).await;
    assert_eq!(ids(&rows), ["far x", "near x", "x", "y"]);
    assert_eq!((&summary["rows"], &summary["metric"]), (&4.into(), &Value::Null));
    assert_eq!(rows[0]["text"], "red \u{1b}[31m text\nand a line");
    assert_eq!(rows[0]["timestamp"], "2024-01-01T00:00:00.123456Z");
    assert_eq!(rows[1]["text"].as_str().unwrap().len(), 600);
    assert_eq!(rows[2]["metadata"]["a"][1], "b");
    assert_eq!(rows[2]["timestamp"], "2024-01-01T00:00:00Z");
    assert!(rows.iter().all(|row| row.get("embedding").is_none() && row.get("distance").is_none()));
    let (rows, _) = desk.json(&["embeddings", "--id", "near x", "--with-vector"]).await;
    assert_eq!(rows[0]["embedding"].to_string(), "[0.9,0.1,0.0]");
    assert_eq!(ids(&desk.json(&["embeddings", "--limit", "2"]).await.0), ["far x", "near x"]);

    let text = desk.query(&["embeddings"]).await;
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 200) && text.contains('…'), "{text}");
    assert!(text.contains("4 rows in "), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(desk.fails(1, &["embeddings", "--id", "nobody"]).await.contains("no row with the id \"nobody\""));
    assert!(desk.fails(1, &["embedding"]).await.contains("did you mean embeddings?"));
    assert!(desk.fails(1, &["pg_class"]).await.contains("its tables are: embeddings"));
    run(&desk.client, "truncate embeddings").await;
    assert!(desk.query(&["embeddings"]).await.starts_with("0 rows in "));
}

#[tokio::test]
async fn neighbours_come_by_the_metric_of_the_index_with_their_distances() {
    let mut desk = Desk::open("embeddings: {dimensions: 3}").await;
    let (rows, summary) = desk.json(&["embeddings", "--near", "[2, 0, 0]"]).await;
    assert_eq!(ids(&rows), ["x", "far x", "near x", "y"]);
    assert_eq!((&summary["metric"], &summary["operator"]), (&"cosine".into(), &"<=>".into()));
    assert_eq!(summary["index"], Value::Null);
    let distances: Vec<f64> = rows.iter().map(|row| row["distance"].as_f64().unwrap()).collect();
    assert!(
        distances.is_sorted() && distances[0] == 0.0 && (distances[3] - 1.0).abs() < 1e-9,
        "{distances:?}"
    );
    let (rows, _) = desk.json(&["embeddings", "--near-id", "x", "--limit", "2"]).await;
    assert_eq!(ids(&rows), ["far x", "near x"], "the row itself is left out");
    let text = desk.query(&["embeddings", "--near", "[2, 0, 0]"]).await;
    assert!(text.contains("cosine (<=>), as no index says otherwise"), "{text}");
    assert!(text.contains("no vector index was used: every row was compared"), "{text}");

    run(&desk.client, "create index by_hand on embeddings using hnsw (embedding vector_l2_ops)").await;
    let (rows, summary) = desk.json(&["embeddings", "--near", "[2, 0, 0]"]).await;
    assert_eq!((ids(&rows)[0], &summary["operator"]), ("x", &"<->".into()));
    assert_eq!(rows[0]["distance"], 1.0);
    assert!(desk.query(&["embeddings", "--near-id", "y"]).await.contains("as the index \"by_hand\" has it"));
    desk.connector.tables = "embeddings: {dimensions: 3, index: {metric: inner-product}}".to_owned();
    let (rows, summary) = desk.json(&["embeddings", "--near", "[1, 0, 0]"]).await;
    assert_eq!((ids(&rows)[0], &summary["metric"]), ("far x", &"inner product".into()));
    assert_eq!(rows[0]["distance"], -10.0);
    let text = desk.query(&["embeddings", "--near", "[1, 0, 0]"]).await;
    assert!(text.contains("as `tables` in the configuration has it"), "{text}");
}

#[tokio::test]
async fn it_says_whether_the_vector_index_was_used_and_finds_as_many_as_are_asked_for() {
    let desk = Desk::open("embeddings: {dimensions: 3, index: {}}").await;
    let more = "insert into embeddings (id, embedding)
                select 'row ' || n, array[sin(n), cos(n), n / 20000.0]::vector from generate_series(1, 20000) as n;
                create index \"odd \"\"name\\\" on embeddings using hnsw (embedding vector_cosine_ops); analyze embeddings";
    run(&desk.client, more).await;
    let (rows, summary) = desk.json(&["embeddings", "--near", "[1, 0, 0]", "--limit", "5"]).await;
    assert_eq!((rows.len(), &summary["index"]), (5, &"odd \"name\\".into()));
    let (rows, summary) = desk.json(&["embeddings", "--near-id", "row 7", "--limit", "200"]).await;
    assert_eq!((rows.len(), &summary["rows"]), (200, &200.into()), "more than an index gives by itself");
    assert!(!ids(&rows).contains(&"row 7"));
    let (rows, summary) = desk.json(&["embeddings", "--near-id", "row 7", "--limit", "1000"]).await;
    assert_eq!((rows.len(), &summary["index"]), (1000, &"odd \"name\\".into()), "without the row itself");
    let few = format!("alter database {} set hnsw.ef_search = 5", desk.database.name());
    run(&desk.client, &few).await;
    let (rows, summary) = desk.json(&["embeddings", "--near", "[1, 0, 0]", "--limit", "30"]).await;
    assert_eq!((rows.len(), &summary["index"]), (30, &"odd \"name\\".into()), "whatever the role has set");
    let text = desk.query(&["embeddings", "--near", "[1, 0, 0]"]).await;
    assert!(text.contains("found by the vector index odd \"name\\"), "{text}");
    // The server judges as it does for everybody, though a session of the connector prefers indexes.
    run(&desk.client, "delete from embeddings where id > 'row 1'").await;
    run(&desk.client, "vacuum analyze embeddings").await;
    let rows: i64 = desk.client.query_one("select count(*) from embeddings", &[]).await.unwrap().get(0);
    let plan = "explain select id from embeddings order by embedding <=> '[1, 0, 0]' limit 10";
    let plan: Vec<String> =
        desk.client.query(plan, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let uses_it = plan.concat().contains("odd");
    let (_, summary) = desk.json(&["embeddings", "--near", "[1, 0, 0]"]).await;
    assert_eq!(summary["index"] != Value::Null, uses_it, "of {rows} rows: {plan:?}");
}

#[tokio::test]
async fn a_vector_that_cannot_be_asked_for_is_refused_before_anything_is_connected() {
    let mut desk = Desk::open("embeddings: {dimensions: 3}").await;
    let port = format!(":{}/", desk.database.port());
    let url = desk.connector.postgres.clone();
    desk.connector.postgres = url.replace(&port, ":1/");
    for (vector, said) in [
        ("[1, 2]", "has 2 numbers, and the vectors of the table have 3"),
        ("[1, 2, 1e99]", "too large for a 32-bit float"),
        ("[1, 2, NaN]", "the vector cannot be used"),
        ("1 2 3", "is not an array"),
        ("", "the vector cannot be used"),
    ] {
        let text = desk.fails(1, &["embeddings", "--near", vector]).await;
        assert!(text.contains(said), "{vector}: {text}");
    }
    assert!(
        desk.fails(1, &["embeddings", "--near", "[1, 2, 3]", "--limit", "1001"])
            .await
            .contains("1000 neighbours are given at most")
    );
    desk.fails(2, &["embeddings", "--near", "[1, 2, 3]", "--id", "x"]).await;
    desk.fails(2, &["embeddings", "--with-vector"]).await;
    desk.connector.postgres = url;
    assert!(desk.fails(1, &["embeddings", "--near", "[0, 0, 0]"]).await.contains("has no direction"));
    assert!(desk.fails(1, &["embeddings", "--near-id", "nobody"]).await.contains("no row with the id"));

    let file = desk.connector.file("vector");
    fs::write(&file, "[0,\n 5, 0]\n").unwrap();
    let path = desk.connector.path();
    desk.connector.write();
    let arguments = Desk::arguments(&path, &["embeddings", "--near", "-", "--limit", "1", "--json"]);
    let text = desk.connector.run_with_input(&arguments, File::open(file).unwrap()).outputs().await;
    assert!(text.starts_with("{\"id\":\"y\",\"distance\":0.0"), "{text}");
    let file = desk.connector.file("no text");
    fs::write(&file, b"[0, \xff, 0]").unwrap();
    let text = desk.connector.run_with_input(&arguments, File::open(file).unwrap()).ends_with(1).await;
    assert!(text.contains("no text in UTF-8") && text.contains("Give a JSON array"), "{text}");
}

#[tokio::test]
async fn the_right_to_select_is_enough_and_a_missing_one_is_named() {
    let mut desk = Desk::open("embeddings: {dimensions: 3}").await;
    let role = format!("asker_{}", desk.database.name());
    run(&desk.client, &format!("create role {role} login")).await;
    desk.connector.postgres = desk.connector.postgres.replace("postgres@", &format!("{role}@"));
    let text = desk.fails(78, &["embeddings"]).await;
    assert!(text.contains("grant select on") && !text.contains("insert"), "{text}");
    run(&desk.client, &format!("grant select on embeddings to {role}")).await;
    assert_eq!(ids(&desk.json(&["embeddings", "--near-id", "x", "--limit", "1"]).await.0), ["far x"]);
    run(&desk.client, "alter table embeddings drop column source").await;
    assert!(desk.fails(78, &["embeddings"]).await.contains("source"), "a table that does not fit");
    run(&desk.client, &format!("drop owned by {role}; drop role {role}")).await;
}
