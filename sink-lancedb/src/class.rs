//! What to do about a failure.

/// What a caller does about an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same work can succeed later: wait, do it again. Everything here is keyed, so again is harmless.
    Transient,
    /// A row cannot be written, now or later. [`Error::row`](crate::Error::row) names it; the others can.
    Data,
    /// An operator must act: the folder, its rights, its holder or a table's schema. The text says the fix.
    Configuration,
    /// A fault of this program, or something nobody foresaw. Stop; do not try again and skip nothing.
    Fatal,
}
