//! Faults by the hundreds, and hours of load: whatever happens, each table equals the fold of the log per key.
//!
//! Not part of `make test`: `make chaos` runs the campaigns, `make soak` the long run. Each test says how
//! often it strikes by default and which variable changes that. `EMBEDSINK_SEED` repeats the choices of a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod broker;
mod campaign;
mod commit;
mod kill;
mod postgres;
mod rebalance;
mod soak;
#[allow(dead_code, reason = "shared with the other tests, which use the rest of it")]
#[path = "../support/mod.rs"]
mod support;
