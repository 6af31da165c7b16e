//! What a user finds who opens the folder with LanceDB's own Python package.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::stage::Stage;

/// Opens the table, and says what is in it.
const SCRIPT: &str = r#"
import json, sys
import lancedb

db = lancedb.connect(sys.argv[1])
table = db.open_table("embeddings")
row = table.search().where("id = 'a'").limit(1).to_list()[0]
near = table.search([0.0] * 7 + [1.0]).distance_type("l2").limit(2).to_list()
letters = db.open_table("embedsink_dead_letters").to_arrow().to_pylist()
print(json.dumps({
    "rows": table.count_rows(),
    "schema": {field.name: str(field.type) for field in table.schema},
    "text": row["text"],
    "embedding": list(row["embedding"]),
    "timestamp": str(row["timestamp"])[:23],
    "metadata": json.loads(row["metadata"]),
    "near": [(found["id"], found["_distance"]) for found in near],
    "letters": [(letter["reason"], letter["payload"].decode()) for letter in letters],
}))
"#;

const LINES: &str = "\
{\"id\": \"a\", \"text\": \"naïve\", \"embedding\": [3, 4, 0, 0, 0, 0, 0, 1e-3], \"timestamp\": \"2026-01-31T12:00:00.125Z\", \"metadata\": {\"n\": [1]}}
{\"id\": \"b\", \"embedding\": [0, 0, 0, 0, 0, 0, 0, 0.5]}
no json
{\"id\": \"c\", \"embedding\": [9, 9, 9, 9, 9, 9, 9, 9]}
";

#[tokio::test]
async fn rows_are_read_by_lancedbs_python_package_as_a_user_would() {
    let packages = std::env::var("LANCEDB_PYTHON")
        .expect("LANCEDB_PYTHON names the folder of the package: `make test-lancedb` sets it");
    let stage = Stage::new("python", 0).await;
    stage.connector.write();
    let input = stage.connector.file("rows.jsonl");
    fs::write(&input, LINES).unwrap();
    let path = stage.connector.path();
    stage.connector.run(&["write", "--config", &path, input.to_str().unwrap()]).ends_with(0).await;

    let done = Command::new("python3")
        .args(["-c", SCRIPT, stage.connector.file("data").to_str().unwrap()])
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["rows"], 3);
    let schema = serde_json::json!({
        "id": "string",
        "text": "string",
        "embedding": "fixed_size_list<item: float>[8]",
        "timestamp": "timestamp[ns]",
        "source": "string",
        "metadata": "string",
    });
    assert_eq!(told["schema"], schema);
    assert_eq!((&told["text"], &told["metadata"]), (&"naïve".into(), &serde_json::json!({"n": [1]})));
    let numbers: Vec<f32> = serde_json::from_value(told["embedding"].clone()).unwrap();
    assert_eq!(numbers, [3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-3]);
    assert_eq!(told["timestamp"], "2026-01-31 12:00:00.125");
    assert_eq!(told["near"], serde_json::json!([["b", 0.25], ["a", 25.998001098632812]]));
    assert_eq!(told["letters"], serde_json::json!([["bad_json", "no json"]]));
}
