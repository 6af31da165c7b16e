//! Writes rows with embeddings into LanceDB tables: a folder on a disk, no server.
//!
//! The library knows rows, tables and versions. Where a row came from, and how far its source has been read, is the
//! caller's: it keeps that in a [`KeyedTable`] of its own columns.
//!
//! The way of a row:
//!
//! 1. [`Dataset::open`] looks at the URI, [`Dataset::lock`] makes this process its only writer.
//! 2. [`VectorTable::open`] makes the table, or proves that it has the shape it must have.
//! 3. [`VectorTable::upsert`], [`VectorTable::delete`]; each commits, and is durable when it returns.
//! 4. [`KeyedTable::put`] keeps what the caller knows of it, afterwards: there is no transaction over two tables.
//! 5. [`VectorTable::upkeep`] keeps the table small, between two writes.
//!
//! Beside it, [`VectorReader`] and [`KeyedReader`] read without the lock, in this process or another.
//!
//! Every failure is an [`Error`] that knows its [`Class`]: try again, refuse the row, ask the operator, stop. No error text and
//! no `Debug` output of this crate holds the value of a row or a credential.
//!
//! The crate is empty without its feature `lancedb`.

#![cfg(feature = "lancedb")]

mod barrier;
mod class;
mod contract;
mod dataset;
mod encode;
mod error;
mod fault;
mod handle;
mod index;
mod keyed;
mod local;
mod lock;
mod overwrite;
mod reader;
mod row;
mod stats;
mod stored;
mod table;
mod upkeep;

pub use class::Class;
pub use contract::Mismatch;
pub use dataset::{Dataset, DatasetOptions, LockedDataset};
pub use error::{EngineFault, Error};
pub use index::{IndexFit, IndexFound, IndexMethod, IndexSpec, Metric};
pub use keyed::{KeyedReader, KeyedRow, KeyedSpec, KeyedTable, Kind, Value};
pub use overwrite::Overwrite;
pub use reader::{Nearest, Neighbour, VectorReader};
pub use row::{Deletion, StoredRow, VectorRow};
pub use stats::{OnDisk, TableStats};
pub use table::{Deleted, TableSpec, Upserted, VectorTable};
pub use upkeep::{Tidied, Upkeep};
