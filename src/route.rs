//! From an [`Embedding`] to the table it goes to. Third stop on a record's way; pure.
//!
//! Invariant: a record reaches only a table that is configured, and only with a vector and texts
//! that fit that table's columns. A record's `table_name` is looked up, never used as a name.

use std::collections::HashMap;

use crate::decode::Embedding;
use crate::reject::{Reject, RejectReason};

/// A B-tree entry takes at most 2,704 bytes on pages of 8 KiB, header and padding included
/// (`BTMaxItemSize`, <https://www.postgresql.org/docs/current/btree.html>). A column without a
/// length of its own is held to that.
const MAX_KEY_BYTES: usize = 2_600;

/// Index of a table in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId(pub usize);

/// What a table takes, as its columns were found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// The name that records give.
    pub name: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Characters that fit into `id`; `None` is no limit.
    pub max_id_chars: Option<usize>,
    /// Characters that fit into `source`; `None` is no limit.
    pub max_source_chars: Option<usize>,
    /// Whether a row that is newer than a record, by their timestamps, stays as it is.
    pub skip_stale: bool,
}

/// Finds each record's table.
#[derive(Clone, Debug)]
pub struct Router {
    tables: Vec<TableLimits>,
    by_name: HashMap<String, TableId>,
}

impl Router {
    /// A router over `tables`; the first takes the records that name none.
    ///
    /// # Panics
    /// When there is no table, which the configuration refuses.
    pub fn new(tables: Vec<TableLimits>) -> Self {
        assert!(!tables.is_empty(), "the configuration holds at least one table");
        let by_name =
            tables.iter().enumerate().map(|(index, table)| (table.name.clone(), TableId(index))).collect();
        Self { tables, by_name }
    }

    /// The tables, in the order of the configuration.
    pub fn tables(&self) -> &[TableLimits] {
        &self.tables
    }

    /// The table that this record names, or the first.
    ///
    /// # Errors
    /// A [`Reject`] when the table is unknown.
    pub fn table_of(&self, embedding: &Embedding<'_>) -> Result<TableId, Reject> {
        match &embedding.table_name {
            None => Ok(TableId(0)),
            Some(name) => self.by_name.get(name.as_ref()).copied().ok_or_else(|| {
                Reject::new(
                    RejectReason::UnknownTable,
                    "`table_name` names a table that is not under `tables` in the configuration",
                )
            }),
        }
    }

    /// The table for this record, which has `dimensions` numbers in its vector.
    ///
    /// # Errors
    /// A [`Reject`] when the table is unknown, or the record does not fit it.
    pub fn route(&self, embedding: &Embedding<'_>, dimensions: usize) -> Result<TableId, Reject> {
        let id = self.table_of(embedding)?;
        let table = &self.tables[id.0];
        if dimensions != table.dimensions {
            return Err(Reject::new(
                RejectReason::WrongDimension,
                format!(
                    "`embedding` has {dimensions} numbers; table {} takes {}",
                    table.name, table.dimensions
                ),
            ));
        }
        if embedding.id.len() > MAX_KEY_BYTES {
            return Err(Reject::new(
                RejectReason::IdTooLong,
                format!("the id has {} bytes; a key has {MAX_KEY_BYTES} at most", embedding.id.len()),
            ));
        }
        if let Some(chars) = longer_than(&embedding.id, table.max_id_chars) {
            let limit = table.max_id_chars.unwrap_or_default();
            return Err(Reject::new(
                RejectReason::IdTooLong,
                format!("the id has {chars} characters; table {} takes {limit}", table.name),
            ));
        }
        if let Some(chars) = embedding.source.as_deref().and_then(|s| longer_than(s, table.max_source_chars))
        {
            let limit = table.max_source_chars.unwrap_or_default();
            return Err(Reject::new(
                RejectReason::FieldTooLong,
                format!("`source` has {chars} characters; table {} takes {limit}", table.name),
            ));
        }
        Ok(id)
    }
}

/// The number of characters, where it is over the limit. Bytes are counted first: they are cheap,
/// and never fewer than characters.
fn longer_than(text: &str, limit: Option<usize>) -> Option<usize> {
    let limit = limit.filter(|limit| text.len() > *limit)?;
    Some(text.chars().count()).filter(|chars| *chars > limit)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn router() -> Router {
        let table = |name: &str, dimensions| TableLimits {
            name: name.to_owned(),
            dimensions,
            max_id_chars: Some(5),
            max_source_chars: Some(3),
            skip_stale: false,
        };
        Router::new(vec![table("first", 3), table("second", 2)])
    }

    fn embedding(id: &str, table_name: Option<&'static str>) -> Embedding<'static> {
        Embedding {
            id: Cow::Owned(id.to_owned()),
            text: None,
            timestamp: None,
            source: None,
            metadata: None,
            table_name: table_name.map(Cow::Borrowed),
        }
    }

    fn reason(verdict: Result<TableId, Reject>) -> RejectReason {
        verdict.expect_err("a reject").reason
    }

    #[test]
    fn a_record_that_names_no_table_goes_to_the_first() {
        assert_eq!(router().route(&embedding("a", None), 3), Ok(TableId(0)));
        assert_eq!(router().route(&embedding("a", Some("second")), 2), Ok(TableId(1)));
    }

    #[test]
    fn a_table_that_is_not_configured_is_refused_whatever_it_is_called() {
        for name in ["third", "", "FIRST", "first\"; drop table first; --"] {
            let verdict = router().route(&embedding("a", Some(name)), 3);
            assert_eq!(reason(verdict), RejectReason::UnknownTable);
        }
    }

    #[test]
    fn lengths_are_counted_in_characters_as_varchar_does() {
        assert_eq!(router().route(&embedding("äöüßé", None), 3), Ok(TableId(0)));
        assert_eq!(reason(router().route(&embedding("äöüßéé", None), 3)), RejectReason::IdTooLong);
        let mut record = embedding("a", None);
        record.source = Some(Cow::Borrowed("four"));
        assert_eq!(reason(router().route(&record, 3)), RejectReason::FieldTooLong);
    }

    #[test]
    fn a_key_that_no_index_can_hold_is_refused_even_where_the_column_has_no_limit() {
        let table = TableLimits {
            name: "t".to_owned(),
            dimensions: 1,
            max_id_chars: None,
            max_source_chars: None,
            skip_stale: false,
        };
        let router = Router::new(vec![table]);
        assert_eq!(router.route(&embedding(&"a".repeat(2_600), None), 1), Ok(TableId(0)));
        let verdict = router.route(&embedding(&"a".repeat(2_601), None), 1);
        assert_eq!(reason(verdict), RejectReason::IdTooLong);
    }

    #[test]
    fn a_vector_of_another_dimension_is_refused() {
        assert_eq!(reason(router().route(&embedding("a", None), 2)), RejectReason::WrongDimension);
        assert_eq!(reason(router().route(&embedding("a", None), 0)), RejectReason::WrongDimension);
    }
}
