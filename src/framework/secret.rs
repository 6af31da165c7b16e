//! Values that nobody may read by accident, and where they come from. Part of the framework's room.
//!
//! Mirrors `SecretString` and the two `SecretStore`s of `fluvio_connector_common::secret`: a value comes
//! from the environment, or from a file of `NAME=VALUE` lines, and its `Debug` hides it. Goes further:
//!
//! - A value is put in after the YAML has been parsed, so none can break or inject YAML. The framework
//!   writes it into the text before.
//! - A [`Secret`] cannot be serialised. The framework's is written out in clear.
//! - A value of the file stands as it is, its blanks too; a name given twice, a line that is none and an
//!   empty value are problems with their line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::config::file::read_text;
use crate::config::problem::{ConfigError, Position, Report, quote};

/// A value that may be secret. `Debug` hides it, it has no `Display` and is not serialisable.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Give it to the library that needs it, and to nothing that prints.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// Where `${{ secrets.NAME }}` finds its values: a file of `NAME=VALUE` lines, or the environment.
#[derive(Debug, Clone)]
pub struct SecretStore(Source);

#[derive(Debug, Clone)]
enum Source {
    Environment,
    File { name: String, values: BTreeMap<String, Secret> },
}

impl SecretStore {
    /// Secrets are environment variables.
    pub fn environment() -> Self {
        Self(Source::Environment)
    }

    /// Secrets are the lines of the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is no secret.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = read_text(path, "check the path after `--secrets`")?;
        Self::from_text(&name, &text)
    }

    /// Secrets are the lines of `text`: `NAME=VALUE`, blank, or a comment that begins with `#`. The value is
    /// everything after the first `=`, as it stands. `file` names the text in problems.
    ///
    /// # Errors
    /// A line is no secret.
    pub fn from_text(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let mut values: BTreeMap<String, Secret> = BTreeMap::new();
        let mut lines: BTreeMap<String, u32> = BTreeMap::new();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let at = Position { line: number, column: 1 };
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                report.add(
                    at,
                    "",
                    "this line is no `NAME=VALUE`",
                    "write one secret a line; a secret has no line break",
                );
                continue;
            };
            let name = name.trim();
            if !is_secret_name(name) {
                // The name is not shown: on a broken line it may be part of a value.
                report.add(at, "", "the name before `=` is badly formed", NAME_FORM);
            } else if let Some(first) = lines.get(name) {
                let what = format!("{} is given twice, first at line {first}", quote(name));
                report.add(at, "", what, "keep one");
            } else {
                lines.insert(name.to_owned(), number);
                values.insert(name.to_owned(), Secret::new(value));
            }
        }
        let source = Source::File { name: file.to_owned(), values };
        report.finish(file, Some(Self(source)))
    }

    /// The file that values come from; without one it is the environment.
    pub(crate) fn file(&self) -> Option<&str> {
        match &self.0 {
            Source::Environment => None,
            Source::File { name, .. } => Some(name),
        }
    }

    /// The value of `name`, and where it was looked for when there is none.
    pub(crate) fn get(
        &self,
        name: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, (String, String)> {
        let (found, place, fix) = match &self.0 {
            Source::Environment => (
                environment(name).map(Secret::new),
                "the environment".to_owned(),
                format!("set the variable {}, or pass a file with `--secrets`", quote(name)),
            ),
            Source::File { name: file, values } => (
                values.get(name).cloned(),
                format!("the secrets file {}", quote(file)),
                format!("add a line `{name}=…` to it"),
            ),
        };
        match found {
            Some(secret) if secret.expose().is_empty() => {
                Err((format!("the secret {} is empty in {place}", quote(name)), "give it a value".to_owned()))
            }
            Some(secret) => Ok(secret),
            None => Err((format!("the secret {} is not in {place}", quote(name)), fix)),
        }
    }
}

/// What a secret may be called.
pub(crate) const NAME_FORM: &str = "use letters, digits and `_`, beginning with no digit";

/// Whether a secret may be called `name`.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
