//! How it fails: what becomes of the transaction, which class, and which text.

use std::time::Duration;

use sink_postgres_vector::{Class, Connection, Deletion, Error, Overwrite, VectorRow};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Database, one, options, row, run, write};

const CANARY: &str = "canary-7f3a";

fn everything(error: &Error) -> String {
    let sources = std::error::Error::source(error).map(ToString::to_string);
    format!("{error} {error:?} {sources:?} {:?}", error.remedy())
}

#[tokio::test]
async fn a_server_that_refuses_settings_of_the_session_can_be_written_to() {
    let (database, owner, table) = Database::with_table(1).await;
    let role = format!("{}_unset", database.name());
    let prepare = format!(
        "create role {role} login; grant all on embeddings to {role};
         revoke execute on function pg_catalog.set_config(text, text, boolean) from public"
    );
    run(&owner, &prepare).await;
    let mut theirs = database.options();
    theirs.user.clone_from(&role);
    let mut connection = Connection::open(&theirs).await.unwrap();
    let refused = "select set_config('client_connection_check_interval', '5s', false)";
    let error = connection.client().batch_execute(refused).await.unwrap_err();
    assert_eq!(error.code().map(|state| state.code()), Some("42501"), "it was refused at the start too");
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0])]).await, 1);
    run(&owner, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_and_its_connection_is_not_used_again() {
    let (database, mut connection, table) = Database::with_table(1).await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap();
    drop(transaction);
    assert!(connection.is_closed());
    let error = connection.begin().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(error.is_closed());
    let mut connection = database.connect().await;
    assert_eq!(one::<i64>(&connection, "select count(*) from embeddings").await, 0);
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0])]).await, 1, "no lock is left");
}

#[tokio::test]
async fn a_write_given_up_half_way_leaves_nothing() {
    let (database, mut connection, table) = Database::with_table(1).await;
    write(&mut connection, &table, &[row("a", "x", &[1.0])]).await;
    let holder = database.connect().await;
    run(&holder, "begin; update embeddings set text = 'held'").await;
    let mut transaction = connection.begin().await.unwrap();
    let rows = [row("0", "given up", &[1.0]), row("a", "given up", &[1.0])];
    tokio::select! {
        biased;
        _ = transaction.upsert(&table, &rows, Overwrite::Always) => unreachable!("the row is locked"),
        () = std::future::ready(()) => drop(transaction),
    }
    assert!(connection.is_closed());
    run(&holder, "rollback").await;
    let mut connection = database.connect().await;
    assert_eq!(write(&mut connection, &table, &[row("0", "x", &[1.0]), row("a", "x", &[1.0])]).await, 1);
    assert_eq!(one::<i64>(&connection, "select count(*) from embeddings where text = 'given up'").await, 0);
}

#[tokio::test]
async fn a_rolled_back_transaction_leaves_nothing_and_its_connection_is_used_again() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(one::<i64>(&connection, "select count(*) from embeddings").await, 0);
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0])]).await, 1);
    connection.close().await;
}

#[tokio::test]
async fn a_failed_transaction_does_not_commit_as_if_nothing_had_happened() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap();
    transaction.client().batch_execute("select 1 / 0").await.unwrap_err();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().code(), "25P02");
    assert!(!error.is_in_doubt());
}

#[tokio::test]
async fn a_killed_backend_is_transient_and_says_what_ended_it() {
    let (database, mut connection, table) = Database::with_table(1).await;
    let killer = database.connect().await;
    let backend: i32 = one(&connection, "select pg_backend_pid()").await;
    let kill = format!("select pg_terminate_backend({backend}, 10000)");

    let mut transaction = connection.begin().await.unwrap();
    transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap();
    assert!(one::<bool>(&killer, &kill).await);
    let error = transaction.upsert(&table, &[row("b", "x", &[1.0])], Overwrite::Always).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert_eq!(error.sqlstate().unwrap().code(), "57P01", "{error}");
    assert!(error.is_closed());
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.is_in_doubt());
    assert!(connection.is_closed());
    assert_eq!(one::<i64>(&killer, "select count(*) from embeddings").await, 0);
}

#[tokio::test]
async fn two_rows_with_one_key_are_refused_together() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let mut transaction = connection.begin().await.unwrap();
    let twice = [row(CANARY, "x", &[1.0]), row(CANARY, "y", &[1.0])];
    let error = transaction.upsert(&table, &twice, Overwrite::Always).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Data, "21000"));
    assert!(!everything(&error).contains(CANARY), "{error}");
}

