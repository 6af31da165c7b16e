//! What the database says of a table's indexes: which are there, who may make one, and how far a build is.

use tokio_postgres::{Client, Row, types::Type};

use super::{VectorIndex, build::LOCK};
use crate::{
    connection::Connection, contract::Mismatch, error::Error, ident::Ident, migration::MigrateError,
};

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexFound {
    /// No index of this kind and metric on all rows.
    Missing,
    /// Ours, and it can be used.
    Ready,
    /// Ours, of a build that is under way or was broken off. It costs with every write and serves nobody.
    Invalid,
    /// One of another name.
    ByHand {
        /// Its name.
        name: Ident,
        /// Whether it can be used. One that is being built cannot, yet.
        valid: bool,
    },
}

/// How far a build is.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildProgress {
    /// The server's words, such as `building index: loading tuples`.
    pub phase: String,
    /// How much of the phase is done, if it is one that is counted.
    pub percent: Option<f64>,
}

/// Those on the embedding alone and on every row. Ours first.
const FIND: &str = "
select i.relname::text, x.indisvalid
from pg_catalog.pg_index x
join pg_catalog.pg_class i on i.oid = x.indexrelid
join pg_catalog.pg_am m on m.oid = i.relam
join pg_catalog.pg_opclass o on o.oid = x.indclass[0]
join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
where x.indrelid = $1::text::pg_catalog.regclass and a.attname = 'embedding'
  and (i.relname = $2::text or (m.amname = $3::text and o.opcname = $4::text and x.indpred is null))
order by i.relname = $2::text desc, x.indisvalid desc, i.relname";

const RIGHTS: &str = "
select c.relkind = 'p', pg_catalog.pg_has_role(c.relowner, 'usage'),
       pg_catalog.has_schema_privilege(c.relnamespace, 'create'),
       current_user::text, pg_catalog.pg_get_userbyid(c.relowner)::text
from pg_catalog.pg_class c where c.oid = $1::text::pg_catalog.regclass";

/// Of the database's own view; a build of another role shows there without its phase.
const PROGRESS: &str = "
select phase, case when blocks_total > 0 then least(100, 100.0 * blocks_done / blocks_total) end::float8
from pg_catalog.pg_stat_progress_create_index
where datname = pg_catalog.current_database() and relid = $1::text::pg_catalog.regclass";

