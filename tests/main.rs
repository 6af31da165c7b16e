//! The whole binary, and its parts that need a server, against real PostgreSQL and Kafka.
//!
//! `POSTGRES_PORT` (default 5432) and `KAFKA_PORT` (default 9092) name servers on this machine, as
//! `make up` starts them. Every test has its own database, topic and group; those that restart a
//! server have that for themselves too. `EMBEDSINK_SEED` repeats a run with the same random choices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod allocation;
mod cases;
mod command;
mod crash;
mod damaged;
mod dlq;
mod features;
mod group;
mod import;
mod index;
mod memory;
mod monitoring;
mod outage;
mod position;
mod privileges;
mod query;
mod refused;
mod secrecy;
mod show;
mod source;
mod start;
#[allow(dead_code, reason = "shared with the tests against Fluvio, which use the rest of it")]
mod support;
mod writer;
