//! Which of two versions of a row stays: the rule for writes that may come late.

/// When a write may replace or delete the row that is there. What is compared is the column `timestamp`.
///
/// A row that is not there is always written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overwrite {
    /// Always: the order of the writes decides.
    Always,
    /// Only a row that is not newer. A row that is there without a timestamp counts as the oldest, and so does one that
    /// comes without: it replaces only a row that has none either.
    NotNewer,
    /// Only a row that is proved to be older: both have a timestamp, and the stored one is strictly earlier.
    Older,
}

impl Overwrite {
    /// Whether what comes with the timestamp `new` may replace a row stored with `old`.
    pub(crate) fn replaces(self, new: Option<i64>, old: Option<i64>) -> bool {
        match self {
            Self::Always => true,
            // `None` is less than any time.
            Self::NotNewer => old <= new,
            Self::Older => old.zip(new).is_some_and(|(old, new)| old < new),
        }
    }

    /// Whether a deletion asked for at `new` may remove a row stored with `old`.
    pub(crate) fn deletes(self, new: Option<i64>, old: Option<i64>) -> bool {
        match self {
            Self::Always => true,
            Self::NotNewer => new.is_none() || old <= new,
            Self::Older => old.zip(new).is_some_and(|(old, new)| old < new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_row_stays_and_one_without_a_time_counts_as_the_oldest() {
        use Overwrite::{Always, NotNewer, Older};
        for (new, old, replaces, deletes) in [
            (Some(2), Some(1), [true, true, true], [true, true, true]),
            (Some(1), Some(1), [true, true, false], [true, true, false]),
            (Some(1), Some(2), [true, false, false], [true, false, false]),
            (None, Some(1), [true, false, false], [true, true, false]),
            (Some(1), None, [true, true, false], [true, true, false]),
            (None, None, [true, true, false], [true, true, false]),
        ] {
            assert_eq!(
                [Always, NotNewer, Older].map(|rule| rule.replaces(new, old)),
                replaces,
                "{new:?} {old:?}"
            );
            assert_eq!(
                [Always, NotNewer, Older].map(|rule| rule.deletes(new, old)),
                deletes,
                "{new:?} {old:?}"
            );
        }
    }
}