/// Whether somebody builds our index without our lock. Of another role's build the view tells no more than the process, so
/// there its lock on the table counts. The index is not told at once.
const BY_HAND: &str = "
select exists (
  select from pg_catalog.pg_stat_progress_create_index p
  where p.datname = pg_catalog.current_database() and p.pid <> pg_catalog.pg_backend_pid()
    and (p.relid = $1::text::pg_catalog.regclass
           and p.index_relid in (0, pg_catalog.to_regclass($2::text))
         or p.relid is null and exists (
           select from pg_catalog.pg_locks l
           where l.pid = p.pid and l.locktype = 'relation' and l.relation = $1::text::pg_catalog.regclass
             and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock') and l.granted)))";

/// Whether somebody has the turn to build. The lock's number is told in halves.
const TAKEN: &str = "
select exists (
  select from pg_catalog.pg_locks l
  join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.classid::int8 = $2::int8 >> 32 and l.objid = $1::text::pg_catalog.regclass::oid)";

/// How many pages are looked at to guess the rows.
const SAMPLE_PAGES: f64 = 10_000.0;

impl VectorIndex {
    /// Looks what is there.
    pub async fn find(&self, connection: &Connection) -> Result<IndexFound, Error> {
        let (table, name) = (self.qualified_table(), self.name.as_str());
        let (method, class) = (self.spec.method.as_str(), self.spec.metric.operator_class());
        let values = [
            (&table as _, Type::TEXT),
            (&name as _, Type::TEXT),
            (&method as _, Type::TEXT),
            (&class as _, Type::TEXT),
        ];
        let action = format!("look for the vector index of {}", self.table);
        let answer = async {
            let row = connection.client().query_typed(FIND, &values).await?.into_iter().next();
            row.map(|row| Ok((row.try_get::<_, String>(0)?, row.try_get::<_, bool>(1)?))).transpose()
        };
        Ok(match connection.during(action, answer).await? {
            None => IndexFound::Missing,
            Some((found, valid)) if found == name => match valid {
                true => IndexFound::Ready,
                false => IndexFound::Invalid,
            },
            Some((found, valid)) => IndexFound::ByHand {
                name: Ident::new(found).expect("a name from the catalog is a name"),
                valid,
            },
        })
    }

    /// Checks that the role may make the index, where there is none that works and nobody is making it.
    pub async fn check(&self, connection: &Connection) -> Result<(), MigrateError> {
        let unknown = MigrateError::Database;
        match self.find(connection).await.map_err(unknown)? {
            IndexFound::Ready | IndexFound::ByHand { .. } => return Ok(()),
            IndexFound::Missing | IndexFound::Invalid => {}
        }
        if self.is_taken(connection).await.map_err(unknown)?
            || self.is_built_by_hand(connection).await.map_err(unknown)?
        {
            return Ok(());
        }
        let table = self.qualified_table();
        let action = format!("look for the right to index {}", self.table);
        let answer = async {
            let row = connection.client().query_typed_one(RIGHTS, &[(&table, Type::TEXT)]).await?;
            read_rights(&row)
        };
        let rights = connection.during(action, answer).await.map_err(unknown)?;
        let reasons = rights.judge(&table, &self.schema);
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(MigrateError::Index { table: self.table.clone(), reasons }),
        }
    }

    /// Whether somebody has the turn to build it.
    async fn is_taken(&self, connection: &Connection) -> Result<bool, Error> {
        let table = self.qualified_table();
        let values = [(&table as _, Type::TEXT), (&LOCK as _, Type::INT8)];
        let answer = async { connection.client().query_typed_one(TAKEN, &values).await?.try_get(0) };
        connection.during(format!("look who builds the index {}", self.name), answer).await
    }

    /// Whether somebody builds it at the moment without taking the turn.
    pub(super) async fn is_built_by_hand(&self, connection: &Connection) -> Result<bool, Error> {
        let (table, name) = (self.qualified_table(), self.qualified_name());
        let values = [(&table as _, Type::TEXT), (&name as _, Type::TEXT)];
        let answer = async { connection.client().query_typed_one(BY_HAND, &values).await?.try_get(0) };
        connection.during(format!("look who builds the index {}", self.name), answer).await
    }

    /// How far the build of an index on the table is, whoever does it. `None` when there is none, or when it is another
    /// role's.
    pub async fn progress(&self, connection: &Connection) -> Result<Option<BuildProgress>, Error> {
        let table = self.qualified_table();
        let answer = async {
            let row = connection.client().query_typed_opt(PROGRESS, &[(&table, Type::TEXT)]).await?;
            let Some(row) = row else { return Ok(None) };
            let phase: Option<String> = row.try_get(0)?;
            let percent = row.try_get(1)?;
            Ok(phase.map(|phase| BuildProgress { phase, percent }))
        };
        connection.during("ask how far the build of an index is", answer).await
    }

    /// Whether the table has any row.
    pub async fn has_rows(&self, connection: &Connection) -> Result<bool, Error> {
        let sql = format!("select exists (select from {})", self.qualified_table());
        let answer = async { connection.client().query_typed_one(&sql, &[]).await?.try_get(0) };
        connection.during(format!("look whether {} has rows", self.table), answer).await
    }

    /// How many rows the table has, counted up to `most`.
    pub async fn rows_up_to(&self, connection: &Connection, most: u32) -> Result<u32, Error> {
        let sql = format!(
            "select count(*)::int4 from (select from {} limit {most}) as seen",
            self.qualified_table()
        );
        let answer = async { connection.client().query_typed_one(&sql, &[]).await?.try_get::<_, i32>(0) };
        let rows = connection.during(format!("look how many rows {} has", self.table), answer).await?;
        Ok(u32::try_from(rows).unwrap_or(0))
    }

    /// About how many rows the table has: counted when it is small, otherwise by a sample of its pages.
    pub(super) async fn rows(&self, client: &Client) -> Result<f64, tokio_postgres::Error> {
        let table = self.qualified_table();
        let size = "select pg_catalog.pg_relation_size($1::text::pg_catalog.regclass)
                    / pg_catalog.current_setting('block_size')::int8";
        let pages: i64 = client.query_typed_one(size, &[(&table, Type::TEXT)]).await?.try_get(0)?;
        let percent = (100.0 * SAMPLE_PAGES / pages.max(1) as f64).min(100.0);
        let sql = format!("select count(*) from {table} tablesample system ({percent})");
        let counted: i64 = client.query_typed_one(&sql, &[]).await?.try_get(0)?;
        Ok(counted as f64 * 100.0 / percent)
    }
}

struct Rights {
    is_partitioned: bool,
    owns: bool,
    may_create: bool,
    role: String,
    owner: String,
}

fn read_rights(row: &Row) -> Result<Rights, tokio_postgres::Error> {
    Ok(Rights {
        is_partitioned: row.try_get(0)?,
        owns: row.try_get(1)?,
        may_create: row.try_get(2)?,
        role: row.try_get(3)?,
        owner: row.try_get(4)?,
    })
}

impl Rights {
    fn judge(&self, table: &str, schema: &Ident) -> Vec<Mismatch> {
        let name = |name: &str| Ident::new(name).expect("a name from the catalog is a name");
        let (role, owner) = (name(&self.role), name(&self.owner));
        let mut mismatches = Vec::new();
        if self.is_partitioned {
            mismatches.push(Mismatch {
                problem: "The table is partitioned, and its index cannot be built while others write."
                    .to_owned(),
                fix: "Build it by hand, partition by partition, or remove `index` from the configuration."
                    .to_owned(),
            });
        }
        if !self.owns {
            mismatches.push(Mismatch {
                problem: format!("The role {role} does not own the table, which belongs to {owner}."),
                fix: format!(
                    "Run `embedsink migrate` as {owner}, with `migrate: manual`, which builds the index; or remove `index` \
                     from the configuration; or: alter table {table} owner to {role};"
                ),
            });
        } else if !self.may_create {
            mismatches.push(Mismatch {
                problem: format!(
                    "The role {role} may create nothing in the schema {schema}, not even an index."
                ),
                fix: format!("grant create on schema {schema} to {role};"),
            });
        }
        mismatches
    }
}
