//! Why a cluster did not do what it was asked, and whether asking again will help.
//!
//! Invariant: no text in here holds anything of a record, or a parameter of a transform.

use fluvio::FluvioError;
use fluvio::dataplane::link::ErrorCode;

/// Why the cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It may do it later.
    #[error("{0}")]
    Passing(String),
    /// There is no such topic.
    #[error("the topic is not there")]
    NoTopic,
    /// The offset asked for is not there, or not any more.
    #[error("the offset is not there")]
    OutOfRange,
    /// The next batch does not fit into an answer.
    #[error("the next batch does not fit into an answer")]
    TooSmall,
    /// The operator must act.
    #[error("{reason}")]
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

    /// What follows from an error code of the cluster.
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
            // No SmartModule runs on the cluster for us. Should one fail all the same, its words hold the record.
            ErrorCode::SmartModuleRuntimeError(error) => {
                Self::Passing(format!("a SmartModule of the cluster failed at offset {}", error.offset))
            }
            other => Self::passing(other),
        }
    }

    pub(super) fn of_any(error: &anyhow::Error) -> Self {
        if let Some(code) = error.downcast_ref::<ErrorCode>() {
            Self::of(code)
        } else if let Some(FluvioError::TopicNotFound(_)) = error.downcast_ref() {
            Self::NoTopic
        } else {
            Self::passing(error)
        }
    }
}
