//! What is written is what is read.

use std::error::Error;

use sink_postgres_vector::{Deleted, Deletion, Overwrite, VectorRow};
use tokio_postgres::types::{FromSql, Type};

use crate::support::{Database, one, row, run, write};

/// Microseconds since 2000, as PostgreSQL sends them.
struct Micros(i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

const TO_UNIX: i64 = 946_684_800_000_000;

#[tokio::test]
async fn every_field_reads_back_as_it_was_written() {
    let strange = [-0.0, f32::MIN_POSITIVE / 2.0, f32::from_bits(1), f32::MAX, f32::MIN];
    let plain = [1.0, 2.0, 3.0, 0.1, -1e-30];
    let rows = [
        row("plain", "Hello world", &plain),
        VectorRow {
            id: "null",
            text: None,
            embedding: &strange,
            timestamp: None,
            source: None,
            metadata: None,
        },
        VectorRow {
            id: "’; drop table embeddings; --\\ \" \u{1F980} e\u{301}\n\t\\N",
            text: Some(""),
            embedding: &strange,
            timestamp: Some(*VectorRow::TIMESTAMPS.start()),
            source: Some("日本"),
            metadata: Some(r#"{"a": [1, 2.50, null, "\u00e9"], "": {"b": true}}"#),
        },
        VectorRow { timestamp: Some(i64::MAX), ..row("last", "x", &plain) },
        VectorRow { timestamp: Some(-1), ..row("before 1970", "x", &plain) },
    ];
    for is_copied in [false, true] {
        let (_database, mut connection, table) = Database::with_table(5).await;
        if is_copied {
            let mut transaction = connection.begin().await.unwrap();
            assert_eq!(transaction.insert(&table, &rows).await.unwrap(), 5);
            let _done = transaction.commit().await.unwrap();
        } else {
            assert_eq!(write(&mut connection, &table, &rows).await, 5);
        }

        for row in &rows {
            let found = connection
                .client()
                .query_one(
                    "select text, embedding::real[], \"timestamp\", source, metadata = $2::text::jsonb from embeddings where id = $1",
                    &[&row.id, &row.metadata],
                )
                .await
                .unwrap();
            let bits = |vector: &[f32]| vector.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            assert_eq!(found.get::<_, Option<&str>>(0), row.text);
            assert_eq!(bits(&found.get::<_, Vec<f32>>(1)), bits(row.embedding));
            assert_eq!(found.get::<_, Option<Micros>>(2).map(|micros| micros.0 + TO_UNIX), row.timestamp);
            assert_eq!(found.get::<_, Option<&str>>(3), row.source);
            assert_eq!(found.get::<_, Option<bool>>(4), row.metadata.map(|_| true));
        }
    }
}

#[tokio::test]
async fn a_timestamp_before_the_first_is_refused_as_data_and_never_an_infinity() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    for timestamp in [i64::MIN, i64::MIN + TO_UNIX, VectorRow::TIMESTAMPS.start() - 1] {
        let mut transaction = connection.begin().await.unwrap();
        let row = VectorRow { timestamp: Some(timestamp), ..row("a", "x", &[1.0]) };
        let error = transaction.upsert(&table, &[row], Overwrite::Always).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().code(), "22008");
        assert_eq!(error.class(), sink_postgres_vector::Class::Data);
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn each_column_that_changes_is_updated_and_nulls_replace_values() {
    let (_database, mut connection, table) = Database::with_table(2).await;
    let first = row("a", "old", &[1.0, 2.0]);
    let changes = [
        first,
        VectorRow { text: Some("new"), ..first },
        VectorRow { text: None, ..first },
        VectorRow { embedding: &[1.0, 3.0], ..first },
        VectorRow { timestamp: None, ..first },
        VectorRow { source: None, ..first },
        VectorRow { metadata: Some("{}"), ..first },
        VectorRow { metadata: None, ..first },
    ];
    for change in changes {
        assert_eq!(write(&mut connection, &table, &[change]).await, 1);
        let same = "select (text, embedding::text, \"timestamp\" is null, source, metadata::text)::text from embeddings";
        let expected = format!(
            "({},\"[{},{}]\",{},{},{})",
            change.text.unwrap_or_default(),
            change.embedding[0],
            change.embedding[1],
            if change.timestamp.is_none() { "t" } else { "f" },
            change.source.unwrap_or_default(),
            change.metadata.map_or(String::new(), |text| match text {
                "{}" => "{}".to_owned(),
                text => format!("\"{}\"", text.replace('"', "\"\"")),
            }),
        );
        assert_eq!(one::<String>(&connection, same).await, expected);
    }
}

#[tokio::test]
async fn columns_beyond_the_six_keep_their_values() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "alter table embeddings add column stars int default 3").await;
    write(&mut connection, &table, &[row("a", "old", &[1.0])]).await;
    run(&connection, "update embeddings set stars = 5").await;
    write(&mut connection, &table, &[row("a", "new", &[1.0])]).await;
    assert_eq!(one::<i32>(&connection, "select stars from embeddings where text = 'new'").await, 5);
}

