//! The whole binary against a real Fluvio cluster, the real `cdk`, and real PostgreSQL.
//!
//! Not part of `make test`: `make test-fluvio` runs it, and needs `fluvio`, `fluvio-run` and `cdk` on the
//! path (Fluvio's installer puts them there). Every test starts a cluster of its own on free ports of this
//! machine, with a home of its own, so no profile of the user's is touched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod cluster;
mod crash;
mod limits;
mod package;
mod stage;
#[allow(dead_code, reason = "shared with the tests against Kafka, which use the rest of it")]
#[path = "../support/mod.rs"]
mod support;
mod transform;
mod way;
