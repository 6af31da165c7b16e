//! A table as configured, and a table whose shape is proven.

use tokio::time::timeout;
use tokio_postgres::{Client, types::Type};

use crate::{
    cause::Cause,
    connection::QUESTION,
    contract::{self, ContractError},
    error::Error,
    extension::Extension,
    foreign_key,
    ident::Ident,
    overwrite::Overwrite,
    statement,
};

/// A table as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name. Looked up along the search path of the role.
    pub name: Ident,
    /// The length of every embedding.
    pub dimensions: u16,
}

/// A table that exists in the shape that is written to. Made only by [`VectorTable::check`].
///
/// It stays valid across connections to the same database, as long as nobody changes the table or installs the
/// extension anew. When somebody does, writing fails with [`Class::Configuration`](crate::Class::Configuration).
#[derive(Clone, Debug)]
pub struct VectorTable {
    spec: TableSpec,
    max_id_chars: Option<u32>,
    max_source_chars: Option<u32>,
    vector_array: Type,
    upsert: Guarded,
    stored: String,
    delete: Guarded,
    count_newer: String,
    count_not_older: String,
    count_keys: String,
    copy: String,
    was_empty: bool,
    table: String,
    schema: Ident,
    extension: Ident,
}

/// A statement in each of its forms.
#[derive(Clone, Debug)]
struct Guarded {
    always: String,
    not_newer: String,
    older: String,
}

impl Guarded {
    fn new(statement: impl Fn(Overwrite) -> String) -> Self {
        Self {
            always: statement(Overwrite::Always),
            not_newer: statement(Overwrite::NotNewer),
            older: statement(Overwrite::Older),
        }
    }

    fn sql(&self, overwrite: Overwrite) -> &str {
        match overwrite {
            Overwrite::Always => &self.always,
            Overwrite::NotNewer => &self.not_newer,
            Overwrite::Older => &self.older,
        }
    }
}

impl VectorTable {
    /// Checks the table: the extension, every column's type and whether it takes nulls, the dimension, a unique key on
    /// `id`, the rights of the role. All that is wrong is reported together. Changes nothing, and takes at most 60 s.
    pub async fn check(client: &Client, spec: &TableSpec) -> Result<Self, ContractError> {
        Self::check_for(client, spec, contract::WRITING).await
    }

    /// The same for those who only [ask](Self::ask): of the role it wants no more than the right to select.
    pub async fn check_readable(client: &Client, spec: &TableSpec) -> Result<Self, ContractError> {
        Self::check_for(client, spec, contract::READING).await
    }

    async fn check_for(client: &Client, spec: &TableSpec, rights: &[&str]) -> Result<Self, ContractError> {
        let checked = async {
            let mut table = contract::check(client, spec, rights).await?;
            table.was_empty = table.is_empty(client).await?;
            Ok(table)
        };
        match timeout(QUESTION, checked).await {
            Ok(checked) => checked,
            Err(_) => Err(ContractError::Unknown(Error::new(
                format!("check the table {}", spec.name),
                Cause::Timeout(QUESTION),
            ))),
        }
    }

    /// Checks tables that are written to in one transaction: each as [`check`](Self::check) does, and that no foreign key
    /// leads from one of them to another, or to itself. A transaction goes table by table, deletions first, so such a
    /// key would refuse rows that are good in the order they came in. Takes at most 60 s for each and for the keys.
    pub async fn check_all(client: &Client, specs: &[TableSpec]) -> Result<Vec<Self>, ContractError> {
        let mut tables = Vec::with_capacity(specs.len());
        for spec in specs {
            tables.push(Self::check(client, spec).await?);
        }
        match timeout(QUESTION, foreign_key::check(client, specs)).await {
            Ok(checked) => checked.map(|()| tables),
            Err(_) => {
                Err(ContractError::Unknown(Error::new(foreign_key::CHECKING, Cause::Timeout(QUESTION))))
            }
        }
    }

    /// The SQL that makes the table, for people to read and run; it does nothing if there is one of that name. Needs
    /// the extension on the search path. [`Migrator::apply`](crate::Migrator::apply) runs the like.
    pub fn create_sql(spec: &TableSpec) -> String {
        statement::create_table(&spec.name, "vector", spec.dimensions)
    }

