//! A migration, what came of applying it, and what stood in the way.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{contract::Mismatch, error::Error, ident::Ident};

/// Where the bookkeeping is.
pub(crate) const SCHEMA: &str = "embedsink";

/// One step of the schema. Its text never changes once released.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order.
    pub number: u32,
    /// What it brings, in a word.
    pub name: &'static str,
    /// The SQL, run in one transaction. It names every schema and does not begin or commit.
    pub sql: &'static str,
}

impl Migration {
    /// SHA-256 of the text, in hexadecimal. Line ends do not count: a checkout may have rewritten them.
    pub(crate) fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}_{}", self.number, self.name)
    }
}

/// What [`Migrator::apply`](crate::Migrator::apply) did. Nothing of all this, if the database was up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Whether the extension was created.
    pub extension: bool,
    /// The migrations that were applied, as `0001_name`.
    pub migrations: Vec<String>,
    /// The tables that were created.
    pub tables: Vec<Ident>,
}

/// Why the database is not in the shape this version needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The server answered with an error, or not at all.
    #[error("{0}")]
    Database(Error),
    /// [`Migrator::check`](crate::Migrator::check): something is missing.
    #[error("the database is not up to date; missing: {}", .missing.join(", "))]
    Pending {
        /// What is missing, each as a phrase.
        missing: Vec<String>,
    },
    /// The text of an applied migration is not the one of this version.
    #[error("the migration {migration} was applied to this database with another text than this version has")]
    Changed {
        /// The migration, as `0001_name`.
        migration: String,
    },
    /// The database has a migration that this version does not know.
    #[error(
        "this database was migrated by a newer version: it has migration {number} ({name}), unknown here"
    )]
    Newer {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
    },
    /// pgvector is not installed on the server.
    #[error("the extension `vector` (pgvector) is not installed on the server")]
    ExtensionNotInstalled,
    /// The role may not create the extension.
    #[error("the extension `vector` (pgvector) is not in this database and the role may not create it")]
    ExtensionNotPermitted,
    /// A table is missing, and no schema on the search path can take it.
    #[error(
        "the table {table} is not found on the search path of the role, which is: {search_path}. It names no schema \
         that exists and that the role may use"
    )]
    NoSchema {
        /// The table as configured.
        table: Ident,
        /// The setting as it stands.
        search_path: String,
        /// What mends it, as SQL.
        fix: String,
    },
    /// [`Migrator::check_rights`](crate::Migrator::check_rights): the role lacks rights.
    #[error("the role lacks rights on tables of the connector:{}", lines(.missing))]
    Rights {
        /// Every right that is missing, and the grant that mends it. At least one.
        missing: Vec<Mismatch>,
    },
    /// [`VectorIndex::check`](crate::VectorIndex::check): the table's index is missing, and the role cannot build it.
    #[error("the table {table} has no vector index as configured, and it cannot be built:{}", lines(.reasons))]
    Index {
        /// The table as configured.
        table: Ident,
        /// Why not, at least one reason.
        reasons: Vec<Mismatch>,
    },
}

fn lines(missing: &[Mismatch]) -> String {
    missing.iter().map(|mismatch| format!("\n  {mismatch}")).collect()
}

impl MigrateError {
    /// Says what to do if it failed for want of a right.
    pub(crate) fn unless_granted(self, remedy: impl FnOnce() -> String) -> Self {
        match self {
            Self::Database(error) => Self::Database(error.unless_granted(remedy)),
            error => error,
        }
    }

    /// How to fix it, as whole sentences.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Database(error) => error.remedy(),
            Self::Pending { .. } => Some(
                "Run `embedsink migrate` with a role that may create them (or let the connector do it: migrate: auto)."
                    .to_owned(),
            ),
            Self::Changed { .. } => Some(
                "Use the release that migrated the database, or a later one. A released migration is never edited."
                    .to_owned(),
            ),
            Self::Newer { .. } => Some("Use the newer version. There is no way back down.".to_owned()),
            Self::ExtensionNotInstalled => Some(
                "Install pgvector for the server's version, for example the package postgresql-18-pgvector, or use an \
                 image that has it."
                    .to_owned(),
            ),
            Self::ExtensionNotPermitted => {
                Some("Ask an administrator to run, in this database: create extension vector;".to_owned())
            }
            Self::NoSchema { fix, .. } => Some(format!("Let an administrator run: {fix} Then start again.")),
            // Each says its own.
            Self::Rights { .. } | Self::Index { .. } => None,
        }
    }
}
