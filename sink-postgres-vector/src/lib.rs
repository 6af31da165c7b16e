//! Writes rows with embeddings into PostgreSQL tables that have a pgvector column.
//!
//! The library knows rows, tables and transactions. Where a row came from, and how far its source has been
//! read, is the caller's: it keeps that in the same transaction, with its own SQL on [`Transaction::client`].
//!
//! The way of a row:
//!
//! 1. [`Connection::open`] connects, with deadlines on everything.
//! 2. [`Migrator::apply`] brings the database to the shape this version needs.
//! 3. [`VectorTable::check_all`] proves that the tables have the shape they must have.
//! 4. [`Connection::begin_for`], [`Transaction::upsert`], [`Transaction::delete`], [`Transaction::commit`].
//!    Only a commit that the server has confirmed makes a [`Committed`].
//!    Into a table that was empty, [`Transaction::insert`] is faster.
//! 5. [`Transaction::upsert_sparing`] does the same for a batch in which the server refuses some rows, and finds them.
//!
//! Beside it, [`VectorIndex`] knows the index of a table, and [`IndexBuild`] builds it while rows are written.
//!
//! [`VectorTable::ask`] reads rows back, by key or by nearness.
//!
//! Every failure is an [`Error`] that knows its [`Class`]: try again, refuse the data, ask the operator, stop.
//! No error text and no `Debug` output of this crate holds the value of a row or a password.

mod cause;
mod class;
mod column;
mod connection;
mod contract;
mod copy;
mod differing;
mod driver;
mod encode;
mod error;
mod extension;
mod foreign_key;
mod ident;
mod index;
mod jsonb;
mod migrate;
mod migration;
mod options;
mod overwrite;
mod query;
mod rights;
mod row;
mod session;
mod spare;
mod statement;
mod table;
mod tls;
mod transaction;

pub use class::{Class, classify_sqlstate};
pub use connection::Connection;
pub use contract::{ContractError, Mismatch};
pub use error::Error;
pub use ident::{Ident, IdentError};
pub use index::{
    BuildLimits, BuildProgress, Built, IndexBuild, IndexFound, IndexMethod, IndexSpec, Metric, VectorIndex,
};
pub use migrate::Migrator;
pub use migration::{Applied, MigrateError, Migration};
pub use options::{ClientCertificate, ConnectOptions, Password, Tls, TlsMode};
pub use overwrite::Overwrite;
pub use query::{Answer, FoundRow, Query, Wanted};
pub use row::{Deletion, VectorRow};
pub use spare::{Refused, Spared};
pub use table::{TableSpec, VectorTable};
pub use transaction::{Committed, Deleted, Transaction, Upserted};

/// What [`Error::sqlstate`] returns.
pub use tokio_postgres::error::SqlState;
