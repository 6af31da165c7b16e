//! What can go wrong, and what follows from it. Part of the vocabulary.
//!
//! Invariant: every error ends in exactly one of retry, reject, stop, and [`WriteError::disposition`]
//! is the one place that decides it.

use sink_postgres_vector::{Class, ContractError, MigrateError};

use crate::config::ConfigError;
use crate::reject::Reject;
use crate::source::{Partition, SourceError};

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
        }
    }

    /// The message, and how to mend it where that can be said.
    pub(crate) fn with_remedy(&self) -> String {
        let Self::Postgres(error) = self;
        match error.remedy() {
            Some(remedy) => format!("{error}. {remedy}"),
            None => error.to_string(),
        }
    }

    /// What the server calls it; `None` when it did not say, as when the connection was lost.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        let Self::Postgres(error) = self;
        error.sqlstate().map(|state| state.code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Postgres(error) if error.class() == Class::Configuration => BAD_CONFIGURATION,
            Self::Postgres(_) => FAILED,
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
    /// Postgres refuses rows that looked right.
    #[error(
        "Postgres refuses the data of a batch that covers {covers}; none of it was written and no position \
         was moved: {error}. Look for a constraint or trigger on the table that these records break"
    )]
    RefusedBatch {
        /// The positions of the batch, as text.
        covers: String,
        /// What Postgres said.
        error: WriteError,
    },
    /// A bad record, with `errors.tolerance: none`.
    #[error(
        "{partition} offset {offset} cannot be used: {reject}. With errors.tolerance: none the connector stops \
         here; data keeps such records in embedsink.dead_letters and goes on"
    )]
    BadRecord {
        /// Where it stands.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// The verdict.
        reject: Reject,
    },
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
            Self::Source(_) | Self::RefusedBatch { .. } | Self::BadRecord { .. } | Self::Defect(_) => FAILED,
        }
    }

    /// How to mend it, as whole sentences, where the message does not say so already.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Write(WriteError::Postgres(error)) | Self::Connect(WriteError::Postgres(error)) => {
                error.remedy()
            }
            Self::Migrate(error) => error.remedy(),
            Self::Contract(ContractError::Unknown(error)) => error.remedy(),
            _ => None,
        }
    }
}