#[tokio::test]
async fn a_lock_held_by_someone_else_is_transient() {
    let (database, mut connection, table) = Database::with_table(1).await;
    write(&mut connection, &table, &[row("a", "x", &[1.0])]).await;
    let holder = database.connect().await;
    run(&holder, "begin; update embeddings set text = 'held'").await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.client().batch_execute("set local lock_timeout = '1ms'").await.unwrap();
    let error = transaction.upsert(&table, &[row("a", "y", &[1.0])], Overwrite::Always).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Transient, "55P03"));
    transaction.rollback().await.unwrap();
    run(&holder, "rollback").await;
    assert_eq!(write(&mut connection, &table, &[row("a", "y", &[1.0])]).await, 1);
}

#[tokio::test]
async fn limits_are_set_for_each_transaction() {
    let (_database, mut connection) = Database::migrated().await;
    let transaction = connection.begin().await.unwrap();
    for (name, value) in [
        ("lock_timeout", "10s"),
        ("statement_timeout", "5min"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("transaction_isolation", "read committed"),
    ] {
        let shown: String =
            transaction.client().query_one(&format!("show {name}"), &[]).await.unwrap().get(0);
        assert_eq!(shown, value, "{name}");
    }
}

#[tokio::test]
async fn a_commit_that_a_deferred_constraint_refuses_is_not_in_doubt() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    let parent = "create table sources (name varchar(255) primary key); alter table embeddings \
                  add foreign key (source) references sources deferrable initially deferred";
    run(&connection, parent).await;
    let mut transaction = connection.begin().await.unwrap();
    let orphan = VectorRow { source: Some(CANARY), ..row("a", "x", &[1.0]) };
    transaction.upsert(&table, &[orphan], Overwrite::Always).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Data);
    assert!(!error.is_in_doubt());
    assert!(!everything(&error).contains(CANARY), "{error}");
}

