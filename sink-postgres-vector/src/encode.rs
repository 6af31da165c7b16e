//! Rows as the six array parameters of the upsert, in PostgreSQL's binary form.
//!
//! Each parameter writes one field of every row straight into the message; nothing is allocated per row. Elements
//! take their type from the array type of the prepared statement, because vector's differs in every database.
//! `Debug` tells the number of rows only: the driver logs parameters with it.

use std::{error::Error, fmt};

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::row::{Deletion, VectorRow};

/// 2000-01-01, where PostgreSQL counts from, in microseconds since 1970-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// One field of all rows.
pub(crate) struct Column<'a> {
    rows: &'a [VectorRow<'a>],
    field: Field,
}

#[derive(Clone, Copy)]
pub(crate) enum Field {
    Id,
    Text,
    Embedding,
    Timestamp,
    Source,
    Metadata,
}

impl<'a> Column<'a> {
    pub(crate) fn new(rows: &'a [VectorRow<'a>], field: Field) -> Self {
        Self { rows, field }
    }
}

impl fmt::Debug for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} values]", self.rows.len())
    }
}

impl ToSql for Column<'_> {
    fn to_sql(&self, array: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let rows = self.rows;
        header(array, rows.len(), out)?;
        match self.field {
            Field::Id => rows.iter().try_for_each(|row| text(Some(row.id), out)),
            Field::Text => rows.iter().try_for_each(|row| text(row.text, out)),
            Field::Source => rows.iter().try_for_each(|row| text(row.source, out)),
            Field::Metadata => rows.iter().try_for_each(|row| jsonb(row.metadata, out)),
            Field::Timestamp => {
                rows.iter().for_each(|row| timestamp(row.timestamp, out));
                Ok(())
            }
            Field::Embedding => {
                out.reserve(rows.iter().map(|row| 8 + 4 * row.embedding.len()).sum());
                rows.iter().try_for_each(|row| vector(row.embedding, out))
            }
        }?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

/// What comes before the rows of a COPY: its signature, no flags, no extension.
pub(crate) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What comes behind them.
pub(crate) const COPY_TRAILER: &[u8] = b"\xff\xff";

/// One row of a COPY: the number of its fields, and each as in an array.
pub(crate) fn copy_row(row: &VectorRow<'_>, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_i16(6);
    text(Some(row.id), out)?;
    text(row.text, out)?;
    vector(row.embedding, out)?;
    timestamp(row.timestamp, out);
    text(row.source, out)?;
    jsonb(row.metadata, out)
}

/// One vector.
pub(crate) struct Vector<'a>(pub(crate) &'a [f32]);

impl fmt::Debug for Vector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} numbers]", self.0.len())
    }
}

impl ToSql for Vector<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // Its length is the driver's to write.
        let mut with_length = BytesMut::new();
        vector(self.0, &mut with_length)?;
        out.extend_from_slice(&with_length[4..]);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}

/// Keys to delete.
pub(crate) struct Keys<'a>(pub(crate) &'a [Deletion<'a>]);

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} values]", self.0.len())
    }
}

impl ToSql for Keys<'_> {
    fn to_sql(&self, array: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        header(array, self.0.len(), out)?;
        self.0.iter().try_for_each(|key| text(Some(key.id), out))?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    to_sql_checked!();
}

/// When each key was to be deleted.
pub(crate) struct Times<'a>(pub(crate) &'a [Deletion<'a>]);

impl fmt::Debug for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} values]", self.0.len())
    }
}

impl ToSql for Times<'_> {
    fn to_sql(&self, array: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        header(array, self.0.len(), out)?;
        self.0.iter().for_each(|key| timestamp(key.timestamp, out));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ_ARRAY
    }

    to_sql_checked!();
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the parameter is not an array")]
    NotAnArray,
    #[error("a value or the batch is too large")]
    TooLarge,
}

/// The number of dimensions, whether there are nulls (never read by the server), the type of the elements, their
/// number, and the index of the first. No elements are no dimension.
fn header(array: &Type, len: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    let Kind::Array(element) = array.kind() else {
        return Err(EncodeError::NotAnArray);
    };
    out.put_i32(i32::from(len > 0));
    out.put_i32(1);
    out.put_u32(element.oid());
    if len > 0 {
        out.put_i32(size(len)?);
        out.put_i32(1);
    }
    Ok(())
}

fn size(len: usize) -> Result<i32, EncodeError> {
    i32::try_from(len).map_err(|_| EncodeError::TooLarge)
}

