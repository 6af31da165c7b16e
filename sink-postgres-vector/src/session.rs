//! Who we are to the server, where names are looked up, and whom to ask for a right.

use tokio_postgres::{Client, Error, types::Type};

use crate::{ident::Ident, migration::SCHEMA};

/// The role, the database and the search path of a session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) role: Ident,
    pub(crate) database: Ident,
    /// The setting as it stands.
    pub(crate) search_path: String,
    /// Where a table without a schema is created. `None` if no schema of the path exists and may be used.
    pub(crate) schema: Option<Ident>,
}

/// The schema to look in for a table that is not found on the search path.
pub(crate) struct Home {
    pub(crate) schema: Ident,
    /// A table of that name is there.
    pub(crate) holds_it: bool,
    /// What puts the schema on the path, as SQL.
    pub(crate) mend: String,
}

const READ: &str = "
select current_user::text, pg_catalog.current_database()::text, pg_catalog.current_setting('search_path'),
       pg_catalog.current_schema()::text";

/// The schema that has the table `$1`, else `public`.
const HOME: &str = r#"
select n.nspname::text, t.held, pg_catalog.has_schema_privilege(n.oid, 'usage'),
       exists (select from pg_catalog.unnest(pg_catalog.string_to_array(
                 pg_catalog.current_setting('search_path'), ',')) as p (name)
               where pg_catalog.btrim(pg_catalog.replace(p.name, '$user', current_user), ' "') = n.nspname)
from pg_catalog.pg_namespace n
cross join lateral (select exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid
                    and c.relname = $1::text and c.relkind in ('r', 'p'))) as t (held)
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and (t.held or n.nspname = 'public')
order by t.held desc, n.nspname limit 1"#;

impl Session {
    pub(crate) async fn read(client: &Client) -> Result<Self, Error> {
        let row = client.query_typed_one(READ, &[]).await?;
        let schema: Option<String> = row.try_get(3)?;
        Ok(Self {
            role: name(row.try_get(0)?),
            database: name(row.try_get(1)?),
            search_path: row.try_get(2)?,
            schema: schema.map(name),
        })
    }

    /// Finds out why the table is not on the search path.
    pub(crate) async fn home(&self, client: &Client, table: &Ident) -> Result<Home, Error> {
        let Self { role, database, .. } = self;
        let set = format!("alter role {role} in database {database} set search_path =");
        let Some(row) = client.query_typed_opt(HOME, &[(&table.as_str(), Type::TEXT)]).await? else {
            return Ok(Home {
                schema: role.clone(),
                holds_it: false,
                mend: format!("create schema {role} authorization {role}; {set} {role};"),
            });
        };
        let schema = name(row.try_get(0)?);
        let (holds_it, usable, listed): (bool, bool, bool) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let mut mend = Vec::new();
        if !listed {
            let rest = match self.search_path.trim() {
                "" | "\"\"" => String::new(),
                path => format!(", {path}"),
            };
            mend.push(format!("{set} {schema}{rest};"));
        }
        if !usable {
            mend.push(format!("grant usage on schema {schema} to {role};"));
        }
        Ok(Home { schema, holds_it, mend: mend.join(" ") })
    }

    /// What a role that may grant is to run, as a sentence.
    pub(crate) fn ask(&self, sql: &str) -> String {
        ask(&self.database, sql)
    }

    /// To read what was applied.
    pub(crate) fn may_read_migrations(&self) -> String {
        let role = &self.role;
        self.ask(&format!(
            "grant usage on schema {SCHEMA} to {role}; grant select on {SCHEMA}.migrations to {role};"
        ))
    }
}

/// What a role that may grant is to run, as a sentence.
pub(crate) fn ask(database: &Ident, sql: &str) -> String {
    format!("Let the owner or an administrator run, in the database {database}: {sql}")
}

fn name(name: String) -> Ident {
    Ident::new(name).expect("a name from the catalog is a name")
}
