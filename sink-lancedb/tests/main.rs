//! Real tables in folders of their own.

mod arrow;
mod crash;
mod damage;
mod disk;
mod index;
mod keyed;
mod lock;
mod schema;
mod search;
mod support;
mod upkeep;
mod upsert;
