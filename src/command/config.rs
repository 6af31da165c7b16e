//! The settings in force.

use std::io;

use clap::Subcommand;

use super::failure::{self, Failure};
use super::files::Files;
use super::output;
use super::status::plain;
use crate::config::{self, Setting, Shown};
use crate::error::ConnectorError;

/// Comments begin here, unless a line is longer.
const COMMENTS: usize = 58;

/// What is to be done with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force, defaults included, and where each comes from. Opens no connection.
    ///
    /// The output is a configuration file again. Secrets stay `${{ secrets.NAME }}`; a password that stands in the file
    /// or in the URL is left out, and so it has to be put in again.
    Show {
        /// Which connector.
        #[command(flatten)]
        files: Files,
        /// Print a JSON object a line: key, value, and from where.
        #[arg(long)]
        json: bool,
    },
}

/// Does what is asked. Returns the exit code: 0 done, 78 bad configuration.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone away is no error.
pub fn config(command: &ConfigCommand) -> io::Result<u8> {
    let ConfigCommand::Show { files, json } = command;
    failure::report(show(files, *json))
}

fn show(files: &Files, json: bool) -> Result<(), Failure> {
    let settings = config::show(&files.config, files.secrets.as_deref()).map_err(ConnectorError::from)?;
    let text = if json {
        let lines = settings.iter().filter_map(Setting::json).map(|object| format!("{object}\n"));
        lines.collect()
    } else {
        yaml(&files.config.display().to_string(), &settings)
    };
    Ok(output::print(text)?)
}

fn yaml(file: &str, settings: &[Setting]) -> String {
    let mut text = format!("# What is in force, from {}. `line N` is one of that file.\n", plain(file));
    if settings.iter().any(|setting| setting.shown == Shown::Hidden) {
        text.push_str("# What is `hidden` has to be given again where this is used as a configuration.\n");
    }
    for setting in settings {
        let line = setting.yaml();
        match setting.origin() {
            None => text.push_str(&line),
            Some(origin) => text.push_str(&format!("{line:COMMENTS$}  # {origin}")),
        }
        text.push('\n');
    }
    text
}
