//! Each thing that can be wrong with a table has its sentence and its fix.

use sink_postgres_vector::{ContractError, Ident, Mismatch, TableSpec, VectorTable};

use crate::support::{Database, options, run, spec};

const GOOD: &str = r#"create table embeddings (id varchar(255) primary key, text text, embedding vector(3),
    "timestamp" timestamptz, source varchar(255), metadata jsonb)"#;

async fn check(sql: &str) -> Result<VectorTable, Vec<Mismatch>> {
    let database = Database::create().await;
    let connection = database.connect().await;
    run(&connection, &format!("create extension vector; {sql}")).await;
    VectorTable::check(connection.client(), &spec(3)).await.map_err(mismatches)
}

fn mismatches(error: ContractError) -> Vec<Mismatch> {
    match error {
        ContractError::Mismatches { mismatches, .. } => mismatches,
        ContractError::Unknown(error) => panic!("{error}"),
    }
}

/// Breaks a good table, expects one finding, and expects the fix to mend it.
async fn broken(sql: &str, problem: &str) {
    let database = Database::create().await;
    let connection = database.connect().await;
    run(&connection, &format!("create extension vector; {GOOD}; {sql}")).await;
    let found = mismatches(VectorTable::check(connection.client(), &spec(3)).await.unwrap_err());
    let [mismatch] = &*found else { panic!("{sql}: {found:?}") };
    assert!(mismatch.problem.contains(problem), "{sql}: {mismatch}");
    run(&connection, mismatch.fix.split_inclusive(';').next().unwrap()).await;
    VectorTable::check(connection.client(), &spec(3)).await.unwrap();
}

#[tokio::test]
async fn a_good_table_tells_how_long_keys_and_sources_may_be() {
    let table = check(GOOD).await.unwrap();
    assert_eq!((table.max_id_chars(), table.max_source_chars()), (Some(255), Some(255)));
    assert_eq!((table.name().as_str(), table.dimensions()), ("embeddings", 3));
    let table =
        check(&GOOD.replace("source varchar(255)", "source text").replace("id varchar(255)", "id text"))
            .await;
    let table = table.unwrap();
    assert_eq!((table.max_id_chars(), table.max_source_chars()), (None, None));
    let other =
        GOOD.replace("id varchar(255)", "id varchar(64)").replace("source varchar(255)", "source varchar");
    let table = check(&other).await.unwrap();
    assert_eq!((table.max_id_chars(), table.max_source_chars()), (Some(64), None));
}

#[tokio::test]
async fn what_create_sql_says_passes_the_check() {
    check(&VectorTable::create_sql(&spec(3))).await.unwrap();
}

