//! What the program does for each subcommand: settings in, exit code out. At the edge.

mod dlq;
mod run;
mod status;

pub use dlq::{DlqCommand, Files, Filter, dlq};
pub use run::{check, migrate, run};
pub use status::{Form, StatusOptions, status};
