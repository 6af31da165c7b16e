//! Migrations: once, in turn, unchanged.

use sink_postgres_vector::{
    Class, ConnectOptions, Connection, MigrateError, Migration, Migrator, VectorTable,
};

use crate::support::{Database, MIGRATIONS, one, options, row, run, spec, write};

static TWO: &[Migration] =
    &[MIGRATIONS[0], Migration { number: 2, name: "more", sql: "create table more ()" }];
static EDITED: &[Migration] = &[Migration { sql: "select 1", ..MIGRATIONS[0] }];
static FAILING: &[Migration] = &[
    MIGRATIONS[0],
    Migration { number: 2, name: "half", sql: "create table half (); select 1 / 0" },
    Migration { number: 3, name: "never", sql: "create table never ()" },
];

#[tokio::test]
async fn the_first_run_applies_and_the_second_finds_nothing_to_do() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);

    let missing = migrator.check(connection.client(), &tables).await.unwrap_err().to_string();
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
    assert_eq!(migrator.apply(&mut connection, &tables).await.unwrap(), Default::default());
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
                Migrator::new(TWO).apply(&mut connection, &[spec(3)]).await.unwrap()
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
    assert!(matches!(migrator.check(connection.client(), &[]).await, Err(MigrateError::Changed { .. })));
}

#[tokio::test]
async fn other_line_ends_are_no_edit() {
    let (_database, mut connection) = Database::migrated().await;
    let sql: &'static str = MIGRATIONS[0].sql.replace('\n', "\r\n").leak();
    let migrations: &'static [Migration] = vec![Migration { sql, ..MIGRATIONS[0] }].leak();
    Migrator::new(migrations).apply(&mut connection, &[]).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (_database, mut connection) = Database::migrated().await;
    Migrator::new(TWO).apply(&mut connection, &[]).await.unwrap();
    let error = Migrator::new(MIGRATIONS).apply(&mut connection, &[]).await.unwrap_err();
    assert!(error.to_string().contains("migrated by a newer version"), "{error}");
    assert!(matches!(error, MigrateError::Newer { number: 2, .. }));
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_of_itself_and_keeps_those_before() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let error = Migrator::new(FAILING).apply(&mut connection, &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("could not apply migration 0002_half"), "{error}");
    let connection = database.connect().await;
    assert!(
        one::<bool>(&connection, "select to_regclass('half') is null and to_regclass('never') is null").await
    );
    assert_eq!(one::<i64>(&connection, "select count(*) from embedsink.migrations").await, 1);
}

/// A role that may log in, and nothing else. Dropping the database does not drop it.
struct Plain {
    name: String,
    options: ConnectOptions,
}

impl Plain {
    async fn create(database: &Database, owner: &Connection) -> Self {
        let name = format!("{}_plain", database.name());
        run(owner, &format!("create role {name} login")).await;
        let options = ConnectOptions { user: name.clone(), ..options(database.name()) };
        Self { name, options }
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.options).await.unwrap()
    }

    async fn drop(self, owner: &Connection) {
        let name = self.name;
        run(owner, &format!("drop owned by {name}; drop role {name}")).await;
    }
}

/// Runs the SQL that a remedy tells an administrator to run.
async fn obey(owner: &Connection, remedy: &str) {
    let sql = remedy.rsplit_once("\": ").unwrap().1;
    run(owner, sql.split_once(" or: ").map_or(sql, |(first, _)| first)).await;
}

#[tokio::test]
async fn a_role_that_may_create_nothing_starts_on_a_database_that_is_up_to_date() {
    let database = Database::create().await;
    let mut owner = database.connect().await;
    let plain = Plain::create(&database, &owner).await;
    let mut connection = plain.connect().await;
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);

    let error = migrator.apply(&mut connection, &tables).await.unwrap_err();
    assert!(matches!(error, MigrateError::ExtensionNotPermitted), "{error}");
    assert!(error.remedy().unwrap().contains("create extension vector;"));
    run(&owner, "create extension vector").await;
    migrator.apply(&mut owner, &tables).await.unwrap();

    let (role, name) = (&plain.name, database.name());
    let grant = format!(
        "Let the owner or an administrator run, in the database \"{name}\": grant usage on schema embedsink to \
         \"{role}\"; grant select on embedsink.migrations to \"{role}\";"
    );
    let connection = plain.connect().await;
    let error = migrator.check(connection.client(), &tables).await.unwrap_err();
    assert_eq!(error.remedy(), Some(grant.clone()), "{error}");
    run(&owner, &format!("grant usage on schema embedsink to {role}")).await;
    let error = migrator.check(connection.client(), &tables).await.unwrap_err();
    assert_eq!(error.remedy(), Some(grant.clone()), "{error}");
    obey(&owner, &grant).await;
    let mut connection = plain.connect().await;
    migrator.check(connection.client(), &tables).await.unwrap();
    assert_eq!(migrator.apply(&mut connection, &tables).await.unwrap(), Default::default());
    plain.drop(&owner).await;
}

#[tokio::test]
async fn each_grant_that_a_migration_lacks_is_named_until_nothing_is_missing() {
    let database = Database::create().await;
    let owner = database.connect().await;
    run(&owner, "create extension vector").await;
    let plain = Plain::create(&database, &owner).await;
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);
    let role = &plain.name;
    for (action, grant) in [
        ("create the schema embedsink", format!("create schema embedsink authorization \"{role}\";")),
        (
            "create the table \"embeddings\"",
            format!("grant usage, create on schema \"public\" to \"{role}\";"),
        ),
    ] {
        let error = migrator.apply(&mut plain.connect().await, &tables).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("could not {action}")), "{error}");
        assert!(matches!(&error, MigrateError::Database(error) if error.class() == Class::Configuration));
        let remedy = error.remedy().unwrap();
        assert!(remedy.contains(&grant) && !remedy.contains('…'), "{remedy}");
        obey(&owner, &remedy).await;
    }
    let applied = migrator.apply(&mut plain.connect().await, &tables).await.unwrap();
    assert_eq!(applied.tables, [spec(3).name]);
    plain.drop(&owner).await;
}

