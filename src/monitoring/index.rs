//! How the tables' vector indexes are.

use serde::{Deserialize, Serialize};

/// What there is of a table's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexState {
    /// None is configured.
    None,
    /// One that somebody else has made does the same, and is left alone.
    ByHand,
    /// It is missing, and its time has not come.
    Waiting,
    /// It is being built, by this connector or another.
    Building,
    /// It is there.
    Ready,
    /// It cannot be built.
    Failed,
}

impl IndexState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::None, Self::ByHand, Self::Waiting, Self::Building, Self::Ready, Self::Failed];

    /// The word that stands in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ByHand => "by-hand",
            Self::Waiting => "waiting",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// How far an index is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexProgress {
    /// What there is of it.
    pub state: IndexState,
    /// Why it is not ready, in words, or whose it is.
    pub reason: Option<String>,
    /// What the server is at while it builds, in its own words.
    pub phase: Option<String>,
    /// How much of the phase is done, from 0 to 100.
    pub percent: Option<f64>,
}

impl From<IndexState> for IndexProgress {
    fn from(state: IndexState) -> Self {
        Self { state, reason: None, phase: None, percent: None }
    }
}

/// The index of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexFigures {
    /// The table as configured.
    pub table: String,
    /// How far it is.
    #[serde(flatten)]
    pub progress: IndexProgress,
}
