//! Rows into Arrow's columns.

use std::sync::Arc;

use lancedb::arrow::{
    arrow_array::{
        ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, TimestampNanosecondArray,
    },
    arrow_schema::{ArrowError, DataType, SchemaRef},
};

use crate::row::VectorRow;

/// One batch with the columns of the table's own schema, in its order. The rows have been judged, the schema checked.
pub(crate) fn encode(schema: &SchemaRef, rows: &[&VectorRow<'_>]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        Ok(match (field.name().as_str(), field.data_type()) {
            ("id", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.id))) as ArrayRef,
            ("embedding", DataType::FixedSizeList(item, length)) => {
                let mut numbers = Vec::with_capacity(rows.iter().map(|row| row.embedding.len()).sum());
                rows.iter().for_each(|row| numbers.extend_from_slice(row.embedding));
                let numbers = Arc::new(Float32Array::from(numbers));
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *length, numbers, None)?)
            }
            ("timestamp", _) => Arc::new(
                rows.iter()
                    .map(|row| row.timestamp.map(|micros| micros * 1_000))
                    .collect::<TimestampNanosecondArray>(),
            ),
            ("text", _) => Arc::new(rows.iter().map(|row| row.text).collect::<StringArray>()),
            ("source", _) => Arc::new(rows.iter().map(|row| row.source).collect::<StringArray>()),
            ("metadata", _) => Arc::new(rows.iter().map(|row| row.metadata).collect::<StringArray>()),
            (name, kind) => {
                return Err(ArrowError::SchemaError(format!("a column {name} of {kind} was checked away")));
            }
        })
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}
