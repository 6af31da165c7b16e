//! Which of two versions of a row stays: the rule for writes that may come late.

/// When a write may replace or delete the row that is there. What is compared is the column `timestamp`.
///
/// A row that is not there is always written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overwrite {
    /// Always: the order of the writes decides. Costs nothing.
    Always,
    /// Only a row that is not newer. A row that is there without a timestamp counts as the oldest, and so does one that
    /// comes without: it replaces only a row that has none either. One more statement counts what was left alone.
    NotNewer,
    /// Only a row that is proved to be older: both have a timestamp, and the stored one is strictly earlier. One more
    /// statement counts what was left alone.
    Older,
}
