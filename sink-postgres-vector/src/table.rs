//! A table as configured, and a table whose shape is proven.

use tokio_postgres::{Client, types::Type};

use crate::{
    contract::{self, ContractError},
    extension::Extension,
    ident::Ident,
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
    upsert: String,
    delete: String,
    table: String,
    schemas: String,
}

impl VectorTable {
    /// Checks the table: the extension, every column's type and whether it takes nulls, the dimension, a unique key on
    /// `id`, the rights of the role. All that is wrong is reported together. Changes nothing.
    pub async fn check(client: &Client, spec: &TableSpec) -> Result<Self, ContractError> {
        contract::check(client, spec).await
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

    pub(crate) fn proven(
        spec: TableSpec,
        schema: &Ident,
        extension: Extension,
        max_id_chars: Option<u32>,
        max_source_chars: Option<u32>,
    ) -> Self {
        Self {
            upsert: statement::upsert(schema, &spec.name, &extension.schema),
            delete: statement::delete(schema, &spec.name),
            table: format!("{schema}.{}", spec.name),
            schemas: match *schema == extension.schema {
                true => schema.to_string(),
                false => format!("{schema}, {}", extension.schema),
            },
            vector_array: extension.vector_array,
            max_id_chars,
            max_source_chars,
            spec,
        }
    }

    pub(crate) fn vector_array(&self) -> &Type {
        &self.vector_array
    }

    /// What lets the role write, as SQL.
    pub(crate) fn grant_sql(&self, role: &Ident) -> String {
        let Self { table, schemas, .. } = self;
        format!(
            "grant usage on schema {schemas} to {role}; grant select, insert, update, delete on {table} to {role};"
        )
    }

    pub(crate) fn upsert_sql(&self) -> &str {
        &self.upsert
    }

    pub(crate) fn delete_sql(&self) -> &str {
        &self.delete
    }
}
