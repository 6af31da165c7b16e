//! The files that describe a connector, as arguments.

use std::path::PathBuf;

use clap::Args;

/// The files that describe a connector.
#[derive(Debug, Args)]
pub struct Files {
    /// The configuration file (connector.yaml is a commented example).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A file of NAME=VALUE lines for ${{ secrets.NAME }}; without it they come from the environment.
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
}
