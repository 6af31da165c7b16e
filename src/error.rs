//! What can go wrong, and what follows from it. Part of the vocabulary.
//!
//! Invariant: every error ends in exactly one of retry, reject, stop, and [`WriteError::disposition`]
//! is the one place that decides it.

use sink_postgres_vector::{Class, ContractError, MigrateError};

use crate::breaker::Opened;
use crate::config::ConfigError;
use crate::reject::Reject;
use crate::source::{Partition, SourceError};
use crate::write::LetterError;

/// What follows from a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try the same again after a pause, for ever.
    Retry,
    /// The data of this batch is refused.
    Reject,
    /// The operator must act; nothing has moved.
    Stop,
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Postgres, or the way to it.
    #[error(transparent)]
    Postgres(#[from] sink_postgres_vector::Error),
    /// LanceDB, its disk or its object store.
    #[cfg(feature = "lancedb")]
    #[error(transparent)]
    Lance(#[from] sink_lancedb::Error),
    /// The dead-letter topic. Nothing was written to the database.
    #[error(transparent)]
    Letter(#[from] LetterError),
}

impl WriteError {
    /// What follows.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Postgres(error) => match error.class() {
                Class::Transient => Disposition::Retry,
                Class::Data => Disposition::Reject,
                Class::Configuration | Class::Fatal => Disposition::Stop,
            },
            #[cfg(feature = "lancedb")]
            Self::Lance(error) => match error.class() {
                sink_lancedb::Class::Transient => Disposition::Retry,
                sink_lancedb::Class::Data => Disposition::Reject,
                sink_lancedb::Class::Configuration | sink_lancedb::Class::Fatal => Disposition::Stop,
            },
            Self::Letter(error) if error.is_passing() => Disposition::Retry,
            Self::Letter(_) => Disposition::Stop,
        }
    }

    /// What cannot be written, in a word or two.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "the database",
            #[cfg(feature = "lancedb")]
            Self::Lance(_) => "the dataset",
            Self::Letter(_) => "the dead-letter topic",
        }
    }

    /// How to mend it, as whole sentences.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => error.remedy(),
            #[cfg(feature = "lancedb")]
            Self::Lance(error) => error.remedy(),
            Self::Letter(error) => error.remedy().map(str::to_owned),
        }
    }

    /// The message, and how to mend it where that can be said.
    pub(crate) fn with_remedy(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self}. {remedy}"),
            None => self.to_string(),
        }
    }

    /// What the server calls it; `None` when it did not say, as when the connection was lost.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.sqlstate().map(|state| state.code()),
            #[cfg(feature = "lancedb")]
            Self::Lance(_) => None,
            Self::Letter(_) => None,
        }
    }

    /// The word under which its retries are counted.
    pub(crate) fn cause(&self) -> &str {
        match self {
            #[cfg(feature = "lancedb")]
            Self::Lance(_) => "storage",
            _ => self.sqlstate().unwrap_or("connection"),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Postgres(error) if error.class() == Class::Configuration => BAD_CONFIGURATION,
            Self::Letter(error) if !error.is_passing() => BAD_CONFIGURATION,
            #[cfg(feature = "lancedb")]
            Self::Lance(error) if error.class() == sink_lancedb::Class::Configuration => BAD_CONFIGURATION,
            #[cfg(feature = "lancedb")]
            Self::Lance(_) => FAILED,
            Self::Postgres(_) | Self::Letter(_) => FAILED,
        }
    }
}

/// Why the connector ended, where that was not a clean stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source cannot go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The target cannot be reached or used at start.
    #[error(transparent)]
    Connect(WriteError),
    /// A write that asking again does not mend.
    #[error("writing stopped, and no position was moved: {0}")]
    Write(#[from] WriteError),
    /// The target refuses a batch for its data, but none of its records alone.
    #[error(
        "the target refuses the data of a batch that covers {covers}, and no record of it alone; none of it was \
         written and no position was moved: {error}. In PostgreSQL, look for triggers and deferred constraints on the \
         tables"
    )]
    RefusedBatch {
        /// The positions of the batch, as text.
        covers: String,
        /// What it said.
        error: WriteError,
    },
    /// A bad record, with `errors.tolerance: none`.
    #[error(
        "{partition} offset {offset} cannot be used: {reject}. With errors.tolerance: none the connector stops \
         here; data keeps such records as dead letters and goes on"
    )]
    BadRecord {
        /// Where it stands.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// The verdict.
        reject: Reject,
    },
    /// Nearly everything is rejected.
    #[error(
        "{rejected} of the last {records} records could not be used, most of them as {mostly}: this is not a topic \
         with some bad records. Has the embedding model changed, or is it another topic? The batch at hand was not \
         written, and its positions did not move. Mend the configuration or the table and start again; or raise \
         errors.max-ratio (1 switches this off) to let such records become dead letters",
        rejected = .0.rejected, records = .0.records, mostly = .0.mostly
    )]
    TooManyRejects(Opened),
    /// A migration.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A target table that is not as it must be.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// A part of the connector ended that should not have.
    #[error("a part of the connector ended unexpectedly: {0}. This is a defect; please report it")]
    Defect(String),
}

/// Exit code for a failure.
pub const FAILED: u8 = 1;
/// Exit code for a bad configuration (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIGURATION: u8 = 78;

impl ConnectorError {
    /// The exit code that tells this error to a script.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Contract(_) => BAD_CONFIGURATION,
            Self::Source(SourceError::Settings { .. }) => BAD_CONFIGURATION,
            Self::Write(error) | Self::Connect(error) => error.exit_code(),
            Self::Migrate(MigrateError::Database(error)) if error.class() != Class::Configuration => FAILED,
            Self::Migrate(_) => BAD_CONFIGURATION,
            Self::Source(_)
            | Self::RefusedBatch { .. }
            | Self::BadRecord { .. }
            | Self::TooManyRejects(_)
            | Self::Defect(_) => FAILED,
        }
    }

    /// How to mend it, as whole sentences, where the message does not say so already.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Write(error) | Self::Connect(error) => error.remedy(),
            Self::Migrate(error) => error.remedy(),
            Self::Contract(ContractError::Unknown(error)) => error.remedy(),
            _ => None,
        }
    }

    /// The message, and how to mend it where that can be said.
    pub(crate) fn with_remedy(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self}. {remedy}"),
            None => self.to_string(),
        }
    }
}
