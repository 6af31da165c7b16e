//! What goes over the wire, with and without a pooler in mind.

use sink_postgres_vector::{Connection, Deletion, Migrator, Overwrite, VectorTable};
use tokio_postgres::types::Type;

use crate::support::{
    Database, MIGRATIONS, one, options, row, run, spec,
    wire::{Said, Silence, Wire},
};

const RIGHTS: &[(&str, &[&str])] = &[("embedsink.offsets", &["select", "insert", "update"])];

/// Does everything there is to do, and gives what was said: while opening, checking and migrating, and while writing.
async fn everything(database: &Database, prepared: bool) -> (Vec<Said>, Vec<Said>) {
    let wire = Wire::before(options("postgres").port, Silence::Never).await;
    let mut through = database.options();
    (through.port, through.prepared) = (wire.port(), prepared);
    let spec = spec(1);
    let specs = std::slice::from_ref(&spec);
    let migrator = Migrator::new(MIGRATIONS);
    let mut connection = Connection::open(&through).await.unwrap();
    migrator.check(connection.client(), specs).await.unwrap_err();
    VectorTable::check(connection.client(), &spec).await.unwrap_err();
    migrator.apply(&mut connection, specs).await.unwrap();
    migrator.check(connection.client(), specs).await.unwrap();
    migrator.check_rights(connection.client(), RIGHTS).await.unwrap();
    let table = VectorTable::check(connection.client(), &spec).await.unwrap();
    let prologue = wire.said();
    for text in ["first", "second"] {
        for overwrite in [Overwrite::Always, Overwrite::NotNewer, Overwrite::Older] {
            let mut transaction = connection.begin_for(1 << 20).await.unwrap();
            let client = transaction.client();
            let ledger = "update embedsink.offsets set next_offset = $1 returning next_offset";
            let moved = client.query_typed(ledger, &[(&1_i64, Type::INT8)]);
            transaction.during("move", moved).await.unwrap();
            let rows = [row("a", text, &[1.0]), row("b", text, &[1.0])];
            transaction.upsert(&table, &rows, overwrite).await.unwrap();
            transaction.check_constraints_at_once().await.unwrap();
            transaction.upsert_sparing(&table, &rows, overwrite, usize::MAX).await.unwrap();
            let keys = [Deletion { id: "b", timestamp: Some(i64::MAX) }];
            transaction.delete(&table, &keys, overwrite).await.unwrap();
            transaction.delete_sparing(&table, &keys, overwrite, usize::MAX).await.unwrap();
            let _committed = transaction.commit().await.unwrap();
        }
    }
    assert_eq!(one::<i64>(&database.connect().await, "select count(*) from embeddings").await, 1);
    (prologue, wire.said())
}

fn named(said: &[Said]) -> Vec<&str> {
    said.iter()
        .filter(|said| said.kind == b'P')
        .map(|said| said.text.as_str())
        .filter(|name| !name.is_empty())
        .collect()
}

/// What is set beyond the transaction.
fn settings(said: &[Said]) -> Vec<&str> {
    let beyond = |text: &str| {
        text.contains("set_config")
            || text.split(';').any(|sql| {
                sql.trim().starts_with("set ")
                    && !sql.contains("set local")
                    && !sql.contains("set constraints")
            })
    };
    said.iter().map(|said| said.text.as_str()).filter(|text| beyond(text)).collect()
}

#[tokio::test]
async fn with_a_pooler_no_statement_has_a_name_and_no_setting_outlives_its_transaction() {
    let database = Database::create().await;
    let (prologue, writing) = everything(&database, false).await;
    for said in [prologue, writing] {
        assert!(said.iter().any(|said| said.kind == b'P'));
        assert_eq!(named(&said), Vec::<&str>::new());
        assert_eq!(settings(&said), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn without_a_pooler_the_statements_that_write_rows_are_prepared_once_and_no_others() {
    let database = Database::create().await;
    let (prologue, writing) = everything(&database, true).await;
    assert_eq!(named(&prologue), Vec::<&str>::new());
    assert_eq!(settings(&prologue).len(), 1, "that our end is noticed");
    let mut names = named(&writing);
    // An upsert, three deletes, and what the driver asks about the type of the vector.
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "none is prepared twice");
    assert!((4..=7).contains(&count), "{names:?}");
}

#[tokio::test]
async fn an_update_without_names_does_as_much_as_one_with_them() {
    let (database, _connection, table) = Database::with_table(1).await;
    let mut options = database.options();
    options.prepared = false;
    let mut connection = Connection::open(&options).await.unwrap();
    run(&connection, "set search_path = ''").await;
    for (text, changed) in [("old", 1), ("new", 1), ("new", 0)] {
        assert_eq!(crate::support::write(&mut connection, &table, &[row("a", text, &[1.0])]).await, changed);
    }
}
