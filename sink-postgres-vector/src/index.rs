//! A table's vector index: whether there is one, and building it out of the way of those who write.
//!
//! [`VectorIndex::find`] says what is there, [`IndexBuild::begin`] takes the turn to build, [`IndexBuild::build`] builds.
//! Nothing here drops an index that works, or touches one that is not called as ours would be.

mod build;
mod catalog;
mod definition;
mod estimate;

pub use build::{BuildLimits, Built, IndexBuild};
pub use catalog::{BuildProgress, IndexFound};
pub use definition::{IndexMethod, IndexSpec, Metric};

use crate::{ident::Ident, table::VectorTable};

/// The index as configured, of a table whose shape is proven.
#[derive(Clone, Debug)]
pub struct VectorIndex {
    spec: IndexSpec,
    table: Ident,
    schema: Ident,
    /// The schema of the extension, in which its operator classes are.
    extension: Ident,
    dimensions: u16,
    name: Ident,
}

impl VectorIndex {
    /// The index of `table` that `spec` describes. Its name follows from both, so it is the same after a restart.
    pub fn new(table: &VectorTable, spec: IndexSpec) -> Self {
        Self {
            spec,
            table: table.name().clone(),
            schema: table.schema().clone(),
            extension: table.extension().clone(),
            dimensions: table.dimensions(),
            name: definition::name(table.name(), &spec),
        }
    }

    /// What it is called if it is ours. It is in the table's schema.
    pub fn name(&self) -> &Ident {
        &self.name
    }

    /// The table as configured.
    pub fn table(&self) -> &Ident {
        &self.table
    }

    fn qualified_table(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    fn qualified_name(&self) -> String {
        self.qualified(&self.name)
    }

    /// Another index of the table by its whole name, as SQL has it.
    pub fn qualified(&self, name: &Ident) -> String {
        format!("{}.{name}", self.schema)
    }
}
