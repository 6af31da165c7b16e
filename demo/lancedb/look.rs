//! The dataset and what was written, seen through the connector's own commands and its last words.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::connector::{LOG, program};
use crate::settings::{Settings, root};

/// For each partition the offset of the next record, and how often it has been taken.
pub(crate) type Offsets = BTreeMap<i32, (i64, i64)>;

/// The connector's program with its configuration.
pub(crate) struct Commands {
    program: PathBuf,
    file: String,
}

/// The rows nearest to a question.
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    pub(crate) took_ms: f64,
}

/// One of them.
pub(crate) struct Row {
    pub(crate) distance: f64,
    pub(crate) topic: Option<String>,
    pub(crate) text: Option<String>,
}

impl Commands {
    /// For the configuration of the demo.
    pub(crate) fn of(settings: &Settings) -> Result<Self> {
        let file = settings.file.to_str().context("The configuration's path is no text")?.to_owned();
        Ok(Self { program: program()?, file })
    }

    /// The program, from the root of the repository.
    pub(crate) fn program(&self) -> String {
        self.program.strip_prefix(root()).unwrap_or(&self.program).display().to_string()
    }

    /// The stored positions.
    pub(crate) fn offsets(&self) -> Result<Offsets> {
        let offset = |line: Value| {
            let number = |key: &str| line[key].as_i64();
            Some((i32::try_from(number("partition")?).ok()?, (number("next_offset")?, number("epoch")?)))
        };
        let lines = self.run(&["offsets", "show", "--json"])?;
        lines.into_iter().map(|line| offset(line).context("offsets show says something else")).collect()
    }

    /// The ids of all rows.
    pub(crate) fn ids(&self) -> Result<HashSet<String>> {
        let mut lines = self.run(&["query", "embeddings", "--limit", "1000000", "--json"])?;
        lines.pop().context("query says nothing")?;
        let id =
            |line: &Value| line["id"].as_str().map(str::to_owned).context("query shows a row without an id");
        lines.iter().map(id).collect()
    }

    /// The three rows nearest to a vector.
    pub(crate) fn nearest(&self, vector: &str) -> Result<Answer> {
        let mut lines = self.run(&["query", "embeddings", "--limit", "3", "--json", "--near", vector])?;
        let summary = lines.pop().context("query says nothing")?;
        let row = |line: Value| Row {
            distance: line["distance"].as_f64().unwrap_or(f64::NAN),
            topic: line["metadata"]["topic"].as_str().map(str::to_owned),
            text: line["text"].as_str().map(str::to_owned),
        };
        let took_ms = summary["summary"]["took_ms"].as_f64().unwrap_or(f64::NAN);
        Ok(Answer { rows: lines.into_iter().map(row).collect(), took_ms })
    }

    /// Runs a command that answers with a JSON object a line.
    fn run(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--config", &self.file]).current_dir(root());
        let done = command.output().context("The connector's program cannot be started")?;
        if !done.status.success() {
            bail!("embedsink {} failed: {}", arguments[0], String::from_utf8_lossy(&done.stderr).trim());
        }
        let text = String::from_utf8(done.stdout).context("The answer is no text")?;
        text.lines().map(|line| serde_json::from_str(line).context("The answer is no JSON")).collect()
    }
}

/// What the connector counted of its own run, as its last words have it.
pub(crate) struct Counts {
    /// Rows inserted or changed.
    pub(crate) upserted: usize,
    /// Rows that were there already as they should be.
    pub(crate) unchanged: usize,
}

impl Counts {
    /// Reads them, once the connector has ended.
    pub(crate) fn read() -> Result<Self> {
        let log = fs::read_to_string(root().join(LOG)).context("The log cannot be read")?;
        let line = log.lines().rev().find(|line| line.contains("embedsink ends"));
        let line = line.context("The connector did not say how it ended")?;
        let count = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|number| number.parse().ok())
                .with_context(|| format!("The last line of {LOG} has no {name}"))
        };
        Ok(Self { upserted: count("upserted")?, unchanged: count("unchanged")? })
    }
}
