//! What a table must be like, and in which words a table is told that it is not.

use std::{fmt, sync::Arc};

use lancedb::arrow::arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::Error;

/// Lance's own mark of the key: a concurrent insert of the same key by a program that does not know the lock is then a
/// conflict, not a second row.
const PRIMARY_KEY: &str = "lance-schema:unenforced-primary-key:position";

/// One thing that is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// A sentence.
    pub problem: String,
    /// What mends it.
    pub fix: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Fix: {}", self.problem, self.fix)
    }
}

/// The schema of a table of embeddings.
pub(crate) fn vectors(dimensions: u16) -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    Arc::new(Schema::new(vec![
        key("id"),
        Field::new("text", DataType::Utf8, true),
        Field::new("embedding", DataType::FixedSizeList(item, i32::from(dimensions)), true),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("source", DataType::Utf8, true),
        Field::new("metadata", DataType::Utf8, true),
    ]))
}

/// The column of a table that is its key.
pub(crate) fn key(name: &str) -> Field {
    let mark = [(PRIMARY_KEY.to_owned(), "1".to_owned())];
    Field::new(name, DataType::Utf8, false).with_metadata(mark.into())
}

/// Compares by name and type, and that a column that may be left empty takes nulls. The order of columns does not matter.
pub(crate) fn check(table: &str, expected: &Schema, found: &Schema) -> Result<(), Error> {
    let mut mismatches = Vec::new();
    for column in expected.fields() {
        let (name, wanted) = (column.name(), type_name(column.data_type()));
        let anew = format!(
            "Write it anew with a column {name} of {wanted}, or name another table; moving the folder {table}.lance \
             away lets the table be made anew, without the rows written so far."
        );
        match found.field_with_name(name) {
            Err(_) => mismatches.push(Mismatch {
                problem: format!("It has no column {name} ({wanted})."),
                fix: anew,
            }),
            Ok(there) if !same(column.data_type(), there.data_type()) => mismatches.push(Mismatch {
                problem: format!("Its column {name} is {}, not {wanted}.", type_name(there.data_type())),
                fix: match (there.data_type(), column.data_type()) {
                    (DataType::FixedSizeList(_, there), DataType::FixedSizeList(_, wanted)) if there != wanted => {
                        format!(
                            "If its {there} dimensions are right, configure them instead of {wanted}. Else name \
                             another table."
                        )
                    }
                    _ => anew,
                },
            }),
            Ok(there) if column.is_nullable() && name != "embedding" && !there.is_nullable() => {
                mismatches.push(Mismatch {
                    problem: format!("Its column {name} takes no nulls, and a record may come without it."),
                    fix: anew,
                });
            }
            Ok(_) => {}
        }
    }
    for column in found.fields() {
        let name = column.name();
        if expected.field_with_name(name).is_err() {
            mismatches.push(Mismatch {
                problem: format!("It has a column {name} that nothing fills."),
                fix: format!("Drop it (in Python: table.drop_columns([\"{name}\"])), or name another table."),
            });
        }
    }
    if mismatches.is_empty() {
        Ok(())
    } else {
        Err(Error::Mismatches { table: table.to_owned(), mismatches })
    }
}

/// Whether two types hold the same, whatever the item of a list is called.
fn same(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::FixedSizeList(one, length), DataType::FixedSizeList(other, other_length)) => {
            length == other_length && one.data_type() == other.data_type()
        }
        _ => one == other,
    }
}

/// A type as a user of Python knows it.
fn type_name(of: &DataType) -> String {
    match of {
        DataType::Utf8 => "string".to_owned(),
        DataType::LargeUtf8 => "large_string".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::Float32 => "float32".to_owned(),
        DataType::Float64 => "float64".to_owned(),
        DataType::Float16 => "float16".to_owned(),
        // What is only read may have any.
        DataType::FixedSizeList(item, 0) => format!("fixed_size_list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(item, length) => {
            format!("fixed_size_list<{}>[{length}]", type_name(item.data_type()))
        }
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => "s",
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "us",
                TimeUnit::Nanosecond => "ns",
            };
            zone.as_ref().map_or(format!("timestamp[{unit}]"), |zone| format!("timestamp[{unit}, tz={zone}]"))
        }
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_differing_column_is_named_with_what_is_expected() {
        let item = Arc::new(Field::new("l", DataType::Float32, true));
        let found = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("text", DataType::Utf8, false),
            Field::new("embedding", DataType::FixedSizeList(item, 8), false),
            Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("metadata", DataType::Utf8, true),
            Field::new("extra", DataType::Utf8, true),
        ]);
        let error = check("docs", &vectors(4), &found).expect_err("it differs");
        let text = error.to_string();
        for part in [
            "column id is int64, not string",
            "column embedding is fixed_size_list<float32>[8], not fixed_size_list<float32>[4]",
            "column timestamp is timestamp[us, tz=UTC], not timestamp[ns]",
            "column text takes no nulls",
            "no column source (string)",
            "a column extra that nothing fills",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(text.lines().count(), 7, "{text}");
        check("docs", &vectors(4), &vectors(4)).expect("a schema is like itself");
    }
}
