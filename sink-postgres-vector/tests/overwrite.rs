//! Which of two versions of a row stays.

use sink_postgres_vector::{Deleted, Deletion, Overwrite, Transaction, Upserted, VectorRow, VectorTable};

use crate::support::{Database, Way, one, row, run, vectors};

const STORED: [Option<i64>; 4] = [None, Some(9), Some(10), Some(11)];

/// The rule in plain words, to compare the SQL with. The outer `None`: the row is not there.
fn may_write(stored: Option<Option<i64>>, incoming: Option<i64>, overwrite: Overwrite) -> bool {
    match (stored, overwrite) {
        (None, _) | (_, Overwrite::Always) | (Some(None), Overwrite::NotNewer) => true,
        (Some(Some(stored)), Overwrite::NotNewer) => incoming.is_some_and(|incoming| stored <= incoming),
        // Who has no timestamp cannot be proved to be older or newer.
        (Some(stored), Overwrite::Older) => {
            stored.zip(incoming).is_some_and(|(stored, incoming)| stored < incoming)
        }
    }
}

/// Writes a row for each of [`STORED`].
async fn store(transaction: &mut Transaction<'_>, table: &VectorTable, ids: &[String]) {
    let stored: Vec<_> = STORED
        .iter()
        .zip(ids)
        .map(|(timestamp, id)| VectorRow { timestamp: *timestamp, ..row(id, "old", &[1.0]) })
        .collect();
    transaction.upsert(table, &stored, Overwrite::Always).await.unwrap();
}

#[tokio::test]
async fn a_row_is_replaced_as_the_timestamps_and_the_rule_say() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let ids: Vec<String> = (0..=STORED.len()).map(|index| index.to_string()).collect();
    for overwrite in [Overwrite::Always, Overwrite::NotNewer, Overwrite::Older] {
        for (incoming, way) in [None, Some(10)].into_iter().flat_map(|at| Way::BOTH.map(|way| (at, way))) {
            let mut transaction = connection.begin().await.unwrap();
            store(&mut transaction, &table, &ids).await;
            let rows: Vec<_> =
                ids.iter().map(|id| VectorRow { timestamp: incoming, ..row(id, "new", &[2.0]) }).collect();
            let upserted = way.upsert(&mut transaction, &table, &rows, overwrite).await;
            let stored = |index: usize| STORED.get(index).copied();
            let expected: Vec<&str> = (0..ids.len())
                .filter(|index| may_write(stored(*index), incoming, overwrite))
                .map(|index| ids[index].as_str())
                .collect();
            let sql =
                "select array_agg(id order by id) from embeddings where text = 'new' and embedding = '[2]'";
            let written: Vec<String> = transaction.client().query_one(sql, &[]).await.unwrap().get(0);
            assert_eq!(written, expected, "{overwrite:?} {incoming:?} {way:?}");
            let changed = expected.len() as u64;
            let stale = ids.len() as u64 - changed;
            assert_eq!(upserted, Upserted { changed, stale }, "{overwrite:?} {incoming:?} {way:?}");
            transaction.rollback().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_row_is_deleted_as_the_timestamps_and_the_rule_say() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let ids: Vec<String> = (0..STORED.len()).map(|index| index.to_string()).collect();
    for overwrite in [Overwrite::Always, Overwrite::NotNewer, Overwrite::Older] {
        for at in [None, Some(10)] {
            let mut transaction = connection.begin().await.unwrap();
            store(&mut transaction, &table, &ids).await;
            let mut keys: Vec<_> = ids.iter().map(|id| Deletion { id, timestamp: at }).collect();
            keys.push(Deletion { id: "never there", timestamp: at });
            let deleted = transaction.delete(&table, &keys, overwrite).await.unwrap();
            let is_compared = at.is_some() || overwrite == Overwrite::Older;
            let stays = |stored: &Option<i64>| is_compared && !may_write(Some(*stored), at, overwrite);
            let stale = STORED.iter().filter(|stored| stays(stored)).count() as u64;
            let expected = Deleted { deleted: STORED.len() as u64 - stale, stale };
            assert_eq!(deleted, expected, "{overwrite:?} {at:?}");
            assert_eq!(transaction.count_keys(&table, &keys).await.unwrap(), stale, "{overwrite:?} {at:?}");
            transaction.rollback().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_row_that_is_there_already_is_neither_changed_nor_stale() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let rows = [row("a", "x", &[1.0]), VectorRow { timestamp: None, ..row("b", "x", &[1.0]) }];
    let mut transaction = connection.begin().await.unwrap();
    transaction.upsert(&table, &rows, Overwrite::NotNewer).await.unwrap();
    let _committed = transaction.commit().await.unwrap();
    let versions = "select string_agg(xmin::text || ctid::text, ',' order by id) from embeddings";
    let before: String = one(&connection, versions).await;
    for way in Way::BOTH {
        let mut transaction = connection.begin().await.unwrap();
        let again = way.upsert(&mut transaction, &table, &rows, Overwrite::NotNewer).await;
        assert_eq!(again, Upserted { changed: 0, stale: 0 }, "{way:?}");
        // As new is not older, and neither is what has no timestamp.
        let again = way.upsert(&mut transaction, &table, &rows, Overwrite::Older).await;
        assert_eq!(again, Upserted { changed: 0, stale: 2 }, "{way:?}");
        let _committed = transaction.commit().await.unwrap();
    }
    assert_eq!(one::<String>(&connection, versions).await, before);
}

#[tokio::test]
async fn with_a_rule_too_a_new_text_stays_on_its_page_and_its_vector_in_place() {
    let (_database, mut connection, table) = Database::with_table(768).await;
    let vectors = vectors(200, 768);
    let ids: Vec<String> = (0..vectors.len()).map(|number| format!("doc-{number:06}")).collect();
    let places = "select array_agg(pg_column_toast_chunk_id(embedding)::bigint order by id) from embeddings";
    for (overwrite, way) in
        [Overwrite::NotNewer, Overwrite::Older].into_iter().flat_map(|rule| Way::BOTH.map(|way| (rule, way)))
    {
        run(&connection, "truncate embeddings").await;
        let mut before = Vec::new();
        for (text, timestamp) in [("old", 1), ("new", 2)] {
            let rows: Vec<_> = ids
                .iter()
                .zip(&vectors)
                .map(|(id, vector)| VectorRow { timestamp: Some(timestamp), ..row(id, text, vector) })
                .collect();
            let mut transaction = connection.begin().await.unwrap();
            let upserted = way.upsert(&mut transaction, &table, &rows, overwrite).await;
            assert_eq!(upserted, Upserted { changed: ids.len() as u64, stale: 0 });
            let _committed = transaction.commit().await.unwrap();
            if timestamp == 1 {
                before = one::<Vec<i64>>(&connection, places).await;
            }
        }
        assert_eq!(one::<Vec<i64>>(&connection, places).await, before, "{overwrite:?} {way:?}");
    }
    run(&connection, "select pg_stat_force_next_flush()").await;
    let off_page = "select n_tup_upd - n_tup_hot_upd from pg_stat_user_tables where relname = 'embeddings'";
    assert_eq!(one::<i64>(&connection, off_page).await, 0);
}
