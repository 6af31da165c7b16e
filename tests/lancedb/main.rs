//! The whole binary against a real Kafka broker and a LanceDB dataset on the disk.
//!
//! `make test-lancedb` runs it, for LanceDB takes minutes to compile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod crash;
mod disk;
mod hand;
mod letters;
mod policies;
mod python;
mod refused;
mod replay;
mod stage;
mod status;
mod stop;
#[cfg(feature = "aws")]
mod store;
#[allow(dead_code, reason = "shared with the tests against PostgreSQL, which use the rest of it")]
#[path = "../support/mod.rs"]
mod support;
