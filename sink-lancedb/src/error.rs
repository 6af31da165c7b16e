//! A failure, told without the values that caused it.

use std::path::PathBuf;

use crate::{
    class::Class,
    contract::Mismatch,
    fault::{Fault, FaultKind},
};

/// What failed, and why. Holds no value of a row and no credential, in `Debug` neither.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder of the dataset cannot be used.
    #[error("cannot use {} as a LanceDB dataset: {problem}", folder.display())]
    Folder {
        /// The folder as configured.
        folder: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// Whether it may pass by itself.
        passes: bool,
    },
    /// The URI is none that this build can open.
    #[error("cannot use {uri} as a LanceDB dataset: {problem}")]
    Uri {
        /// The URI as configured.
        uri: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process writes to the dataset.
    #[error(
        "another process writes to the LanceDB dataset {}{}: only one may",
        folder.display(),
        holder.map_or(String::new(), |pid| format!(" (process {pid})"))
    )]
    Held {
        /// The folder of the dataset.
        folder: PathBuf,
        /// Its process id, if it could be read.
        holder: Option<u32>,
    },
    /// A table is not in the shape it must have. Everything that is wrong with it, at least one.
    #[error("the LanceDB table {table} cannot be written to:{}", listed(mismatches))]
    Mismatches {
        /// The table.
        table: String,
        /// What is wrong.
        mismatches: Vec<Mismatch>,
    },
    /// The table is not there, and this was only to read it.
    #[error("there is no LanceDB table {table} in {uri}")]
    NoTable {
        /// The table.
        table: String,
        /// The dataset.
        uri: String,
    },
    /// A row cannot be stored. Nothing was written.
    #[error("row {index} of the batch for the LanceDB table {table} cannot be stored: {problem}")]
    Row {
        /// The table.
        table: String,
        /// The row's place in what was given, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two rows or deletions of one call have the same key. Nothing was written.
    #[error("rows {first} and {second} of the batch for the LanceDB table {table} have the same key")]
    SameKey {
        /// The table.
        table: String,
        /// The first place of the key, from 0.
        first: usize,
        /// The second.
        second: usize,
    },
    /// The engine, the disk or the object store failed.
    #[error("could not {action}: {fault}")]
    #[non_exhaustive]
    Engine {
        /// Completes the sentence "could not …".
        action: String,
        #[doc(hidden)]
        fault: EngineFault,
    },
}

/// What went wrong inside the engine. Its text is part of [`Error`]'s.
#[derive(Debug)]
pub struct EngineFault(pub(crate) Fault);

impl std::fmt::Display for EngineFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn listed(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(|mismatch| format!("\n  {mismatch}")).collect()
}

impl Error {
    pub(crate) fn engine(action: impl Into<String>, error: &lancedb::Error) -> Self {
        Self::Engine { action: action.into(), fault: EngineFault(Fault::of(error)) }
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Folder { passes: true, .. } => Class::Transient,
            Self::Folder { .. }
            | Self::Uri { .. }
            | Self::Held { .. }
            | Self::Mismatches { .. }
            | Self::NoTable { .. } => Class::Configuration,
            Self::Row { .. } => Class::Data,
            // Whoever gives rows has to have joined them by key.
            Self::SameKey { .. } => Class::Fatal,
            Self::Engine { fault, .. } => fault.0.class(),
        }
    }

    /// The place of the one row that cannot be stored, from 0.
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::Row { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// Whether a commit was sent and its outcome is not known. Writing the same again is harmless.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Engine { fault, .. } if fault.0.kind == FaultKind::InDoubt)
    }

    /// Whether there is no room on the disk. What [`VectorTable::prune`](crate::VectorTable::prune) removes may make some.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Engine { fault, .. } if fault.0.kind == FaultKind::DiskFull)
    }

    /// How to fix it, as whole sentences. `None` if it passes by itself or nothing general can be said.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Folder { .. } => {
                "Name a folder on a local disk that the user of this process may read and write.".to_owned()
            }
            Self::Uri { .. } => "Correct the URI of the dataset.".to_owned(),
            Self::Held { holder: Some(pid), .. } => {
                format!(
                    "Stop process {pid} first, or write to another folder. The lock ends with its process."
                )
            }
            Self::Held { .. } => {
                "Stop it first, or write to another folder. The lock ends with its process.".to_owned()
            }
            Self::NoTable { .. } => "Correct the table's name or the URI, or write to it first.".to_owned(),
            Self::Engine { fault, .. } => fault.0.remedy()?.to_owned(),
            Self::Mismatches { .. } | Self::Row { .. } | Self::SameKey { .. } => return None,
        })
    }
}
