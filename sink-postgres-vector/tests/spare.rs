//! Of a batch that the server refuses, exactly the rows that it refuses are left out.

use std::collections::{BTreeMap, BTreeSet};

use sink_postgres_vector::{Class, Connection, Deletion, Overwrite, VectorRow};

use crate::support::{
    Database, one, options,
    random::Random,
    row, run,
    wire::{Silence, Wire},
    write,
};

/// Refuses rows by their id: what stands behind the `!` is the SQLSTATE.
const REFUSE: &str = "
create function refuse() returns trigger language plpgsql as $$ begin
  if coalesce(new.id, old.id) like '%!%' then
    raise exception using errcode = split_part(coalesce(new.id, old.id), '!', 2), message = 'no';
  end if;
  return coalesce(new, old);
end $$;";
const ON_WRITE: &str =
    "create trigger refuse before insert or update on embeddings for each row execute function refuse();";
const ON_DELETE: &str =
    "create trigger refuse before delete on embeddings for each row execute function refuse();";

const CODES: [&str; 5] = ["23514", "22003", "23505", "P0001", "22023"];

async fn ids(connection: &Connection) -> BTreeSet<String> {
    let rows = connection.client().query("select id from embeddings", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn rows(ids: &[String]) -> Vec<VectorRow<'_>> {
    ids.iter().map(|id| row(id, id, &[1.0])).collect()
}

fn keys(ids: &[String]) -> Vec<Deletion<'_>> {
    ids.iter().map(|id| Deletion { id, timestamp: None }).collect()
}

/// The most statements that finding `poisoned` among `len` may take.
fn bound(poisoned: usize, len: usize) -> f64 {
    2.0 * poisoned as f64 * ((len as f64).log2() + 2.0) + 2.0
}

#[tokio::test]
async fn for_any_poisoned_subset_exactly_that_subset_is_refused() {
    let (database, connection, table) = Database::with_table(1).await;
    run(&connection, &format!("{REFUSE}{ON_WRITE}")).await;
    let wire = Wire::before(options("postgres").port, Silence::Never).await;
    let mut through = database.options();
    (through.port, through.prepared) = (wire.port(), false);
    let mut connection = Connection::open(&through).await.unwrap();
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let len = 1 + random.below(200);
        let share = [0, 1, 3, 30, 100][random.below(5)];
        let mut poisoned = BTreeSet::new();
        let ids: Vec<String> = (0..len)
            .map(|index| {
                if random.below(100) < share {
                    poisoned.insert(index);
                    format!("{seed}-{index}!{}", CODES[random.below(CODES.len())])
                } else {
                    format!("{seed}-{index}")
                }
            })
            .collect();
        let before = self::ids(&connection).await;
        let mut transaction = connection.begin().await.unwrap();
        wire.said();
        let spared =
            transaction.upsert_sparing(&table, &rows(&ids), Overwrite::Always, usize::MAX).await.unwrap();
        let tries = wire.said().iter().filter(|said| said.kind == b'E').count();
        assert!(tries as f64 <= bound(poisoned.len(), len), "{tries} for {poisoned:?} of {len}, seed {seed}");
        let refused: Vec<usize> = spared.refused.iter().map(|refused| refused.index).collect();
        assert_eq!(refused, poisoned.iter().copied().collect::<Vec<_>>(), "seed {seed}");
        for refused in &spared.refused {
            let code = refused.error.sqlstate().unwrap().code();
            assert_eq!(Some(code), ids[refused.index].split('!').nth(1), "seed {seed}");
        }
        let good: BTreeSet<String> = ids.iter().filter(|id| !id.contains('!')).cloned().collect();
        assert_eq!((spared.changed, spared.stale), (good.len() as u64, 0), "seed {seed}");
        let _committed = transaction.commit().await.unwrap();
        assert_eq!(&self::ids(&connection).await - &before, good, "seed {seed}");
    }
}

#[tokio::test]
async fn deletes_are_spared_in_the_same_way() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let len = 1 + random.below(60);
        let ids: Vec<String> = (0..len)
            .map(|index| match random.below(10) {
                0 => format!("{seed}-{index}!{}", CODES[random.below(CODES.len())]),
                _ => format!("{seed}-{index}"),
            })
            .collect();
        write(&mut connection, &table, &rows(&ids)).await;
        run(&connection, &format!("{REFUSE}{ON_DELETE}")).await;
        let mut transaction = connection.begin().await.unwrap();
        let spared =
            transaction.delete_sparing(&table, &keys(&ids), Overwrite::Always, usize::MAX).await.unwrap();
        let _committed = transaction.commit().await.unwrap();
        let poisoned: BTreeSet<String> = ids.iter().filter(|id| id.contains('!')).cloned().collect();
        let refused: BTreeSet<String> =
            spared.refused.iter().map(|refused| ids[refused.index].clone()).collect();
        assert_eq!(refused, poisoned, "seed {seed}");
        assert_eq!(self::ids(&connection).await, poisoned, "seed {seed}");
        assert_eq!(spared.changed, (len - poisoned.len()) as u64, "seed {seed}");
        run(&connection, "drop function refuse cascade; truncate embeddings").await;
    }
}

