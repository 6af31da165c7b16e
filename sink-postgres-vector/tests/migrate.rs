//! Migrations: once, in turn, unchanged.

use sink_postgres_vector::{Class, MigrateError, Migration, Migrator};

use crate::support::{Database, MIGRATIONS, one, options, run, spec};

static TWO: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        number: 2,
        name: "more",
        sql: "create table more ()",
    },
];
static EDITED: &[Migration] = &[Migration {
    sql: "select 1",
    ..MIGRATIONS[0]
}];
static FAILING: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        number: 2,
        name: "half",
        sql: "create table half (); select 1 / 0",
    },
    Migration {
        number: 3,
        name: "never",
        sql: "create table never ()",
    },
];

#[tokio::test]
async fn the_first_run_applies_and_the_second_finds_nothing_to_do() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);

    let missing = migrator
        .check(connection.client(), &tables)
        .await
        .unwrap_err()
        .to_string();
    let all = "missing: the extension vector, migration 0001_bookkeeping, table \"embeddings\"";
    assert!(missing.contains(all), "{missing}");
    assert!(
        one::<bool>(&connection, "select to_regnamespace('embedsink') is null").await,
        "check changes nothing"
    );

    let applied = migrator.apply(&mut connection, &tables).await.unwrap();
    assert!(applied.extension);
    assert_eq!(applied.migrations, ["0001_bookkeeping"]);
    assert_eq!(applied.tables, [spec(3).name]);
    assert_eq!(
        migrator.apply(&mut connection, &tables).await.unwrap(),
        Default::default()
    );
    migrator.check(connection.client(), &tables).await.unwrap();
    let stored = "select name || length(checksum) from embedsink.migrations";
    assert_eq!(one::<String>(&connection, stored).await, "bookkeeping64");
}

#[tokio::test]
async fn programs_that_start_together_take_turns() {
    let database = Database::create().await;
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let options = database.options();
            tokio::spawn(async move {
                let mut connection = sink_postgres_vector::Connection::open(&options).await.unwrap();
                Migrator::new(TWO)
                    .apply(&mut connection, &[spec(3)])
                    .await
                    .unwrap()
            })
        })
        .collect();
    let (mut extensions, mut migrations, mut tables) = (0, Vec::new(), 0);
    for run in runs {
        let applied = run.await.unwrap();
        extensions += usize::from(applied.extension);
        migrations.extend(applied.migrations);
        tables += applied.tables.len();
    }
    migrations.sort();
    assert_eq!((extensions, tables), (1, 1));
    assert_eq!(migrations, ["0001_bookkeeping", "0002_more"]);
}

#[tokio::test]
async fn an_edited_migration_is_refused_by_name() {
    let (_database, mut connection) = Database::migrated().await;
    let migrator = Migrator::new(EDITED);
    let error = migrator.apply(&mut connection, &[]).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Changed { migration } if migration == "0001_bookkeeping"),
        "{error}"
    );
    assert!(matches!(
        migrator.check(connection.client(), &[]).await,
        Err(MigrateError::Changed { .. })
    ));
}

#[tokio::test]
async fn other_line_ends_are_no_edit() {
    let (_database, mut connection) = Database::migrated().await;
    let sql: &'static str = MIGRATIONS[0].sql.replace('\n', "\r\n").leak();
    let migrations: &'static [Migration] = vec![Migration { sql, ..MIGRATIONS[0] }].leak();
    Migrator::new(migrations)
        .apply(&mut connection, &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (_database, mut connection) = Database::migrated().await;
    Migrator::new(TWO).apply(&mut connection, &[]).await.unwrap();
    let error = Migrator::new(MIGRATIONS)
        .apply(&mut connection, &[])
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("migrated by a newer version"),
        "{error}"
    );
    assert!(matches!(error, MigrateError::Newer { number: 2, .. }));
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_of_itself_and_keeps_those_before() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let error = Migrator::new(FAILING)
        .apply(&mut connection, &[])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not apply migration 0002_half"),
        "{error}"
    );
    let connection = database.connect().await;
    assert!(
        one::<bool>(
            &connection,
            "select to_regclass('half') is null and to_regclass('never') is null"
        )
        .await
    );
    assert_eq!(
        one::<i64>(&connection, "select count(*) from embedsink.migrations").await,
        1
    );
}

#[tokio::test]
async fn a_role_that_may_create_nothing_starts_on_a_database_that_is_up_to_date() {
    let database = Database::create().await;
    let mut owner = database.connect().await;
    let role = format!("{}_plain", database.name());
    run(&owner, &format!("create role {role} login")).await;
    let mut plain = options(database.name());
    plain.user.clone_from(&role);
    let mut connection = sink_postgres_vector::Connection::open(&plain).await.unwrap();
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);

    let error = migrator.apply(&mut connection, &tables).await.unwrap_err();
    assert!(matches!(error, MigrateError::ExtensionNotPermitted), "{error}");
    assert!(error.remedy().unwrap().contains("create extension vector;"));
    run(&owner, "create extension vector").await;
    match migrator.apply(&mut connection, &tables).await.unwrap_err() {
        MigrateError::Database(error) => assert_eq!(error.class(), Class::Configuration),
        error => panic!("{error}"),
    }

    migrator.apply(&mut owner, &tables).await.unwrap();
    run(
        &owner,
        &format!("grant usage on schema embedsink to {role}; grant select on embedsink.migrations to {role}"),
    )
    .await;
    let mut connection = sink_postgres_vector::Connection::open(&plain).await.unwrap();
    assert_eq!(
        migrator.apply(&mut connection, &tables).await.unwrap(),
        Default::default()
    );
    run(&owner, &format!("drop owned by {role}; drop role {role}")).await;
}