fn null(out: &mut BytesMut) {
    out.put_i32(-1);
}

fn text(value: Option<&str>, out: &mut BytesMut) -> Result<(), EncodeError> {
    match value {
        None => null(out),
        Some(value) => {
            out.put_i32(size(value.len())?);
            out.put_slice(value.as_bytes());
        }
    }
    Ok(())
}

fn jsonb(value: Option<&str>, out: &mut BytesMut) -> Result<(), EncodeError> {
    match value {
        None => null(out),
        Some(value) => {
            out.put_i32(size(value.len() + 1)?);
            // The version of the binary form; the rest is text.
            out.put_u8(1);
            out.put_slice(value.as_bytes());
        }
    }
    Ok(())
}

fn timestamp(value: Option<i64>, out: &mut BytesMut) {
    match value {
        None => null(out),
        Some(value) => {
            out.put_i32(8);
            out.put_i64(postgres_micros(value));
        }
    }
}

/// Microseconds since the Unix epoch as PostgreSQL counts them. The smallest number means -infinity; what would reach it is out of
/// range, and must be refused as that.
pub(crate) fn postgres_micros(value: i64) -> i64 {
    value.saturating_sub(POSTGRES_EPOCH).max(i64::MIN + 1)
}

fn vector(value: &[f32], out: &mut BytesMut) -> Result<(), EncodeError> {
    let dimensions = i16::try_from(value.len()).map_err(|_| EncodeError::TooLarge)?;
    out.put_i32(size(4 + 4 * value.len())?);
    out.put_i16(dimensions);
    out.put_i16(0);
    let start = out.len();
    out.resize(start + 4 * value.len(), 0);
    for (bytes, number) in out[start..].chunks_exact_mut(4).zip(value) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: VectorRow<'static> = VectorRow {
        id: "a",
        text: None,
        embedding: &[1.0, -0.0],
        timestamp: Some(POSTGRES_EPOCH + 1),
        source: Some("é"),
        metadata: Some("{}"),
    };

    fn encoded(field: Field, ty: &Type) -> Vec<u8> {
        let mut out = BytesMut::new();
        assert!(matches!(Column::new(&[ROW], field).to_sql(ty, &mut out), Ok(IsNull::No)));
        out.to_vec()
    }

    fn array(oid: u8, element: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 1];
        let oid = if oid == 0 {
            3802_u32
        } else if oid == 1 {
            1184
        } else {
            u32::from(oid)
        };
        bytes.extend(oid.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        bytes.extend(element);
        bytes
    }

    #[test]
    fn every_field_has_postgres_binary_form() {
        let vector = Type::new("_vector".into(), 7, Kind::Array(Type::INT2), "public".into());
        assert_eq!(encoded(Field::Id, &Type::TEXT_ARRAY), array(25, b"\0\0\0\x01a"));
        assert_eq!(encoded(Field::Text, &Type::TEXT_ARRAY), array(25, b"\xff\xff\xff\xff"));
        assert_eq!(encoded(Field::Source, &Type::TEXT_ARRAY), array(25, b"\0\0\0\x02\xc3\xa9"));
        assert_eq!(encoded(Field::Metadata, &Type::JSONB_ARRAY), array(0, b"\0\0\0\x03\x01{}"));
        assert_eq!(
            encoded(Field::Timestamp, &Type::TIMESTAMPTZ_ARRAY),
            array(1, b"\0\0\0\x08\0\0\0\0\0\0\0\x01")
        );
        assert_eq!(
            encoded(Field::Embedding, &vector),
            array(21, b"\0\0\0\x0c\0\x02\0\0\x3f\x80\0\0\x80\0\0\0")
        );
    }

    #[test]
    fn no_timestamp_becomes_an_infinity() {
        for value in [i64::MIN, i64::MIN + POSTGRES_EPOCH, i64::MAX] {
            let mut out = BytesMut::new();
            timestamp(Some(value), &mut out);
            let sent = i64::from_be_bytes(out[4..].try_into().unwrap());
            assert!(sent != i64::MIN && sent != i64::MAX);
        }
    }

    #[test]
    fn debug_output_holds_no_values() {
        assert_eq!(format!("{:?}", Column::new(&[ROW], Field::Id)), "[1 values]");
        let keys = [Deletion { id: "canary", timestamp: Some(7) }];
        assert_eq!(format!("{:?} {:?}", Keys(&keys), Times(&keys)), "[1 values] [1 values]");
        assert!(!format!("{keys:?}").contains("canary"));
    }
}
