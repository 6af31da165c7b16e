//! A sink connector: embedding records from Kafka or Fluvio into PostgreSQL with pgvector, exactly once.
//!
//! ```text
//! Kafka, Fluvio → source → decode → route → batch → write → commit → (broker, as advice)
//!                                                     │
//!                                                     └→ one transaction: rows, deletes, dead letters, positions
//! ```
//!
//! The modules stand in the order of a record's way. Where a partition goes on is stored in Postgres,
//! in the transaction that holds the rows, and nowhere else; ARCHITECTURE.md has the promise and its
//! reasons.

// A reader that has gone away would end the process: see `command::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod source;

pub mod decode;

pub mod route;

pub mod batch;

pub mod breaker;

pub mod write;

pub mod commit;

mod attempt;
mod index;
mod intake;
mod lane;
mod pipeline;

// The vocabulary.
pub mod config;
pub mod error;
pub mod reject;

// Fluvio's own words.
pub mod framework;

// The edge.
pub mod command;
pub mod lifecycle;
pub mod monitoring;
mod target;

// It is given receipts and a pipeline that nobody outside may have.
#[cfg(test)]
#[path = "../tests/simulator/mod.rs"]
mod simulator;
