//! Writing the same thing again costs almost nothing.

use sink_postgres_vector::{Connection, VectorRow};

use crate::support::{Database, Way, one, row, run, vectors, write};

#[tokio::test]
async fn an_unchanged_row_is_not_updated() {
    let (_database, mut connection, table) = Database::with_table(3).await;
    let rows = [
        row("a", "x", &[1.0, -0.0, 3.0]),
        VectorRow {
            text: None,
            timestamp: None,
            source: None,
            metadata: None,
            ..row("b", "", &[0.0, 0.0, 1.0])
        },
    ];
    assert_eq!(write(&mut connection, &table, &rows).await, 2);
    let versions = "select string_agg(xmin::text || ctid::text, ',' order by id) from embeddings";
    let before: String = one(&connection, versions).await;
    let reordered = VectorRow { metadata: Some(r#"{ "lang":"en" }"#), ..rows[0] };
    for way in Way::BOTH {
        assert_eq!(way.write(&mut connection, &table, &rows).await, 0, "{way:?}");
        assert_eq!(way.write(&mut connection, &table, &[reordered]).await, 0, "{way:?}");
    }
    assert_eq!(one::<String>(&connection, versions).await, before);
}

#[tokio::test]
async fn an_unchanged_vector_outside_the_page_keeps_its_place_when_the_text_changes() {
    let (_database, mut connection, table) = Database::with_table(768).await;
    let vector = &vectors(1, 768)[0];
    let metadata = format!(r#"{{"notes": "{}"}}"#, incompressible(4000));
    let first = VectorRow { metadata: Some(&metadata), ..row("a", "old", vector) };
    write(&mut connection, &table, &[first]).await;
    let places = "select array[pg_column_toast_chunk_id(embedding), pg_column_toast_chunk_id(metadata)]::bigint[] \
                  from embeddings";
    let before: Vec<i64> = one(&connection, places).await;
    for (way, text) in Way::BOTH.into_iter().zip(["new", "newer"]) {
        assert_eq!(way.write(&mut connection, &table, &[VectorRow { text: Some(text), ..first }]).await, 1);
        assert_eq!(one::<Vec<i64>>(&connection, places).await, before, "{way:?}");
    }
}

#[tokio::test]
async fn ten_thousand_new_texts_or_metadata_stay_on_their_pages_and_touch_no_index() {
    for (dimensions, count) in [(384, 10_000), (768, 2_000), (1536, 2_000), (64, 2_000)] {
        let (_database, mut connection, table) = Database::with_table(dimensions).await;
        let vectors = vectors(count, usize::from(dimensions));
        let ids: Vec<String> = (0..count).map(|number| format!("doc-{number:06}")).collect();
        let old = "What a text of a usual length may look like, when it is a sentence or two. ".repeat(2);
        let new = old.replace("usual", "certain");
        let rows = |text| -> Vec<VectorRow<'_>> {
            ids.iter().zip(&vectors).map(|(id, vector)| row(id, text, vector)).collect()
        };
        write(&mut connection, &table, &rows(&old)).await;
        // A cheap graph, because only whether it is touched is of interest.
        run(
            &connection,
            "create index near on embeddings using hnsw (embedding vector_l2_ops) with (m = 2, ef_construction = 4)",
        )
        .await;
        let size: i64 = one(&connection, "select pg_relation_size('near')").await;
        assert_eq!(write(&mut connection, &table, &rows(&new)).await, count as u64);
        run(&connection, "vacuum embeddings").await;
        let relabelled: Vec<VectorRow<'_>> = rows(&new)
            .into_iter()
            .map(|row| VectorRow { metadata: Some(r#"{"lang": "de"}"#), ..row })
            .collect();
        assert_eq!(Way::Differing.write(&mut connection, &table, &relabelled).await, count as u64);
        let (updated, on_page) = updates(&connection).await;
        assert_eq!(updated, 2 * count as i64);
        let share = on_page as f64 / updated as f64;
        assert!(share > 0.99, "only {share} of the updates at {dimensions} dimensions stayed on their page");
        assert_eq!(one::<i64>(&connection, "select pg_relation_size('near')").await, size);
    }
}

async fn updates(connection: &Connection) -> (i64, i64) {
    run(connection, "select pg_stat_force_next_flush()").await;
    let counts = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'embeddings'";
    let row = connection.client().query_one(counts, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

fn incompressible(len: usize) -> String {
    let mut state = 7_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + u8::try_from((state >> 16) % 26).unwrap())
    })
    .take(len)
    .collect()
}
