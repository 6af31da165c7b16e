//! Rows that are new go in by COPY. That every field arrives, `rows.rs` shows.

use sink_postgres_vector::{Class, VectorTable};

use crate::support::{Database, one, row, run, spec, vectors};

#[tokio::test]
async fn columns_beyond_the_six_get_their_defaults() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "alter table embeddings add column seen boolean not null default true").await;
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(transaction.insert(&table, &[row("a", "x", &[1.0])]).await.unwrap(), 1);
    let _done = transaction.commit().await.unwrap();
    assert!(one::<bool>(&connection, "select seen from embeddings").await);
}

#[tokio::test]
async fn a_batch_of_many_pieces_arrives_whole() {
    const ROWS: usize = 2_000;
    let (_database, mut connection, table) = Database::with_table(384).await;
    let (vectors, ids): (_, Vec<String>) =
        (vectors(ROWS, 384), (0..ROWS).map(|number| format!("id {number}")).collect());
    let rows: Vec<_> = ids.iter().zip(&vectors).map(|(id, vector)| row(id, "text", vector)).collect();
    let mut transaction = connection.begin_for(ROWS * 2_000).await.unwrap();
    assert_eq!(transaction.insert(&table, &[]).await.unwrap(), 0);
    assert_eq!(transaction.insert(&table, &rows).await.unwrap(), ROWS as u64);
    let _done = transaction.commit().await.unwrap();
    let last =
        one::<String>(&connection, "select embedding::text from embeddings where id = 'id 1999'").await;
    let expected = vectors[ROWS - 1].iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let parsed =
        |text: &str| text.split(',').map(|number| number.parse::<f32>().unwrap()).collect::<Vec<_>>();
    assert_eq!(parsed(last.trim_matches(['[', ']'])), parsed(&expected));
}

#[tokio::test]
async fn a_key_that_is_there_or_comes_twice_is_refused_as_data_and_leaves_nothing() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let twice = [row("a", "one", &[1.0]), row("b", "one", &[1.0]), row("a", "two", &[1.0])];
    for rows in [&twice[..], &twice[1..]] {
        let mut transaction = connection.begin().await.unwrap();
        if rows.len() == 2 {
            transaction.insert(&table, &twice[..1]).await.unwrap();
        }
        let error = transaction.insert(&table, rows).await.unwrap_err();
        assert_eq!((error.sqlstate().unwrap().code(), error.class()), ("23505", Class::Data));
        assert!(!error.to_string().contains("one"), "{error}");
        transaction.rollback().await.unwrap();
        assert_eq!(one::<i64>(&connection, "select count(*) from embeddings").await, 0);
    }
    assert!(!connection.is_closed(), "the connection goes on");
}

#[tokio::test]
async fn a_table_is_taken_for_empty_only_where_it_never_held_a_row_and_copy_does_what_an_insert_does() {
    let (database, connection, table) = Database::with_table(1).await;
    assert!(table.was_empty());
    let found = async || {
        let connection = database.connect().await;
        VectorTable::check(connection.client(), &spec(1)).await.unwrap().was_empty()
    };
    for (change, is_empty) in [
        ("insert into embeddings (id, embedding) values ('a', '[1]')", false),
        ("delete from embeddings", false),
        ("truncate embeddings", true),
        ("alter table embeddings enable row level security", false),
        ("alter table embeddings disable row level security", true),
        ("create rule twice as on insert to embeddings do also select 1", false),
    ] {
        run(&connection, change).await;
        assert_eq!(found().await, is_empty, "{change}");
    }
}

#[tokio::test]
async fn a_partitioned_table_is_never_taken_for_empty() {
    let (database, connection, _) = Database::with_table(1).await;
    run(
        &connection,
        "drop table embeddings;
         create table embeddings (id varchar(255) primary key, text text, embedding vector(1), \"timestamp\" timestamptz,
           source varchar(255), metadata jsonb) partition by hash (id);
         create table part partition of embeddings for values with (modulus 1, remainder 0);
         insert into embeddings (id, embedding) values ('a', '[1]')",
    )
    .await;
    let connection = database.connect().await;
    assert!(!VectorTable::check(connection.client(), &spec(1)).await.unwrap().was_empty());
}