#[tokio::test]
async fn no_error_text_quotes_a_row() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "create unique index second on embeddings (text)").await;
    run(&connection, "alter table embeddings add constraint polite check (text not like 'rude%')").await;
    run(
        &connection,
        "create function refuse() returns trigger language plpgsql as $$ begin
           if new.source like 'code%' then
             raise notice 'a notice about %', new;
             raise exception using message = new::text, detail = new::text, hint = new::text,
               errcode = substr(new.source, 5, 5);
           end if;
           return new;
         end $$;
         create trigger refuse before insert on embeddings for each row execute function refuse()",
    )
    .await;
    write(&mut connection, &table, &[row("first", CANARY, &[1.0])]).await;

    let long = format!("{CANARY}{}", "x".repeat(300));
    let rude = format!("rude {CANARY}");
    let not_json = format!("{{\"a\": {CANARY}");
    let base = row(CANARY, "x", &[1.0]);
    let mut refused = vec![
        (VectorRow { text: Some(CANARY), ..base }, "23505", Class::Data),
        (VectorRow { text: Some(&rude), ..base }, "23514", Class::Data),
        (VectorRow { id: &long, ..base }, "22001", Class::Data),
        (VectorRow { metadata: Some(&not_json), ..base }, "22P02", Class::Data),
        (VectorRow { text: Some("canary-7f3a\0"), ..base }, "22021", Class::Data),
        (VectorRow { metadata: Some(r#"{"canary-7f3a": "\u0000"}"#), ..base }, "22P05", Class::Data),
    ];
    for (source, class) in [
        ("codeP0001", Class::Data),
        ("code53100", Class::Transient),
        ("code28000", Class::Configuration),
        ("code57014", Class::Transient),
        ("code08006", Class::Transient),
        ("code42501", Class::Configuration),
        ("codeXX000", Class::Fatal),
    ] {
        refused.push((VectorRow { source: Some(source), ..base }, &source[4..], class));
    }
    for (row, code, class) in refused {
        let mut transaction = connection.begin().await.unwrap();
        let error = transaction.upsert(&table, &[row], Overwrite::Always).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().code(), code, "{error}");
        assert_eq!(error.class(), class, "{error}");
        assert!(!everything(&error).contains("canary"), "{code}: {}", everything(&error));
        assert!(error.to_string().starts_with("could not write to \"embeddings\": "), "{error}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_constraint_is_named_with_its_table() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(&connection, "create unique index second on embeddings (text)").await;
    let mut transaction = connection.begin().await.unwrap();
    let twins = [row("a", "same", &[1.0]), row("b", "same", &[1.0])];
    let error = transaction.upsert(&table, &twins, Overwrite::Always).await.unwrap_err();
    assert!(error.to_string().ends_with("(SQLSTATE 23505, constraint second, table embeddings)"), "{error}");
    assert!(error.remedy().unwrap().contains("second"));
}

#[tokio::test]
async fn a_table_changed_under_our_feet_is_configuration() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    write(&mut connection, &table, &[row("a", "x", &[1.0])]).await;
    for (change, code) in [
        ("alter table embeddings rename column text to body", "42703"),
        ("alter table embeddings rename to other", "42P01"),
    ] {
        run(&connection, change).await;
        let mut transaction = connection.begin().await.unwrap();
        let error =
            transaction.upsert(&table, &[row("a", "y", &[1.0])], Overwrite::Always).await.unwrap_err();
        assert_eq!(
            (error.class(), error.sqlstate().unwrap().code()),
            (Class::Configuration, code),
            "{error}"
        );
        assert!(error.remedy().is_some());
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_database_says_how_to_create_it() {
    let error = Connection::open(&options("no \"such\" database")).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Configuration, "3D000"));
    assert!(error.to_string().contains("as postgres: the database does not exist"), "{error}");
    assert!(error.remedy().unwrap().contains(r#"create database "no ""such"" database";"#), "{error}");
}

#[tokio::test]
async fn a_missing_role_is_configuration() {
    let mut options = options("postgres");
    options.user = "nobody at all".into();
    let error = Connection::open(&options).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Configuration, "28000"), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_is_transient() {
    let mut options = options("postgres");
    options.connect_timeout = Duration::from_millis(50);

    // Bound and dropped: nobody listens there any more.
    options.port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = Connection::open(&options).await.unwrap_err();
    assert_eq!(refused.class(), Class::Transient, "{refused}");
    assert!(refused.to_string().contains("Connection refused"), "{refused}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    options.port = silent.local_addr().unwrap().port();
    let timed_out = Connection::open(&options).await.unwrap_err();
    assert_eq!(timed_out.class(), Class::Transient, "{timed_out}");
    assert!(timed_out.to_string().contains("no answer within 0.05 s"), "{timed_out}");

    options.host = "no-such-host.invalid".into();
    options.connect_timeout = Duration::from_secs(10);
    let unknown = Connection::open(&options).await.unwrap_err();
    assert_eq!(unknown.class(), Class::Transient, "{unknown}");

    options.host = "/no/such/directory".into();
    let absent = Connection::open(&options).await.unwrap_err();
    assert_eq!(absent.class(), Class::Transient, "{absent}");
}

#[tokio::test]
async fn a_read_only_server_is_not_available_yet() {
    let (database, mut connection, table) = Database::with_table(1).await;
    let read_only = format!("alter database {} set default_transaction_read_only = on", database.name());
    run(&connection, &read_only).await;
    let error = Connection::open(&database.options()).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains("read-only"), "{error}");

    run(&connection, "set default_transaction_read_only = on").await;
    let mut transaction = connection.begin().await.unwrap();
    let error = transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Transient, "25006"));
}

#[tokio::test]
async fn a_transaction_for_many_bytes_may_be_idle_while_they_arrive() {
    let (_database, mut connection) = Database::migrated().await;
    for (bytes, seconds) in [
        (0, 10),
        (1, 11),
        (256 << 10, 11),
        ((256 << 10) + 1, 12),
        (8 << 20, 42),
        (256 << 20, 1034),
        (usize::MAX, 2_147_483),
    ] {
        let transaction = connection.begin_for(bytes).await.unwrap();
        let limit =
            "select setting::bigint from pg_settings where name = 'idle_in_transaction_session_timeout'";
        let limit: i64 = transaction.client().query_one(limit, &[]).await.unwrap().get(0);
        assert_eq!(limit, seconds * 1000, "for {bytes} bytes, in ms");
        transaction.rollback().await.unwrap();
    }
    let after: String = one(&connection, "show idle_in_transaction_session_timeout").await;
    assert_eq!(after, "0", "it ends with the transaction");
}

#[tokio::test]
async fn too_slow_for_the_batch_says_to_write_smaller_ones() {
    let (database, mut connection) = Database::migrated().await;
    let transaction = connection.begin().await.unwrap();
    let slow = "set local statement_timeout = '1ms'; select pg_sleep(10)";
    let error = transaction.during("wait", transaction.client().batch_execute(slow)).await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().code(), "57014", "{error}");
    assert!(error.remedy().unwrap().contains("smaller batches (batch.max-bytes"), "{error}");
    transaction.rollback().await.unwrap();

    let watcher = database.connect().await;
    let backend: i32 = one(&connection, "select pg_backend_pid()").await;
    let transaction = connection.begin().await.unwrap();
    let idle = "set local idle_in_transaction_session_timeout = '1ms'";
    transaction.client().batch_execute(idle).await.unwrap();
    let gone = format!("select not exists (select from pg_stat_activity where pid = {backend})");
    tokio::time::timeout(Duration::from_secs(10), async {
        while !one::<bool>(&watcher, &gone).await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let error = transaction.during("wait", transaction.client().batch_execute("select")).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Transient, "25P03"), "{error}");
    assert!(error.is_closed());
    assert!(error.remedy().unwrap().contains("smaller batches (batch.max-bytes"), "{error}");
}

#[tokio::test]
async fn a_right_taken_away_is_named_with_its_grant() {
    let (database, owner, table) = Database::with_table(1).await;
    let role = format!("{}_writer", database.name());
    run(&owner, &format!("create role {role} login; grant select on embeddings to {role}")).await;
    let mut theirs = database.options();
    theirs.user.clone_from(&role);
    let mut connection = Connection::open(&theirs).await.unwrap();
    let grant = format!(
        "Let the owner or an administrator run, in the database \"{}\": grant usage on schema \"public\" to \
         \"{role}\"; grant select, insert, update, delete on \"public\".\"embeddings\" to \"{role}\";",
        database.name()
    );

    let mut transaction = connection.begin().await.unwrap();
    let error = transaction.upsert(&table, &[row("a", "x", &[1.0])], Overwrite::Always).await.unwrap_err();
    assert_eq!((error.class(), error.remedy()), (Class::Configuration, Some(grant.clone())), "{error}");
    transaction.rollback().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let error = transaction
        .delete(&table, &[Deletion { id: "a", timestamp: None }], Overwrite::Always)
        .await
        .unwrap_err();
    assert_eq!(error.remedy(), Some(grant.clone()), "{error}");
    transaction.rollback().await.unwrap();
    let transaction = connection.begin().await.unwrap();
    let read = transaction.client().batch_execute("select from embedsink.offsets");
    let remedy = transaction.during("read", read).await.unwrap_err().remedy().unwrap();
    assert!(remedy.contains(&format!("the role \"{role}\" what it lacks in the database \"")), "{remedy}");
    transaction.rollback().await.unwrap();

    run(&owner, grant.split_once("\": ").unwrap().1).await;
    assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0])]).await, 1);
    run(&owner, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_vector_of_another_dimension_is_data() {
    let (_database, mut connection, table) = Database::with_table(3).await;
    for embedding in [&[1.0, 2.0][..], &[1.0, 2.0, 3.0, 4.0]] {
        let mut transaction = connection.begin().await.unwrap();
        let error =
            transaction.upsert(&table, &[row("a", "x", embedding)], Overwrite::Always).await.unwrap_err();
        assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Data, "22000"), "{error}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_takes_no_connections_is_waited_for() {
    let database = Database::create().await;
    let server = Connection::open(&options("postgres")).await.unwrap();
    run(&server, &format!("alter database {} allow_connections false", database.name())).await;
    let error = Connection::open(&database.options()).await.unwrap_err();
    assert_eq!((error.class(), error.sqlstate().unwrap().code()), (Class::Transient, "55000"), "{error}");
}

#[tokio::test]
async fn names_that_a_function_made_up_are_not_shown() {
    let (_database, mut connection, table) = Database::with_table(1).await;
    run(
        &connection,
        "create function refuse() returns trigger language plpgsql as $$ begin
           raise exception using errcode = '23514', constraint = new.text, table = new.text, column = new.text;
         end $$;
         create trigger refuse before insert on embeddings for each row execute function refuse()",
    )
    .await;
    let mut transaction = connection.begin().await.unwrap();
    let error = transaction.upsert(&table, &[row("a", CANARY, &[1.0])], Overwrite::Always).await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().code(), "23514");
    assert!(!everything(&error).contains(CANARY), "{}", everything(&error));
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn a_pooler_that_lost_its_server_ends_the_session_in_its_own_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options("postgres");
    options.port = listener.local_addr().unwrap().port();
    let pooler = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut startup = vec![0; socket.read_u32().await.unwrap() as usize - 4];
        socket.read_exact(&mut startup).await.unwrap();
        let fields = b"SFATAL\0C08P01\0Mserver conn crashed?\0\0";
        let len = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        socket.write_all(&[b"E", &len[..], fields].concat()).await.unwrap();
    };
    let (error, ()) = tokio::join!(Connection::open(&options), pooler);
    let error = error.unwrap_err();
    assert_eq!((error.class(), error.is_closed()), (Class::Transient, true), "{error}");
    assert!(error.to_string().contains("server conn crashed?"), "{error}");
}
