//! Which of two versions of a row stays: the rule for writes that may come late.

/// When a write may replace or delete the row that is there. What is compared is the column `timestamp`.
///
/// A row that is not there, or has no timestamp, is always written. A row to write that has no timestamp counts as
/// the oldest: it replaces only a row without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overwrite {
    /// Always: the order of the writes decides. Costs nothing.
    Always,
    /// Only a row that is not newer. One more statement counts what was left alone.
    NotNewer,
    /// Only a row that is strictly older. One more statement counts what was left alone.
    Older,
}

impl Overwrite {
    /// How the stored timestamp must compare to the one that comes. `None`: it is not looked at.
    pub(crate) fn operator(self) -> Option<&'static str> {
        match self {
            Self::Always => None,
            Self::NotNewer => Some("<="),
            Self::Older => Some("<"),
        }
    }
}