#[tokio::test]
async fn of_two_rows_that_exclude_each_other_the_earlier_stays() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "create unique index second on embeddings (text)").await;
    let ids: Vec<String> = (0..16).map(|index| index.to_string()).collect();
    for (first, later) in [(0, 1), (7, 8), (2, 15)] {
        let mut rows = rows(&ids);
        rows[first].text = Some("same");
        rows[later].text = Some("same");
        let mut transaction = connection.begin().await.unwrap();
        let spared = transaction.upsert_sparing(&table, &rows, Overwrite::Always, usize::MAX).await.unwrap();
        let refused: Vec<usize> = spared.refused.iter().map(|refused| refused.index).collect();
        assert_eq!((refused, spared.changed), (vec![later], 15));
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn rows_whose_keys_a_trigger_makes_equal_are_applied_in_their_order() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(
        &connection,
        "create function lower_id() returns trigger language plpgsql as $$ begin
           new.id := lower(new.id);
           return new;
         end $$;
         create trigger lower_id before insert on embeddings for each row execute function lower_id()",
    )
    .await;
    let rows = [("A", "1"), ("b", "2"), ("a", "3"), ("B", "4"), ("c", "5"), ("b", "6")];
    let mut expected = BTreeMap::new();
    for (id, text) in rows {
        expected.insert(id.to_lowercase(), text.to_owned());
    }
    let rows = rows.map(|(id, text)| row(id, text, &[1.0]));
    let mut transaction = connection.begin().await.unwrap();
    let spared = transaction.upsert_sparing(&table, &rows, Overwrite::Always, usize::MAX).await.unwrap();
    assert!(spared.refused.is_empty());
    let _committed = transaction.commit().await.unwrap();
    let found = connection.client().query("select id, text from embeddings", &[]).await.unwrap();
    let found: BTreeMap<String, String> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_is_not_the_fault_of_a_row_is_returned_at_once() {
    let (database, connection, table) = Database::with_table(1).await;
    run(&connection, &format!("{REFUSE}{ON_WRITE}")).await;
    for (code, class) in [("40001", Class::Transient), ("53100", Class::Transient), ("XX000", Class::Fatal)] {
        let wire = Wire::before(options("postgres").port, Silence::Never).await;
        let mut through = database.options();
        (through.port, through.prepared) = (wire.port(), false);
        let mut connection = Connection::open(&through).await.unwrap();
        let mut ids: Vec<String> = (0..8).map(|index| index.to_string()).collect();
        ids[5] = format!("5!{code}");
        let mut transaction = connection.begin().await.unwrap();
        wire.said();
        let error =
            transaction.upsert_sparing(&table, &rows(&ids), Overwrite::Always, usize::MAX).await.unwrap_err();
        assert_eq!((error.class(), error.sqlstate().unwrap().code()), (class, code));
        assert_eq!(wire.said().iter().filter(|said| said.kind == b'E').count(), 1, "{code}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_to_spare_is_not_sent() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let mut transaction = connection.begin().await.unwrap();
    let spared = transaction.upsert_sparing(&table, &[], Overwrite::Always, usize::MAX).await.unwrap();
    assert_eq!((spared.changed, spared.refused.len()), (0, 0));
    let spared = transaction.delete_sparing(&table, &[], Overwrite::Always, usize::MAX).await.unwrap();
    assert_eq!((spared.changed, spared.refused.len()), (0, 0));
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn what_would_be_refused_at_commit_is_found_when_constraints_are_checked_at_once() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(
        &connection,
        &format!(
            "{REFUSE} create constraint trigger refuse after insert on embeddings deferrable initially deferred \
             for each row execute function refuse()"
        ),
    )
    .await;
    let ids = ["a", "b!P0001", "c", "d!23514", "e"].map(str::to_owned);

    let mut transaction = connection.begin().await.unwrap();
    let spared =
        transaction.upsert_sparing(&table, &rows(&ids), Overwrite::Always, usize::MAX).await.unwrap();
    assert!(spared.refused.is_empty(), "nothing is found before the commit");
    assert_eq!(transaction.check_constraints_at_once().await.unwrap_err().class(), Class::Data);
    transaction.rollback().await.unwrap();

    let mut transaction = connection.begin().await.unwrap();
    transaction.check_constraints_at_once().await.unwrap();
    let spared =
        transaction.upsert_sparing(&table, &rows(&ids), Overwrite::Always, usize::MAX).await.unwrap();
    assert_eq!(spared.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1, 3]);
    let _committed = transaction.commit().await.unwrap();
    assert_eq!(
        one::<String>(&connection, "select string_agg(id, '' order by id) from embeddings").await,
        "ace"
    );
}

#[tokio::test]
async fn sparing_respects_newer_rows_and_counts_them() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, &format!("{REFUSE}{ON_WRITE}")).await;
    write(&mut connection, &table, &[VectorRow { timestamp: Some(10), ..row("newer", "stays", &[1.0]) }])
        .await;
    let incoming =
        ["a", "b!P0001", "newer", "c"].map(|id| VectorRow { timestamp: Some(5), ..row(id, "late", &[1.0]) });
    let mut transaction = connection.begin().await.unwrap();
    let spared =
        transaction.upsert_sparing(&table, &incoming, Overwrite::NotNewer, usize::MAX).await.unwrap();
    assert_eq!((spared.changed, spared.stale), (2, 1));
    assert_eq!(spared.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1]);
    let keys = ["a", "newer", "c"].map(|id| Deletion { id, timestamp: Some(7) });
    let spared = transaction.delete_sparing(&table, &keys, Overwrite::NotNewer, usize::MAX).await.unwrap();
    assert_eq!((spared.changed, spared.stale, spared.refused.len()), (2, 1, 0));
    let _committed = transaction.commit().await.unwrap();
    assert_eq!(
        one::<String>(&connection, "select string_agg(id || text, ',') from embeddings").await,
        "newerstays"
    );
}
