//! Why a cluster did not do what it was asked, and whether asking again will help.
//!
//! Invariant: no text in here holds anything of a record, or a parameter of a transform.

use fluvio::FluvioError;
use fluvio::dataplane::link::ErrorCode;

/// Why the cluster did not do what it was asked.
#[derive(Debug)]
pub enum Fault {
    /// It may do it later.
    Passing(String),
    /// There is no such topic.
    NoTopic,
    /// The offset asked for is not there, or not any more.
    OutOfRange,
    /// The next batch does not fit into an answer.
    TooSmall,
    /// The operator must act.
    Refused {
        /// What was refused, in words that hold nothing of a record.
        reason: String,
        /// What the operator can do.
        remedy: &'static str,
    },
}

impl Fault {
    pub(super) fn passing(error: impl std::fmt::Display) -> Self {
        Self::Passing(error.to_string())
    }

    /// What follows from an error code of the cluster. Says nothing of a record: the text that the client
    /// makes of a SmartModule's error holds the record's key and value.
    pub fn of(code: &ErrorCode) -> Self {
        match code {
            ErrorCode::OffsetOutOfRange | ErrorCode::OffsetEvicted { .. } => Self::OutOfRange,
            ErrorCode::MessageTooLarge => Self::TooSmall,
            ErrorCode::TopicNotFound | ErrorCode::TopicDeleted => Self::NoTopic,
            ErrorCode::PermissionDenied => Self::Refused {
                reason: "permission denied".to_owned(),
                remedy: "Look at the profile's certificate and the cluster's policy: the connector reads topics and \
                         partitions, and consumes",
            },
            ErrorCode::CompressionError => Self::Refused {
                reason: "a batch cannot be decompressed".to_owned(),
                remedy: "Look at the SPU's storage, and at what produced the batch",
            },
            other => Self::passing(other),
        }
    }

    pub(super) fn of_fluvio(error: &FluvioError) -> Self {
        match error {
            FluvioError::TopicNotFound(_) => Self::NoTopic,
            other => Self::passing(other),
        }
    }

    pub(super) fn of_any(error: &anyhow::Error) -> Self {
        if let Some(code) = error.downcast_ref::<ErrorCode>() {
            Self::of(code)
        } else if let Some(error) = error.downcast_ref::<FluvioError>() {
            Self::of_fluvio(error)
        } else {
            Self::passing(error)
        }
    }
}
