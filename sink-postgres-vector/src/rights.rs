//! Whether the role may use tables that are there.

use tokio_postgres::{Client, Row, types::Type};

use crate::{
    contract::Mismatch,
    migrate::{failed, session},
    migration::MigrateError,
};

/// Schema, whether it may be used, whether the table is there, and which of the rights `$2` on the table `$1` the role
/// lacks. By the catalog, because a schema that may not be used hides its tables.
const RIGHTS: &str = "
select name.part[1], coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false), c.oid is not null,
       array(select wanted from pg_catalog.unnest($2::text[]) with ordinality as w (wanted, place)
             where not pg_catalog.has_table_privilege(c.oid, wanted) order by place)
from (select pg_catalog.parse_ident($1::text)) as name (part)
left join pg_catalog.pg_namespace n on n.nspname = name.part[1]
left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = name.part[2]";

/// Reports all that is missing together, as [`MigrateError::Rights`].
pub(crate) async fn find(client: &Client, tables: &[(&str, &[&str])]) -> Result<(), MigrateError> {
    let session = session(client).await?;
    let role = &session.role;
    let mut missing = Vec::new();
    let mut hidden = Vec::new();
    for (table, rights) in tables {
        let action = format!("look for the rights on {table}");
        let row = client.query_typed_one(RIGHTS, &[(table, Type::TEXT), (rights, Type::TEXT_ARRAY)]).await;
        let read = |row: Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        let (schema, usable, exists, lacking): (String, bool, bool, Vec<String>) =
            row.and_then(read).map_err(failed(action))?;
        if !exists {
            missing.push(Mismatch {
                problem: format!("There is no table {table}."),
                fix: "Restore it from a backup; the migration that made it is recorded as applied."
                    .to_owned(),
            });
            continue;
        }
        if !usable && !hidden.contains(&schema) {
            let quoted = table.split_once('.').map_or(*table, |(schema, _)| schema);
            missing.push(Mismatch {
                problem: format!("The role {role} may not use the schema {quoted}."),
                fix: format!("grant usage on schema {quoted} to {role};"),
            });
            hidden.push(schema);
        }
        if !lacking.is_empty() {
            let lacking = lacking.join(", ");
            missing.push(Mismatch {
                problem: format!("The role {role} lacks rights on the table {table}: {lacking}."),
                fix: format!("grant {lacking} on {table} to {role};"),
            });
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(MigrateError::Rights { missing }),
    }
}
