//! Real tables in folders of their own.

mod crash;
mod keyed;
mod lock;
mod schema;
mod search;
mod support;
mod upkeep;
mod upsert;
