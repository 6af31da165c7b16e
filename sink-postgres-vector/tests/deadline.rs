//! Whoever falls silent is given up in time, and the connection to him is not used again.
//!
//! Limits of many seconds are awaited in paused time, which jumps to the next limit when nothing else happens.

use std::time::Duration;

use sink_postgres_vector::{Class, Connection, Error, Overwrite};
use tokio::time::{Instant, pause};

use crate::support::{
    Database, one, options, row, run, spec,
    wire::{Silence, Wire},
};

const STATEMENT: Duration = Duration::from_secs(60);

/// The time for the way, on top.
const GRACE: Duration = Duration::from_secs(15);

async fn open_before(silence: Silence, limit: Duration) -> (Wire, Result<Connection, Error>) {
    let wire = Wire::before(options("postgres").port, silence).await;
    let mut options = options("postgres");
    (options.port, options.connect_timeout) = (wire.port(), limit);
    options.statement_timeout = STATEMENT;
    let opened = Connection::open(&options).await;
    (wire, opened)
}

fn is_given_up(error: &Error, action: &str, limit: Duration) {
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.is_closed(), "{error}");
    let text = format!("could not {action}: no answer within {} s", limit.as_secs_f32());
    assert!(error.to_string().starts_with(&text), "{error} is not {text}");
}

#[tokio::test]
async fn opening_ends_in_time_wherever_the_server_falls_silent() {
    let limit = Duration::from_millis(200);
    for silence in [
        Silence::Connect,
        Silence::Login,
        Silence::At(b'Q', "SHOW transaction_read_only"),
        Silence::At(b'Q', "select set_config"),
    ] {
        let started = Instant::now();
        let (wire, opened) = open_before(silence, limit).await;
        let error = opened.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{silence:?}: {error}");
        assert!(error.to_string().ends_with("no answer within 0.2 s"), "{silence:?}: {error}");
        assert!(started.elapsed() < Duration::from_secs(2), "{silence:?}");
        assert_ne!(wire.said(), [], "{silence:?}");
    }
}

#[tokio::test]
async fn a_statement_that_is_not_answered_ends_in_time_and_so_does_its_connection() {
    let limit = STATEMENT + GRACE;
    let (_wire, opened) = open_before(Silence::At(b'Q', "begin"), GRACE).await;
    let mut connection = opened.unwrap();
    pause();
    let started = Instant::now();
    let error = connection.begin().await.unwrap_err();
    is_given_up(&error, "begin a transaction", limit);
    assert!(started.elapsed() - limit < Duration::from_secs(1));
    assert!(connection.is_closed());
    assert!(connection.begin().await.unwrap_err().is_closed());
}

#[tokio::test]
async fn outside_a_transaction_too_a_connection_that_timed_out_is_closed_at_once() {
    let (_wire, opened) = open_before(Silence::At(b'Q', "select 1"), GRACE).await;
    let mut connection = opened.unwrap();
    pause();
    let error = connection.during("ask", connection.client().batch_execute("select 1")).await.unwrap_err();
    is_given_up(&error, "ask", STATEMENT + GRACE);
    assert!(connection.is_closed());
    assert!(connection.begin().await.unwrap_err().is_closed());
}

#[tokio::test]
async fn a_large_statement_that_gets_stuck_half_way_ends_in_time_and_leaves_nothing() {
    let (database, connection, table) = Database::with_table(1).await;
    let wire = Wire::before(options("postgres").port, Silence::Within(b'B', 1 << 20)).await;
    let mut through = database.options();
    (through.port, through.statement_timeout) = (wire.port(), STATEMENT);
    let mut stuck = Connection::open(&through).await.unwrap();
    let text = "x".repeat(32 << 20);
    let mut transaction = stuck.begin_for(text.len()).await.unwrap();
    transaction.upsert(&table, &[row("small", "x", &[1.0])], Overwrite::Always).await.unwrap();
    pause();
    let error = transaction.upsert(&table, &[row("a", &text, &[1.0])], Overwrite::Always).await.unwrap_err();
    // 32 MiB at 256 KiB/s.
    is_given_up(&error, "write to \"embeddings\"", STATEMENT + GRACE + Duration::from_secs(128));
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(error.is_closed() && stuck.is_closed());
    tokio::time::resume();
    assert_eq!(one::<i64>(&connection, "select count(*) from embeddings").await, 0);
}

#[tokio::test]
async fn an_unanswered_commit_is_in_doubt_and_its_connection_is_closed() {
    let (_wire, opened) = open_before(Silence::At(b'Q', "select; commit"), GRACE).await;
    let mut connection = opened.unwrap();
    let transaction = connection.begin().await.unwrap();
    pause();
    let error = transaction.commit().await.unwrap_err();
    is_given_up(&error, "commit", STATEMENT + GRACE);
    assert!(error.is_in_doubt());
    assert!(connection.is_closed());
}

#[tokio::test]
async fn questions_to_the_catalog_end_in_time() {
    let (_wire, opened) = open_before(Silence::At(b'P', ""), GRACE).await;
    let connection = opened.unwrap();
    pause();
    let error = sink_postgres_vector::VectorTable::check(connection.client(), &spec(1)).await.unwrap_err();
    assert!(error.to_string().ends_with("no answer within 60 s"), "{error}");
    let migrator = sink_postgres_vector::Migrator::new(crate::support::MIGRATIONS);
    let error = migrator.check(connection.client(), &[]).await.unwrap_err();
    assert!(error.to_string().ends_with("no answer within 60 s"), "{error}");
    let error = migrator.check_rights(connection.client(), &[]).await.unwrap_err();
    assert!(error.to_string().ends_with("no answer within 60 s"), "{error}");
}

#[tokio::test]
async fn closing_ends_in_time() {
    let (_wire, opened) = open_before(Silence::At(b'X', ""), GRACE).await;
    let connection = opened.unwrap();
    pause();
    let started = Instant::now();
    connection.close().await;
    assert!(started.elapsed() <= Duration::from_secs(3));
}

#[tokio::test]
async fn a_limit_that_the_database_sets_for_transactions_ends_no_build_and_no_batch() {
    let (database, connection, _table) = Database::with_table(1).await;
    let name: String = one(&connection, "select current_database()::text").await;
    run(&connection, &format!("alter database \"{name}\" set transaction_timeout = '1s'")).await;
    let later = database.connect().await;
    assert_eq!(one::<String>(&later, "select current_setting('transaction_timeout')").await, "0");
}
