//! A name is one name, whatever stands in it.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sink_postgres_vector::{Connection, Ident};
use tokio::runtime;

use crate::support::{Database, run};

/// Makes a table of that name, and nothing else; gives the names of all that is there then.
async fn tables_after_creating(connection: &Connection, name: &Ident) -> Vec<String> {
    let client = connection.client();
    client.batch_execute(&format!("create table hostile.{name} (x int)")).await.unwrap();
    let all = "select relname::text from pg_class where relnamespace = 'hostile'::regnamespace";
    let names = client.query(all, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    client.batch_execute(&format!("drop table hostile.{name}")).await.unwrap();
    names
}

#[test]
fn any_name_becomes_one_table_of_exactly_that_name() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::create());
    let connection = runtime.block_on(database.connect());
    runtime.block_on(run(&connection, "create schema hostile"));
    let check = |name: &str| {
        let ident = Ident::new(name).unwrap();
        let found = runtime.block_on(tables_after_creating(&connection, &ident));
        prop_assert_eq!(found, [name]);
        Ok(())
    };
    for name in [
        "x\"; drop schema hostile cascade; --",
        "\"",
        "\"\"",
        "'",
        "\\",
        "$$",
        "$1",
        "U&\"\\0041\"",
        "\u{ff02}; drop schema hostile cascade; --",
        "“”‘’\u{2028}\u{200b}\r\n\t",
        "select",
        " ",
        "*/ drop /*",
        &"x".repeat(63),
        &"\"".repeat(63),
        &"\u{1F980}".repeat(15),
    ] {
        check(name).unwrap();
    }
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let any = prop_oneof!["[^\0]{1,15}", r#"["'`; \\\-/*$&(){}“‘\u{ff02}\u{2028}x\n]{1,15}"#];
    runner.run(&any, |name| check(&name)).unwrap();
}