    /// The name as configured.
    pub fn name(&self) -> &Ident {
        &self.spec.name
    }

    /// The length of every embedding.
    pub fn dimensions(&self) -> u16 {
        self.spec.dimensions
    }

    /// How many characters (not bytes) an `id` may have. `None`: any number. A longer one fails the statement, unless
    /// everything beyond is spaces; those PostgreSQL cuts off in silence, so check before.
    pub fn max_id_chars(&self) -> Option<u32> {
        self.max_id_chars
    }

    /// The same for `source`.
    pub fn max_source_chars(&self) -> Option<u32> {
        self.max_source_chars
    }

    /// Whether there was no row in it when it was checked, nor any other reason why
    /// [`Transaction::insert`](crate::Transaction::insert) should fail. Only a good guess by now.
    pub fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// What has no pages has no rows. Rules and policies do not go with COPY.
    async fn is_empty(&self, client: &Client) -> Result<bool, ContractError> {
        let sql = "select c.relkind = 'r' and not c.relhasrules and not c.relrowsecurity \
                   and pg_catalog.pg_relation_size(c.oid) = 0 \
                   from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)";
        let answer = client.query_typed_opt(sql, &[(&self.table, Type::TEXT)]).await;
        let is_empty = answer.and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)));
        let action = || format!("check the table {}", self.spec.name);
        is_empty.map_err(|error| ContractError::Unknown(Error::during(action(), error)))
    }

    pub(crate) fn proven(
        spec: TableSpec,
        schema: &Ident,
        extension: Extension,
        max_id_chars: Option<u32>,
        max_source_chars: Option<u32>,
    ) -> Self {
        Self {
            upsert: Guarded::new(|overwrite| {
                statement::upsert(schema, &spec.name, &extension.schema, overwrite)
            }),
            stored: statement::stored(schema, &spec.name),
            delete: Guarded::new(|overwrite| statement::delete(schema, &spec.name, overwrite)),
            count_newer: statement::count_newer(schema, &spec.name),
            count_not_older: statement::count_not_older(schema, &spec.name),
            count_keys: statement::count_keys(schema, &spec.name),
            copy: statement::copy(schema, &spec.name),
            was_empty: false,
            table: format!("{schema}.{}", spec.name),
            schema: schema.clone(),
            extension: extension.schema,
            vector_array: extension.vector_array,
            max_id_chars,
            max_source_chars,
            spec,
        }
    }

    pub(crate) fn schema(&self) -> &Ident {
        &self.schema
    }

    /// The schema of the extension.
    pub(crate) fn extension(&self) -> &Ident {
        &self.extension
    }

    pub(crate) fn vector_array(&self) -> &Type {
        &self.vector_array
    }

    /// What lets the role write, as SQL.
    pub(crate) fn grant_sql(&self, role: &Ident) -> String {
        let Self { table, schema, extension, .. } = self;
        let schemas = if schema == extension { schema.to_string() } else { format!("{schema}, {extension}") };
        format!(
            "grant usage on schema {schemas} to {role}; grant select, insert, update, delete on {table} to {role};"
        )
    }

    pub(crate) fn upsert_sql(&self, overwrite: Overwrite) -> &str {
        self.upsert.sql(overwrite)
    }

    pub(crate) fn stored_sql(&self) -> &str {
        &self.stored
    }

    pub(crate) fn delete_sql(&self, overwrite: Overwrite) -> &str {
        self.delete.sql(overwrite)
    }

    pub(crate) fn count_newer_sql(&self) -> &str {
        &self.count_newer
    }

    pub(crate) fn count_not_older_sql(&self) -> &str {
        &self.count_not_older
    }

    pub(crate) fn count_keys_sql(&self) -> &str {
        &self.count_keys
    }

    /// Schema and name, quoted.
    pub(crate) fn qualified(&self) -> &str {
        &self.table
    }

    pub(crate) fn copy_sql(&self) -> &str {
        &self.copy
    }
}
