//! Triggers with which the database refuses certain rows, in whatever words a test wants.

use tokio_postgres::Client;

use super::postgres::run;

/// When the database refuses a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// In the statement that writes it.
    AtOnce,
    /// When the transaction is committed: a deferred constraint.
    AtCommit,
}

/// Makes `table` refuse rows whose id begins with `mark`, with this SQLSTATE. It takes the place of an earlier
/// fault of the table.
pub(crate) async fn refuse(client: &Client, table: &str, mark: &str, sqlstate: &str, when: When) {
    lift(client, table).await;
    let trigger = match when {
        When::AtOnce => format!("create trigger fault before insert or update on {table}"),
        When::AtCommit => format!(
            "create constraint trigger fault after insert or update on {table} deferrable initially deferred"
        ),
    };
    let sql = format!(
        "create or replace function fault_of_{table}() returns trigger language plpgsql as $$ begin
           raise exception 'refused by the test' using errcode = '{sqlstate}';
         end $$;
         {trigger} for each row when (starts_with(new.id, '{mark}')) execute function fault_of_{table}();"
    );
    run(client, &sql).await;
}

/// Ends it.
pub(crate) async fn lift(client: &Client, table: &str) {
    run(client, &format!("drop trigger if exists fault on {table}")).await;
}