#[tokio::test]
async fn a_row_whose_embedding_was_null_gets_one() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "insert into embeddings (id) values ('a')").await;
    let row =
        VectorRow { id: "a", text: None, embedding: &[1.0], timestamp: None, source: None, metadata: None };
    assert_eq!(write(&mut connection, &table, &[row]).await, 1);
    assert_eq!(one::<String>(&connection, "select embedding::text from embeddings").await, "[1]");
}

#[tokio::test]
async fn a_delete_takes_the_rows_that_are_there() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let rows = ["a", "b", "c"].map(|id| row(id, "x", &[1.0]));
    write(&mut connection, &table, &rows).await;
    let mut transaction = connection.begin().await.unwrap();
    let keys = ["a", "c", "never there"].map(|id| Deletion { id, timestamp: Some(0) });
    let deleted = transaction.delete(&table, &keys, Overwrite::Always).await.unwrap();
    assert_eq!(deleted, Deleted { deleted: 2, stale: 0 });
    let deleted = transaction.delete(&table, &[], Overwrite::Always).await.unwrap();
    assert_eq!(deleted, Deleted { deleted: 0, stale: 0 });
    let _committed = transaction.commit().await.unwrap();
    assert_eq!(one::<String>(&connection, "select string_agg(id, ',') from embeddings").await, "b");
}

#[tokio::test]
async fn nothing_to_write_is_not_sent() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    assert_eq!(write(&mut connection, &table, &[]).await, 0);
}

#[tokio::test]
async fn the_extension_may_live_outside_the_search_path() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    run(&connection, r#"create schema "Ext ""1"; create extension vector schema "Ext ""1""#).await;
    let spec = crate::support::spec(2);
    let migrator = sink_postgres_vector::Migrator::new(crate::support::MIGRATIONS);
    let applied = migrator.apply(&mut connection, std::slice::from_ref(&spec)).await.unwrap();
    assert!(!applied.extension);
    let table = sink_postgres_vector::VectorTable::check(connection.client(), &spec).await.unwrap();
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0, 2.0])]).await, 1);
    assert_eq!(write(&mut connection, &table, &[row("a", "y", &[1.0, 2.0])]).await, 1);
    assert_eq!(write(&mut connection, &table, &[row("a", "y", &[1.0, 2.0])]).await, 0);
}

#[tokio::test]
async fn a_table_keeps_its_checked_schema_when_another_of_its_name_comes_first() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(
        &connection,
        "create schema early; create table early.embeddings (id int); set search_path = early, public",
    )
    .await;
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0])]).await, 1);
}

#[tokio::test]
async fn a_write_may_run_in_a_task_of_its_own() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let task = tokio::spawn(async move {
        let ids = ["a".to_owned(), "b".to_owned()];
        let rows: Vec<_> = ids.iter().map(|id| row(id, "x", &[1.0])).collect();
        write(&mut connection, &table, &rows).await
    });
    assert_eq!(task.await.unwrap(), 2);
}
