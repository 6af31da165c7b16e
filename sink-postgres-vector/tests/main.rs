//! Against a real PostgreSQL with pgvector, found by `POSTGRES_PORT` (default 5432) on this machine.

#![allow(clippy::unwrap_used, missing_docs)]

mod contract;
mod deadline;
mod differing;
mod failure;
mod index;
mod insert;
mod migrate;
mod names;
mod overwrite;
mod pooled;
mod query;
mod rows;
mod spare;
mod support;
mod tls;
mod unchanged;
