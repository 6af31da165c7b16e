//! An upsert that reads first and lets only what differs through does what the plain one does.

use sink_postgres_vector::{Connection, Overwrite, Upserted, VectorRow};

use crate::support::random::Random;
use crate::support::{Database, Way, one, row, run};

const ALL: &str = "select coalesce(string_agg(t::text, ';' order by id), '') from embeddings as t";

/// The row with one column changed; each column also from a value to null, and from null to a value.
fn changes() -> Vec<(&'static str, VectorRow<'static>, VectorRow<'static>)> {
    let full = row("a", "text", &[1.0, 2.0]);
    let pairs = [
        ("text", VectorRow { text: Some("other"), ..full }, VectorRow { text: None, ..full }),
        ("timestamp", VectorRow { timestamp: Some(7), ..full }, VectorRow { timestamp: None, ..full }),
        ("source", VectorRow { source: Some("other"), ..full }, VectorRow { source: None, ..full }),
        (
            "metadata",
            VectorRow { metadata: Some(r#"{"lang": "de"}"#), ..full },
            VectorRow { metadata: None, ..full },
        ),
    ];
    let mut changes = vec![
        ("the first number", full, VectorRow { embedding: &[1.5, 2.0], ..full }),
        ("the last number", full, VectorRow { embedding: &[1.0, 2.000_000_2], ..full }),
    ];
    for (column, other, none) in pairs {
        changes.extend([(column, full, other), (column, full, none), (column, none, full)]);
    }
    changes
}

#[tokio::test]
async fn each_column_that_differs_alone_is_written() {
    let (_database, mut connection, table) = Database::with_table(2).await;
    for (column, before, after) in changes() {
        run(&connection, "truncate embeddings").await;
        Way::Upsert.write(&mut connection, &table, &[after]).await;
        let expected: String = one(&connection, ALL).await;
        run(&connection, "truncate embeddings").await;
        Way::Upsert.write(&mut connection, &table, &[before]).await;
        assert_ne!(one::<String>(&connection, ALL).await, expected, "{column}");
        assert_eq!(Way::Differing.write(&mut connection, &table, &[after]).await, 1, "{column}");
        assert_eq!(one::<String>(&connection, ALL).await, expected, "{column}");
    }
}

#[tokio::test]
async fn rows_too_large_for_one_answer_are_compared_in_several() {
    let (_database, mut connection, table) = Database::with_table(2).await;
    let ids: Vec<String> = (0..45).map(|number| format!("id-{number}")).collect();
    let (long, other) = ("ü".repeat(60_000), "ü".repeat(59_999) + "u");
    let mut rows: Vec<VectorRow<'_>> = ids.iter().map(|id| row(id, &long, &[1.0, 2.0])).collect();
    assert_eq!(Way::Differing.write(&mut connection, &table, &rows).await, 45);
    assert_eq!(Way::Differing.write(&mut connection, &table, &rows).await, 0);
    for changed in [0, 25, 44] {
        rows[changed].text = Some(&other);
    }
    assert_eq!(Way::Differing.write(&mut connection, &table, &rows).await, 3);
    assert_eq!(Way::Differing.write(&mut connection, &table, &rows).await, 0);
}

#[tokio::test]
async fn any_rows_come_to_the_same_by_both_ways() {
    const IDS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    const VECTORS: [[f32; 2]; 3] = [[1.0, 2.0], [-0.0, 2.0], [0.0, 2.0]];
    let (_first, mut plain, plain_table) = Database::with_table(2).await;
    let (_second, mut differing, differing_table) = Database::with_table(2).await;
    let mut random = Random::new(1);
    let mut left_alone = 0;
    for _ in 0..150 {
        let mut rows = Vec::new();
        for id in IDS {
            let mut pick = |count: usize| random.below(count);
            if pick(3) == 0 {
                continue;
            }
            rows.push(VectorRow {
                id,
                text: [None, Some("one")][pick(2)],
                embedding: &VECTORS[pick(3)],
                timestamp: [None, Some(1)][pick(2)],
                source: None,
                metadata: [None, Some(r#"{"a": 1}"#), Some(r#"{"a": 1.0}"#)][pick(3)],
            });
        }
        for overwrite in [Overwrite::Always, Overwrite::NotNewer, Overwrite::Older] {
            let expected = upsert(&mut plain, Way::Upsert, &plain_table, &rows, overwrite).await;
            let found = upsert(&mut differing, Way::Differing, &differing_table, &rows, overwrite).await;
            assert_eq!(found, expected, "{overwrite:?}");
            left_alone += rows.len() as u64 - found.changed;
        }
        assert_eq!(one::<String>(&differing, ALL).await, one::<String>(&plain, ALL).await);
    }
    assert!(left_alone > 100, "some rows were as they should be");
}

async fn upsert(
    connection: &mut Connection,
    way: Way,
    table: &sink_postgres_vector::VectorTable,
    rows: &[VectorRow<'_>],
    overwrite: Overwrite,
) -> Upserted {
    let mut transaction = connection.begin().await.unwrap();
    let upserted = way.upsert(&mut transaction, table, rows, overwrite).await;
    let _committed = transaction.commit().await.unwrap();
    upserted
}

#[tokio::test]
async fn a_row_that_somebody_else_changes_meanwhile_ends_as_in_one_of_the_two_orders() {
    let (database, mut connection, table) = Database::with_table(1).await;
    let mine = row("a", "mine", &[1.0]);
    for (theirs, is_left) in
        [("update embeddings set text = 'theirs'", "theirs"), ("delete from embeddings", "")]
    {
        run(&connection, "truncate embeddings").await;
        Way::Upsert.write(&mut connection, &table, &[mine]).await;
        let other = database.connect().await;
        run(&other, "begin").await;
        run(&other, theirs).await;
        // It is equal to what is committed: neither locked nor waited for, and theirs comes after.
        assert_eq!(Way::Differing.write(&mut connection, &table, &[mine]).await, 0);
        run(&other, "commit").await;
        let left: String = one(&connection, "select coalesce(max(text), '') from embeddings").await;
        assert_eq!(left, is_left);
    }
}

#[tokio::test]
async fn rows_that_are_there_however_they_are_spelled_are_not_even_locked() {
    let (database, mut connection, table) = Database::with_table(2).await;
    let full = row("a", "text", &[1.0, 2.0]);
    let metadata = [
        r#"{}"#,
        r#"{"lang":"de","page":12,"tags":["a","b"],"nested":{"long key":1.50,"k":[]}}"#,
        r#"{ "bb" : true, "a" : null, "é" : "\u00e9\ud83e\udd80", "cc" : -3, "a" : false }"#,
        r#"{"escapes":"\/\"\\\b\f\n\r\t\u001f\u007f","large":123456789012345678901234567890.100}"#,
        r#"{"a":[1e-05,1E+16,-0.0,1.50e1],"b":-0}"#,
        r#"{"ω":1,"zz":2,"z":3,"":4,"\t":5}"#,
    ];
    let ids: Vec<String> = (0..metadata.len()).map(|number| format!("metadata {number}")).collect();
    let spelled = ids.iter().zip(metadata);
    let mut rows: Vec<VectorRow<'_>> =
        spelled.map(|(id, metadata)| VectorRow { id, metadata: Some(metadata), ..full }).collect();
    let odd: Vec<f32> = vec![-0.0, f32::MIN_POSITIVE / 2.0];
    let long = "ö".repeat(100_000);
    rows.extend([
        VectorRow { id: "odd numbers", embedding: &odd, ..full },
        VectorRow { id: "no text", text: None, timestamp: None, source: None, metadata: None, ..full },
        VectorRow { id: "empty", text: Some(""), source: Some(""), ..full },
        VectorRow { id: "ключ ' \\", text: Some(&long), ..full },
        VectorRow { id: "earliest", timestamp: Some(*VectorRow::TIMESTAMPS.start()), ..full },
        VectorRow { id: "before 1970", timestamp: Some(-1), ..full },
    ]);
    assert_eq!(Way::Upsert.write(&mut connection, &table, &rows).await, rows.len() as u64);
    let other = database.connect().await;
    run(&other, "begin; select from embeddings for update").await;
    assert_eq!(Way::Differing.write(&mut connection, &table, &rows).await, 0);
    run(&other, "commit").await;
}
