//! What the program does for each subcommand: settings in, exit code out. At the edge.

mod config;
mod dlq;
mod failure;
mod files;
mod offsets;
mod output;
mod query;
mod run;
mod status;
mod store;
mod write;

pub use config::{ConfigCommand, config};
pub use dlq::{DlqCommand, Filter, dlq};
pub use files::Files;
pub use offsets::{OffsetsCommand, offsets};
pub use query::{QueryOptions, query};
pub use run::{check, migrate, run};
pub use status::{Form, StatusOptions, status};
pub use write::{WriteOptions, write};
