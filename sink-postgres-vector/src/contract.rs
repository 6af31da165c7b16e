//! What a table must be like, and in which words a table is told that it is not.

use std::fmt;

use tokio_postgres::{Client, Row, types::Type};

use crate::{
    column::{self, Column},
    error::Error,
    extension::Extension,
    ident::Ident,
    session::Session,
    table::{TableSpec, VectorTable},
};

/// Why a table cannot be used.
#[derive(Debug)]
pub enum ContractError {
    /// The table is not in the shape it must have. Everything that is wrong with it, at least one.
    Mismatches {
        /// The table as configured.
        table: Ident,
        /// What is wrong, in the order in which it is best mended.
        mismatches: Vec<Mismatch>,
    },
    /// It could not be found out.
    Unknown(Error),
}

/// One thing that is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// A sentence.
    pub problem: String,
    /// What mends it: SQL, or a sentence.
    pub fix: String,
}

impl std::error::Error for ContractError {}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(error) => error.fmt(f),
            Self::Mismatches { table, mismatches } => {
                write!(f, "the table {table} cannot be used:")?;
                mismatches.iter().try_for_each(|mismatch| write!(f, "\n  {mismatch}"))
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Fix: {}", self.problem, self.fix)
    }
}

impl ContractError {
    fn unknown(table: &Ident) -> impl Fn(tokio_postgres::Error) -> Self {
        let action = format!("check the table {table}");
        move |error| Self::Unknown(Error::during(action.clone(), error))
    }
}

const TABLE: &str = "
select c.oid, n.nspname, c.relkind::text, c.relpersistence::text, current_user::text,
       array(select p from unnest($2::text[]) p
             where not pg_catalog.has_table_privilege(c.oid, p)),
       exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = pg_catalog.to_regclass($1::text)";

const KEYS: &str = "
select c.relname, i.indisvalid, i.indimmediate, i.indpred is null,
       i.indnkeyatts = 1 and i.indexprs is null
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
where i.indrelid = $1 and i.indisunique and i.indkey[0] = $2";

/// Collects what is wrong with one table.
pub(crate) struct Findings<'a> {
    pub(crate) table: &'a Ident,
    mismatches: Vec<Mismatch>,
}

impl Findings<'_> {
    pub(crate) fn add(&mut self, problem: impl Into<String>, fix: impl Into<String>) {
        self.mismatches.push(Mismatch { problem: problem.into(), fix: fix.into() });
    }
}

/// What whoever writes needs.
pub(crate) const WRITING: &[&str] = &["select", "insert", "update", "delete"];
/// What whoever only reads needs.
pub(crate) const READING: &[&str] = &["select"];

pub(crate) async fn check(
    client: &Client,
    spec: &TableSpec,
    wanted: &[&str],
) -> Result<VectorTable, ContractError> {
    let failed = ContractError::unknown(&spec.name);
    let table = &spec.name;
    let mut findings = Findings { table, mismatches: Vec::new() };

    let extension = Extension::find(client).await.map_err(&failed)?;
    if extension.is_none() {
        findings
            .add("The extension `vector` (pgvector) is not in this database.", "create extension vector;");
    }
    let Some(row) = client
        .query_typed_opt(TABLE, &[(&table.to_string(), Type::TEXT), (&wanted, Type::TEXT_ARRAY)])
        .await
        .map_err(&failed)?
    else {
        not_found(client, spec, &mut findings).await.map_err(&failed)?;
        return Err(ContractError::Mismatches { table: table.clone(), mismatches: findings.mismatches });
    };
    let oid: u32 = row.try_get(0).map_err(&failed)?;
    let schema: String = row.try_get(1).map_err(&failed)?;
    let schema = Ident::new(schema).expect("a name from the catalog is a name");
    table_kind(&row, &mut findings).map_err(&failed)?;

    let columns = client.query_typed(column::ALL, &[(&oid, Type::OID)]).await.map_err(&failed)?;
    let columns = columns.iter().map(Column::read).collect::<Result<Vec<_>, _>>().map_err(&failed)?;
    let max_chars = column::judge(spec, extension.as_ref(), &columns, &mut findings);

    if let Some(id) = columns.iter().find(|column| column.name == "id") {
        let keys = client
            .query_typed(KEYS, &[(&oid, Type::OID), (&id.number, Type::INT2)])
            .await
            .map_err(&failed)?;
        judge_keys(&keys, row.try_get(6).map_err(&failed)?, &mut findings).map_err(&failed)?;
    }
    rights(&row, extension.as_ref(), &mut findings).map_err(&failed)?;

    match extension {
        Some(extension) if findings.mismatches.is_empty() => {
            Ok(VectorTable::proven(spec.clone(), &schema, extension, max_chars.id, max_chars.source))
        }
        _ => Err(ContractError::Mismatches { table: table.clone(), mismatches: findings.mismatches }),
    }
}

