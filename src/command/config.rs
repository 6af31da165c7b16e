//! The settings in force.

use std::io;

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tracing_subscriber::EnvFilter;

use super::failure::{self, Failure};
use super::files::Files;
use super::output;
use super::status::plain;
use crate::config::{self, Setting, Shown};
use crate::error::ConnectorError;
use crate::framework::monitoring;

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

/// A variable of the environment that the connector goes by, beside its file.
struct Variable {
    name: &'static str,
    value: String,
    is_set: bool,
}

fn show(files: &Files, json: bool) -> Result<(), Failure> {
    let settings = config::show(&files.config, files.secrets.as_deref()).map_err(ConnectorError::from)?;
    let variables = variables();
    let text = if json {
        let lines = settings.iter().filter_map(Setting::json).chain(variables.iter().map(Variable::json));
        lines.map(|object| format!("{object}\n")).collect()
    } else {
        yaml(&files.config.display().to_string(), &settings, &variables)
    };
    Ok(output::print(text)?)
}

/// What the program reads from its environment whatever is in the file.
fn variables() -> [Variable; 2] {
    let log = std::env::var("RUST_LOG").ok().filter(|directives| EnvFilter::try_new(directives).is_ok());
    let socket = monitoring::socket_path();
    [
        Variable { name: "RUST_LOG", is_set: log.is_some(), value: log.unwrap_or_else(|| "info".to_owned()) },
        Variable {
            name: monitoring::PATH_VARIABLE,
            value: socket.display().to_string(),
            is_set: std::env::var_os(monitoring::PATH_VARIABLE).is_some_and(|path| !path.is_empty()),
        },
    ]
}

impl Variable {
    /// As a comment: no key of the file stands for it.
    fn yaml(&self) -> String {
        let line = format!("# {}: {}", self.name, plain(&self.value));
        let origin = if self.is_set { "environment" } else { "default" };
        format!("{line:COMMENTS$}  # {origin}\n")
    }

    fn json(&self) -> Json {
        let (from, name) = if self.is_set { ("environment", Some(self.name)) } else { ("default", None) };
        json!({
            "key": self.name,
            "value": self.value,
            "hidden": false,
            "from": from,
            "line": null,
            "name": name,
            "secrets_file": null,
        })
    }
}

fn yaml(file: &str, settings: &[Setting], variables: &[Variable]) -> String {
    let mut text = format!("# What is in force, from {}. `line N` is one of that file.\n", plain(file));
    let hides = |setting: &Setting| matches!(setting.shown, Shown::Hidden | Shown::Partly(..));
    if settings.iter().any(hides) {
        text.push_str("# What is `hidden` has to be given again where this is used as a configuration.\n");
    }
    for setting in settings {
        let line = setting.yaml();
        match setting.origin() {
            None => text.push_str(&line),
            Some(origin) => text.push_str(&format!("{line:COMMENTS$}  # {}", plain(&origin))),
        }
        text.push('\n');
    }
    text.extend(variables.iter().map(Variable::yaml));
    text
}
