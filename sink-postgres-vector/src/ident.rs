//! A name of a table or column. The only place that quotes.

use std::{fmt, str::FromStr};

/// PostgreSQL cuts longer names off silently, so two different names could meet in one table.
const MAX_BYTES: usize = 63;

/// The name of something in the database, exactly as spelled: upper case, spaces and quotes are kept.
///
/// `Display` writes it quoted, ready for SQL. [`Ident::as_str`] gives the bare name, for lookups by value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(String);

/// Why a text cannot be a name in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    /// The text has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// The text holds a NUL character.
    #[error("a name must not hold a NUL character")]
    Nul,
    /// The text is longer than 63 bytes.
    #[error("a name must not be longer than 63 bytes, this one has {0}")]
    TooLong(usize),
}

impl Ident {
    /// Takes a bare name, without quotes around it.
    pub fn new(name: impl Into<String>) -> Result<Self, IdentError> {
        let name = name.into();
        if name.is_empty() {
            return Err(IdentError::Empty);
        }
        if name.contains('\0') {
            return Err(IdentError::Nul);
        }
        if name.len() > MAX_BYTES {
            return Err(IdentError::TooLong(name.len()));
        }
        Ok(Self(name))
    }

    /// The bare name, without quotes. Never put it into SQL text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ident {
    type Err = IdentError;

    fn from_str(name: &str) -> Result<Self, IdentError> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads one quoted identifier the way PostgreSQL's lexer does; gives the name and what follows it.
    fn lex(sql: &str) -> Option<(String, &str)> {
        let mut rest = sql.strip_prefix('"')?;
        let mut name = String::new();
        loop {
            let end = rest.find('"')?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    name.push('"');
                    rest = after;
                }
                None => return Some((name, rest)),
            }
        }
    }

    proptest! {
        #[test]
        fn a_quoted_name_reads_back_as_itself_with_nothing_left_over(name in "[^\0]{1,15}") {
            let quoted = Ident::new(name.as_str()).unwrap().to_string();
            prop_assert_eq!(lex(&quoted), Some((name, "")));
        }

        #[test]
        fn quotes_and_comments_stay_inside_the_name(name in r#"["'; \-/*x]{1,20}"#) {
            let quoted = Ident::new(name.as_str()).unwrap().to_string();
            prop_assert_eq!(lex(&quoted), Some((name, "")));
        }
    }

    #[test]
    fn a_name_that_postgres_would_cut_or_refuse_is_refused() {
        assert_eq!(Ident::new(""), Err(IdentError::Empty));
        assert_eq!(Ident::new("a\0b"), Err(IdentError::Nul));
        assert!(Ident::new("x".repeat(63)).is_ok());
        assert_eq!(Ident::new("x".repeat(64)), Err(IdentError::TooLong(64)));
        assert_eq!(Ident::new("é".repeat(32)), Err(IdentError::TooLong(64)));
    }
}