/// A table that is there may be missed all the same, when its schema is not looked in.
async fn not_found(
    client: &Client,
    spec: &TableSpec,
    findings: &mut Findings<'_>,
) -> Result<(), tokio_postgres::Error> {
    let session = Session::read(client).await?;
    let home = session.home(client, &spec.name).await?;
    let mut problem = format!(
        "There is no such table on the search path of the role {}, which is: {}.",
        session.role, session.search_path
    );
    if home.holds_it {
        problem.push_str(&format!(" There is one in the schema {}.", home.schema));
        findings.add(problem, home.mend);
    } else if session.schema.is_none() {
        problem.push_str(" It names no schema that exists and that the role may use.");
        findings.add(problem, format!("{} Then start again.", home.mend));
    } else {
        findings.add(problem, format!("{};", VectorTable::create_sql(spec)));
    }
    Ok(())
}

fn table_kind(row: &Row, findings: &mut Findings<'_>) -> Result<(), tokio_postgres::Error> {
    let table = findings.table;
    let kind: &str = row.try_get(2)?;
    let what = match kind {
        "r" | "p" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        _ => Some("not a table"),
    };
    if let Some(what) = what {
        findings.add(
            format!("{table} is {what}. Rows can be upserted into tables only."),
            "Configure the name of a table.",
        );
    } else if row.try_get::<_, &str>(3)? != "p" {
        findings.add(
            "The table is unlogged or temporary. It is emptied when the server crashes, and what it held is not written again.",
            format!("alter table {table} set logged;"),
        );
    }
    Ok(())
}

fn judge_keys(
    keys: &[Row],
    has_primary: bool,
    findings: &mut Findings<'_>,
) -> Result<(), tokio_postgres::Error> {
    let table = findings.table;
    let mut problem = "There is no unique key on \"id\" alone.".to_owned();
    for key in keys {
        let name = Ident::new(key.try_get::<_, String>(0)?).expect("a name from the catalog is a name");
        let (valid, immediate, whole, alone): (bool, bool, bool, bool) =
            (key.try_get(1)?, key.try_get(2)?, key.try_get(3)?, key.try_get(4)?);
        problem = match (alone, whole, valid, immediate) {
            (true, true, true, true) => return Ok(()),
            (false, ..) => continue,
            (_, false, ..) => format!("The unique index {name} on \"id\" covers only some of the rows."),
            (_, _, false, _) => {
                format!("The unique index {name} on \"id\" is not valid; building it has failed.")
            }
            (_, _, _, false) => {
                format!("The unique key {name} on \"id\" is deferrable, so no upsert can use it.")
            }
        };
    }
    let kind = if has_primary { "unique" } else { "primary key" };
    findings.add(problem, format!("alter table {table} add {kind} (id);"));
    Ok(())
}

fn rights(
    row: &Row,
    extension: Option<&Extension>,
    findings: &mut Findings<'_>,
) -> Result<(), tokio_postgres::Error> {
    let missing: Vec<String> = row.try_get(5)?;
    let role = Ident::new(row.try_get::<_, String>(4)?).expect("a name from the catalog is a name");
    if let Some(Extension { schema, .. }) = extension.filter(|extension| !extension.usable) {
        findings.add(
            format!("The role {role} may not use the schema {schema}, where the extension `vector` is."),
            format!("grant usage on schema {schema} to {role};"),
        );
    }
    if !missing.is_empty() {
        let (table, missing) = (findings.table, missing.join(", "));
        findings.add(
            format!("The role {role} lacks rights on the table: {missing}."),
            format!("grant {missing} on {table} to {role};"),
        );
    }
    Ok(())
}