#[tokio::test]
async fn a_schema_and_an_extension_made_in_advance_need_no_right_on_the_database() {
    for gift in [
        "create schema embedsink authorization",
        "create schema embedsink; grant usage, create on schema embedsink to",
    ] {
        let database = Database::create().await;
        let owner = database.connect().await;
        let plain = Plain::create(&database, &owner).await;
        let role = &plain.name;
        run(
            &owner,
            &format!("create extension vector; {gift} {role}; create schema {role} authorization {role}"),
        )
        .await;
        let mut connection = plain.connect().await;
        let database_right = "select has_database_privilege(current_database(), 'create')";
        assert!(!one::<bool>(&connection, database_right).await);
        let applied = Migrator::new(MIGRATIONS).apply(&mut connection, &[spec(3)]).await.unwrap();
        assert!(!applied.extension, "it was there");
        assert_eq!(applied.migrations, ["0001_bookkeeping"]);
        let table = VectorTable::check(connection.client(), &spec(3)).await.unwrap();
        assert_eq!(write(&mut connection, &table, &[row("a", "x", &[1.0, 2.0, 3.0])]).await, 1);
        plain.drop(&owner).await;
    }
}

#[tokio::test]
async fn a_schema_made_in_advance_in_which_nothing_may_be_created_says_which_grant_mends_it() {
    let database = Database::create().await;
    let owner = database.connect().await;
    let plain = Plain::create(&database, &owner).await;
    let role = &plain.name;
    run(
        &owner,
        &format!(
            "create extension vector; create schema embedsink; grant usage on schema embedsink to {role}"
        ),
    )
    .await;
    let error = Migrator::new(MIGRATIONS).apply(&mut plain.connect().await, &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("could not create the table embedsink.migrations"), "{error}");
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains(&format!("grant usage, create on schema embedsink to \"{role}\";")), "{remedy}");
    obey(&owner, &remedy).await;
    Migrator::new(MIGRATIONS).apply(&mut plain.connect().await, &[]).await.unwrap();
    plain.drop(&owner).await;
}

#[tokio::test]
async fn rights_on_the_bookkeeping_are_missed_together_and_mended_by_what_is_said() {
    let (database, owner) = Database::migrated().await;
    let plain = Plain::create(&database, &owner).await;
    let (role, migrator) = (&plain.name, Migrator::new(MIGRATIONS));
    let connection = plain.connect().await;
    let tables: [(&str, &[&str]); 2] = [
        ("embedsink.offsets", &["select", "insert", "update"]),
        ("embedsink.dead_letters", &["insert", "select"]),
    ];
    run(&owner, &format!("grant select on embedsink.offsets to {role}")).await;

    let error = migrator.check_rights(connection.client(), &tables).await.unwrap_err();
    let expected = format!(
        "the role lacks rights on tables of the connector:
  The role \"{role}\" may not use the schema embedsink. Fix: grant usage on schema embedsink to \"{role}\";
  The role \"{role}\" lacks rights on the table embedsink.offsets: insert, update. Fix: grant insert, update on \
         embedsink.offsets to \"{role}\";
  The role \"{role}\" lacks rights on the table embedsink.dead_letters: insert, select. Fix: grant insert, select on \
         embedsink.dead_letters to \"{role}\";"
    );
    assert_eq!(error.to_string(), expected);
    let MigrateError::Rights { missing } = error else { panic!("{error}") };
    for mismatch in missing {
        run(&owner, &mismatch.fix).await;
    }
    migrator.check_rights(connection.client(), &tables).await.unwrap();
    let key = "insert into embedsink.dead_letters (connector, topic, partition, \"offset\", reason, message) \
               values ('c', 't', 0, 0, 'r', 'm') returning id";
    assert_eq!(one::<i64>(&connection, key).await, 1, "the identity column needs no right of its own");

    run(&owner, "drop table embedsink.dead_letters").await;
    let error = migrator.check_rights(connection.client(), &tables).await.unwrap_err();
    assert!(error.to_string().contains("There is no table embedsink.dead_letters."), "{error}");
    plain.drop(&owner).await;
}

#[tokio::test]
async fn what_is_pending_names_the_command() {
    let database = Database::create().await;
    let connection = database.connect().await;
    let error = Migrator::new(MIGRATIONS).check(connection.client(), &[]).await.unwrap_err();
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains("Run `embedsink migrate`") && remedy.contains("migrate: auto"), "{remedy}");
}

#[tokio::test]
async fn a_search_path_on_which_no_table_can_be_is_said_before_anything_is_created() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    run(&connection, "set search_path = nowhere, \"\u{20}\"").await;
    let (migrator, tables) = (Migrator::new(MIGRATIONS), [spec(3)]);
    for error in [
        migrator.check(connection.client(), &tables).await.unwrap_err(),
        migrator.apply(&mut connection, &tables).await.unwrap_err(),
    ] {
        assert!(matches!(error, MigrateError::NoSchema { .. }), "{error}");
        assert!(error.to_string().contains("search path of the role, which is: nowhere"), "{error}");
        let fix = format!(
            "alter role \"postgres\" in database \"{}\" set search_path = \"public\"",
            database.name()
        );
        assert!(error.remedy().unwrap().contains(&fix), "{:?}", error.remedy());
    }
    assert!(one::<bool>(&connection, "select to_regnamespace('embedsink') is null").await);
}
