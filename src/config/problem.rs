//! What is wrong with a configuration, in words for the person who wrote it.
//!
//! No text in here ever holds a secret: the rooms that make problems quote a value only through
//! [`Field::quoted`](super::field::Field::quoted).

use std::fmt;

/// A place in a file, counted from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Position {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong, with its place and its fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file. `None` when it is the file itself, for example when it cannot be read.
    pub position: Option<Position>,
    /// The key, from the top and with dots between, such as `embedsink.batch.max-rows`. Empty when it is the
    /// file itself.
    pub path: String,
    /// What is wrong, and why it matters.
    pub what: String,
    /// How to mend it.
    pub fix: String,
}

/// A configuration that cannot be used: every problem of one file, in file order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// Its problems, never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// A problem of the file as a whole.
    pub(crate) fn whole_file(file: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let problem = Problem { position: None, path: String::new(), what: what.into(), fix: fix.into() };
        Self { file: file.to_owned(), problems: vec![problem] }
    }

    fn lines(&self) -> String {
        let mut lines = String::new();
        for problem in &self.problems {
            lines.push_str(&self.file);
            lines.push_str(&format!("{problem}\n"));
        }
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        lines.push_str(&format!("{count} {noun}; nothing was started"));
        lines
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}; {}", self.what, self.fix)
    }
}

/// The problems found so far, and what was found elsewhere than under its key.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    resolved: Vec<Resolved>,
}

/// A value that its key does not say: it comes from somewhere else, or depends on other keys.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) path: String,
    /// `None` for one that nobody may see.
    pub(crate) text: Option<String>,
    pub(crate) origin: Origin,
}

/// Where a value comes from that its key does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody says it.
    Default,
    /// An environment variable.
    Environment(&'static str),
    /// `sink.postgres.url`, at this place.
    Url(Position),
    /// Another key.
    Key(&'static str),
}

impl Report {
    pub(crate) fn add(&mut self, at: Position, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        let problem =
            Problem { position: Some(at), path: path.to_owned(), what: what.into(), fix: fix.into() };
        self.problems.push(problem);
    }

    /// Takes note of a value that is in force, though its key does not say it.
    pub(crate) fn resolve(&mut self, path: String, text: Option<String>, origin: Origin) {
        self.resolved.push(Resolved { path, text, origin });
    }

    /// What was found elsewhere than under its key.
    pub(crate) fn take_resolved(&mut self) -> Vec<Resolved> {
        std::mem::take(&mut self.resolved)
    }

    /// The value, or every problem in file order when there is one or the value could not be made.
    pub(crate) fn finish<T>(mut self, file: &str, value: Option<T>) -> Result<T, ConfigError> {
        self.problems.sort_by_key(|problem| problem.position);
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ if self.problems.is_empty() => {
                Err(ConfigError::whole_file(file, "could not be understood", "please report this as a bug"))
            }
            _ => Err(ConfigError { file: file.to_owned(), problems: self.problems }),
        }
    }
}

/// `text` for a message: one line, short, in backquotes.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    // `escape_debug` is for string literals; quotes need no escape here.
    format!("`{}`", shown.replace("\\'", "'").replace("\\\"", "\""))
}

/// A key for a message. A key that is no plain word is cut at its first odd character: `password:hunter2`,
/// with the space forgotten, is one key to YAML.
pub(crate) fn plain_key(key: &str) -> String {
    let end = key.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))).unwrap_or(key.len());
    let mut shown: String = key.chars().take(key[..end].chars().count().min(64)).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    shown
}