#[tokio::test]
async fn more_columns_and_keys_and_partitions_are_welcome() {
    let more = "alter table embeddings add column a int, add column b int not null default 1, \
                add column c int generated always as identity, add column d int generated always as (1) stored, \
                add unique (source)";
    check(&format!("{GOOD}; {more}")).await.unwrap();
    check(&format!("{GOOD} partition by hash (id)")).await.unwrap();
    check(&format!("{}; create unique index on embeddings (id)", GOOD.replace(" primary key", "")))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_extension_and_the_table_are_missed() {
    let database = Database::create().await;
    let connection = database.connect().await;
    let error = VectorTable::check(connection.client(), &spec(3)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("create extension vector;"), "{text}");
    assert!(text.contains("There is no such table"), "{text}");
    for mismatch in mismatches(error) {
        run(&connection, &mismatch.fix).await;
    }
    VectorTable::check(connection.client(), &spec(3)).await.unwrap();
}

#[tokio::test]
async fn each_column_is_missed() {
    for column in ["text", "embedding", "timestamp", "source", "metadata"] {
        let problem = format!("\"{column}\" is missing");
        broken(&format!("alter table embeddings drop column {column}"), &problem).await;
    }
    let found = check("create table embeddings ()").await.unwrap_err();
    assert_eq!(found.len(), 6, "all at once: {found:?}");
}

#[tokio::test]
async fn each_wrong_type_is_named() {
    for (column, ty, shown) in [
        ("metadata", "json using '{}'", "has the type json, not jsonb"),
        ("\"timestamp\"", "timestamp", "has the type timestamp without time zone"),
        ("text", "varchar(20)", "too short for some texts"),
        ("source", "int using 1", "has the type integer"),
        ("id", "char(20)", "has the type character(20)"),
        ("embedding", "halfvec(3)", "has the type halfvec(3), not vector(3)"),
        ("embedding", "real[] using array[1, 2, 3]", "has the type real[], not vector(3)"),
        ("embedding", "vector", "has no dimension"),
    ] {
        broken(&format!("alter table embeddings alter column {column} type {ty}"), shown).await;
    }
}

#[tokio::test]
async fn another_dimension_names_both() {
    let found = check(&GOOD.replace("vector(3)", "vector(1536)")).await.unwrap_err();
    assert!(found[0].problem.contains("holds 1536 dimensions, but 3 are configured"), "{found:?}");
    assert!(found[0].fix.contains("vector(3)"), "{found:?}");
}

#[tokio::test]
async fn a_key_that_no_upsert_can_use_is_no_key() {
    let drop = "alter table embeddings drop constraint embeddings_pkey";
    broken(drop, "no unique key").await;
    broken(&format!("{drop}, alter id drop not null, add unique (id, source)"), "no unique key").await;
    broken(&format!("{drop}; create index on embeddings (id)"), "no unique key").await;
    broken(&format!("{drop}; create unique index on embeddings (lower(id))"), "no unique key").await;
    broken(
        &format!("{drop}; create unique index part on embeddings (id) where text = ''"),
        "only some of the rows",
    )
    .await;
    broken(&format!("{drop}, add constraint late unique (id) deferrable"), "is deferrable").await;
    let other = format!("{drop}, add column number int generated always as identity primary key");
    broken(&other, "no unique key").await;
}

#[tokio::test]
async fn columns_in_the_way_are_named() {
    broken("alter table embeddings add column tenant int not null", "\"tenant\" must not be null").await;
    let generated = GOOD.replace("text text", "text text generated always as ('x') stored");
    let found = check(&generated).await.unwrap_err();
    assert!(found[0].problem.contains("\"text\" is generated"), "{found:?}");
}

#[tokio::test]
async fn a_view_or_a_table_that_crashes_empty_is_refused() {
    let found =
        check(&format!("{}; create view embeddings as select * from t", GOOD.replace("embeddings", "t")))
            .await;
    assert!(found.unwrap_err()[0].problem.contains("is a view"));
    broken("alter table embeddings set unlogged", "unlogged").await;
}

#[tokio::test]
async fn rights_are_missed_by_name() {
    let (database, connection) = Database::migrated().await;
    let role = format!("{}_role", database.name());
    run(
        &connection,
        &format!("{GOOD}; create role {role} login; grant select, update on embeddings to {role}"),
    )
    .await;
    let mut restricted = options(database.name());
    restricted.user.clone_from(&role);
    let theirs = sink_postgres_vector::Connection::open(&restricted).await.unwrap();
    let found = mismatches(VectorTable::check(theirs.client(), &spec(3)).await.unwrap_err());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fix, format!("grant insert, delete on \"embeddings\" to \"{role}\";"));
    run(&connection, &found[0].fix).await;
    VectorTable::check(theirs.client(), &spec(3)).await.unwrap();
    run(&connection, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_collation_that_takes_different_keys_for_equal_is_refused() {
    let collation =
        "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    let database = Database::create().await;
    let connection = database.connect().await;
    // A server built without ICU cannot have such a collation.
    if connection.client().batch_execute(collation).await.is_ok() {
        run(
            &connection,
            &format!(
                "create extension vector; {}",
                GOOD.replace("255) primary", "255) collate blind primary")
            ),
        )
        .await;
        let found = mismatches(VectorTable::check(connection.client(), &spec(3)).await.unwrap_err());
        assert!(found[0].problem.contains("collation of the column \"id\""), "{found:?}");
        run(&connection, &found[0].fix).await;
        VectorTable::check(connection.client(), &spec(3)).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_with_quotes_is_one_name() {
    let (_database, mut connection) = Database::migrated().await;
    let spec = TableSpec { name: Ident::new(r#"a"; drop table "x.Y"#).unwrap(), dimensions: 2 };
    let migrator = sink_postgres_vector::Migrator::new(crate::support::MIGRATIONS);
    migrator.apply(&mut connection, std::slice::from_ref(&spec)).await.unwrap();
    let table = VectorTable::check(connection.client(), &spec).await.unwrap();
    assert_eq!(
        crate::support::write(&mut connection, &table, &[crate::support::row("a", "x", &[1.0, 2.0])]).await,
        1
    );
}

#[tokio::test]
async fn a_column_that_records_may_leave_out_must_take_nulls() {
    for column in ["text", "timestamp", "source", "metadata"] {
        let problem = format!("\"{column}\" must not be null, but records may leave it out");
        broken(&format!("alter table embeddings alter column \"{column}\" set not null"), &problem).await;
    }
    let default =
        "alter table embeddings alter column source set default '', alter column source set not null";
    broken(default, "\"source\" must not be null").await;
    check(&format!("{GOOD}; alter table embeddings alter column embedding set not null")).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_not_on_the_search_path_is_told_from_one_that_does_not_exist() {
    let database = Database::create().await;
    let (owner, role) = (database.connect().await, format!("{}_path", database.name()));
    run(&owner, &format!("create role {role} login; create extension vector; create schema app; {GOOD}"))
        .await;
    run(&owner, "alter table embeddings set schema app").await;
    let mut theirs = options(database.name());
    theirs.user.clone_from(&role);
    let missed = async || {
        let connection = sink_postgres_vector::Connection::open(&theirs).await.unwrap();
        mismatches(VectorTable::check(connection.client(), &spec(3)).await.unwrap_err())
    };

    let found = missed().await;
    let problem = format!(
        "There is no such table on the search path of the role \"{role}\", which is: \"$user\", public. There is one in \
         the schema \"app\"."
    );
    assert_eq!(found[0].problem, problem);
    let alter = format!("alter role \"{role}\" in database \"{}\" set search_path =", database.name());
    let grant = format!("grant usage on schema \"app\" to \"{role}\";");
    assert_eq!(found[0].fix, format!("{alter} \"app\", \"$user\", public; {grant}"));
    run(&owner, &found[0].fix).await;
    assert!(missed().await[0].fix.starts_with("grant select, insert, update, delete"), "it is found now");

    run(&owner, &format!("{alter} ''; drop table app.embeddings")).await;
    let found = missed().await;
    assert!(found[0].problem.contains("which is: \"\". It names no schema that exists"), "{found:?}");
    assert_eq!(found[0].fix, format!("{alter} \"public\"; Then start again."));
    run(&owner, &format!("{alter} \"public\"")).await;
    let found = missed().await;
    assert!(found[0].fix.starts_with("create table if not exists"), "{found:?}");

    run(&owner, &format!("{alter} nowhere; drop schema public cascade; create extension vector schema app"))
        .await;
    let found = missed().await;
    let create =
        format!("create schema \"{role}\" authorization \"{role}\"; {alter} \"{role}\"; Then start again.");
    assert_eq!(found[0].fix, create);
    run(&owner, found[0].fix.trim_end_matches("Then start again.")).await;
    assert!(missed().await[0].fix.starts_with("create table if not exists"));
    run(&owner, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn the_schema_of_the_extension_must_be_usable() {
    let database = Database::create().await;
    let (owner, role) = (database.connect().await, format!("{}_ext", database.name()));
    let good = GOOD.replace("vector(3)", "ext.vector(3)");
    run(
        &owner,
        &format!("create role {role} login; create schema ext; create extension vector schema ext; {good}"),
    )
    .await;
    run(&owner, &format!("grant all on embeddings to {role}")).await;
    let mut theirs = options(database.name());
    theirs.user.clone_from(&role);
    let theirs = sink_postgres_vector::Connection::open(&theirs).await.unwrap();
    let found = mismatches(VectorTable::check(theirs.client(), &spec(3)).await.unwrap_err());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].fix, format!("grant usage on schema \"ext\" to \"{role}\";"));
    run(&owner, &found[0].fix).await;
    VectorTable::check(theirs.client(), &spec(3)).await.unwrap();
    run(&owner, &format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_foreign_key_between_tables_that_are_written_together_is_refused() {
    let database = Database::create().await;
    let connection = database.connect().await;
    let parents = GOOD.replace("embeddings", "parents");
    run(
        &connection,
        &format!("create extension vector; {GOOD}; {parents}; create table sources (id text primary key)"),
    )
    .await;
    let specs =
        ["embeddings", "parents"].map(|name| TableSpec { name: Ident::new(name).unwrap(), dimensions: 3 });
    let check = async || VectorTable::check_all(connection.client(), &specs).await;
    let to_elsewhere = "alter table embeddings add column kind text references sources";
    run(&connection, to_elsewhere).await;
    let child = "create table child (id varchar(255) references embeddings)";
    run(&connection, child).await;
    assert_eq!(
        check().await.unwrap().len(),
        2,
        "a key that only one of them is an end of is nobody's concern"
    );

    for (key, end) in [
        ("alter table embeddings add constraint k foreign key (source) references parents", "\"parents\""),
        (
            "alter table embeddings add constraint k foreign key (source) references parents \
             deferrable initially deferred",
            "\"parents\"",
        ),
        ("alter table embeddings add constraint k foreign key (source) references embeddings", "itself"),
    ] {
        run(&connection, key).await;
        let error = check().await.unwrap_err();
        assert!(error.to_string().starts_with("the table \"embeddings\" cannot be used:"), "{error}");
        let found = mismatches(error);
        let [mismatch] = &*found else { panic!("{key}: {found:?}") };
        let problem = format!("Its foreign key \"k\" leads to {end}");
        assert!(mismatch.problem.starts_with(&problem), "{key}: {mismatch}");
        run(&connection, &mismatch.fix).await;
        check().await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_key_of_partitions_is_told_once() {
    let database = Database::create().await;
    let connection = database.connect().await;
    let parents = GOOD.replace("embeddings", "parents");
    run(
        &connection,
        &format!(
            "create extension vector; {GOOD} partition by hash (id); {parents} partition by hash (id);
             create table e0 partition of embeddings for values with (modulus 2, remainder 0);
             create table e1 partition of embeddings for values with (modulus 2, remainder 1);
             create table p0 partition of parents for values with (modulus 1, remainder 0)"
        ),
    )
    .await;
    let specs =
        ["embeddings", "parents"].map(|name| TableSpec { name: Ident::new(name).unwrap(), dimensions: 3 });
    for key in [
        "alter table embeddings add constraint k foreign key (source) references parents",
        "alter table e1 add constraint k foreign key (source) references p0",
    ] {
        run(&connection, key).await;
        let found = mismatches(VectorTable::check_all(connection.client(), &specs).await.unwrap_err());
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        run(&connection, "alter table embeddings drop constraint if exists k").await;
        run(&connection, "alter table e1 drop constraint if exists k").await;
    }
    VectorTable::check_all(connection.client(), &specs).await.unwrap();
}
