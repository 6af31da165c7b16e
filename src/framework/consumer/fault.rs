//! Why a cluster did not do what it was asked, and whether asking again will help.
//!
//! Invariant: no text in here holds anything of a record, or a parameter of a transform.

use fluvio::FluvioError;
use fluvio::dataplane::link::ErrorCode;

const LOOK_AT_TRANSFORMS: &str = "Look at `transforms`: the SmartModule, and what stands under its `with`";

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
            ErrorCode::SmartModuleRuntimeError(error) => Self::Refused {
                reason: format!(
                    "a transform failed at offset {} (its words may quote the record, so they are left out)",
                    error.offset
                ),
                remedy: "Try the record with `fluvio consume` and the SmartModule, then mend one of the two",
            },
            ErrorCode::SmartModuleNotFound { name } => Self::Refused {
                reason: format!("there is no SmartModule {name}"),
                remedy: "Load it (fluvio hub sm download, or fluvio sm create), or mend `transforms`",
            },
            ErrorCode::SmartModuleInvalid { .. }
            | ErrorCode::SmartModuleInvalidExports { .. }
            | ErrorCode::SmartModuleMemoryLimitExceeded { .. } => {
                Self::Refused { reason: code.to_string(), remedy: LOOK_AT_TRANSFORMS }
            }
            // Their words may quote a parameter or a record.
            ErrorCode::SmartModuleChainInitError(_)
            | ErrorCode::SmartModuleInitError(_)
            | ErrorCode::SmartModuleLookBackError(_)
            | ErrorCode::SmartModuleError => {
                let reason = "the cluster cannot start the transforms; the SPU's log says why".to_owned();
                Self::Refused { reason, remedy: LOOK_AT_TRANSFORMS }
            }
            ErrorCode::Other(text) if text.starts_with("SmartModule err") => {
                let reason = "a transform broke off; the SPU's log says why".to_owned();
                Self::Refused { reason, remedy: LOOK_AT_TRANSFORMS }
            }
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
