//! Rows read back.

use sink_postgres_vector::{Ident, Metric, Query, TableSpec, VectorTable, Wanted};

use crate::support::{Database, one, row, run, vectors, write};

fn near(vector: &[f32], metric: Metric) -> Wanted<'_> {
    Wanted::Near { vector, metric, except: None }
}

#[tokio::test]
async fn a_row_is_read_back_as_it_was_written() {
    let (_database, mut connection, table) = Database::with_table(3).await;
    write(&mut connection, &table, &[row("a", "text", &[0.1, -2.5e-30, 3.4e38]), row("b", "b", &[1.0; 3])])
        .await;
    let query = Query { wanted: Wanted::Id("a"), limit: 1, with_vector: true };
    let answer = table.ask(&mut connection, &query).await.unwrap();
    let found = &answer.rows[0];
    assert_eq!((found.id.as_str(), found.text.as_deref()), ("a", Some("text")));
    assert_eq!(found.timestamp.as_deref(), Some("2024-01-01T00:00:00Z"));
    assert_eq!(found.metadata.as_deref(), Some(r#"{"lang": "en"}"#));
    assert_eq!(found.vector.as_deref(), Some(&[0.1, -2.5e-30, 3.4e38][..]), "bit for bit");
    assert!(found.distance.is_none() && answer.index.is_none());
    for (wanted, count) in [(Wanted::Id("nobody"), 0), (Wanted::All, 2)] {
        let answer =
            table.ask(&mut connection, &Query { wanted, limit: 9, with_vector: false }).await.unwrap();
        assert_eq!(answer.rows.len(), count);
        assert!(answer.rows.iter().all(|row| row.vector.is_none()));
    }
}

#[tokio::test]
async fn neighbours_are_those_of_the_operator_wherever_the_extension_and_the_table_are() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    run(
        &connection,
        "create schema ext; create extension vector schema ext; create schema \"o\"\"dd\";
         create table \"o\"\"dd\".\"T x\" (id text primary key, text text, embedding ext.vector(4),
           \"timestamp\" timestamptz, source text, metadata jsonb) partition by hash (id);
         create table \"o\"\"dd\".part partition of \"o\"\"dd\".\"T x\" for values with (modulus 1, remainder 0);
         set search_path = \"o\"\"dd\"",
    )
    .await;
    let spec = TableSpec { name: Ident::new("T x").unwrap(), dimensions: 4 };
    let table = VectorTable::check_readable(connection.client(), &spec).await.unwrap();
    let vectors = vectors(500, 4);
    let ids: Vec<String> = (0..500).map(|n| format!("row {n}")).collect();
    let rows: Vec<_> = ids.iter().zip(&vectors).map(|(id, vector)| row(id, "t", vector)).collect();
    write(&mut connection, &table, &rows).await;
    assert_eq!(table.metric_of_an_index(&connection).await.unwrap(), None);
    for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1] {
        let query = Query { wanted: near(&vectors[7], metric), limit: 500, with_vector: false };
        let answer = table.ask(&mut connection, &query).await.unwrap();
        let found: Vec<f64> = answer.rows.iter().map(|row| row.distance.unwrap()).collect();
        assert!(found.len() == 500 && found.is_sorted(), "{metric:?}");
        if matches!(metric, Metric::L2 | Metric::L1) {
            assert_eq!((answer.rows[0].id.as_str(), found[0]), ("row 7", 0.0));
        }
        let wanted = Wanted::Near { vector: &vectors[7], metric, except: Some("row 7") };
        let answer =
            table.ask(&mut connection, &Query { wanted, limit: 500, with_vector: false }).await.unwrap();
        assert!(answer.rows.len() == 499 && answer.rows.iter().all(|row| row.id != "row 7"));
    }

    run(
        &connection,
        "create index \"by \"\"hand\" on \"T x\" using hnsw (embedding ext.vector_l1_ops); analyze \"T x\"",
    )
    .await;
    let (index, metric) = table.metric_of_an_index(&connection).await.unwrap().unwrap();
    assert_eq!((index.as_str(), metric), ("by \"hand", Metric::L1));
}

#[tokio::test]
async fn the_index_is_named_when_the_plan_names_it_and_a_session_is_left_as_it_was() {
    let (_database, mut connection, table) = Database::with_table(3).await;
    run(
        &connection,
        "insert into embeddings (id, embedding)
         select 'row ' || n, array[sin(n), cos(n), n / 9000.0]::vector from generate_series(1, 9000) as n;
         create index on embeddings using hnsw (embedding vector_l2_ops); analyze embeddings",
    )
    .await;
    let by = async |connection: &mut _, metric, limit| {
        let query = Query { wanted: near(&[1.0, 0.0, 0.0], metric), limit, with_vector: false };
        let answer = table.ask(connection, &query).await.unwrap();
        (answer.rows.len(), answer.index.map(|index| index.as_str().to_owned()))
    };
    let index = Some("embeddings_embedding_idx".to_owned());
    assert_eq!(by(&mut connection, Metric::L2, 10).await, (10, index.clone()));
    assert_eq!(by(&mut connection, Metric::L2, 300).await, (300, index));
    assert_eq!(by(&mut connection, Metric::Cosine, 10).await, (10, None), "it knows another distance");
    let kept: String = one(&connection, "select current_setting('enable_seqscan')").await;
    assert_eq!(kept, "off", "the session finds rows by their keys again");
    assert_eq!(one::<String>(&connection, "select current_setting('hnsw.ef_search')").await, "40");
}
