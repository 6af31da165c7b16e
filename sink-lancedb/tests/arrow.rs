//! Rows as somebody else would write them, in Arrow's form.

use std::sync::Arc;

use lancedb::arrow::{
    arrow_array::{
        ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, TimestampNanosecondArray,
    },
    arrow_schema::{DataType, SchemaRef},
};

use crate::support::Owned;

/// One batch of them.
pub(crate) fn batch(schema: &SchemaRef, rows: &[Owned]) -> RecordBatch {
    let text =
        |of: fn(&Owned) -> Option<&str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let numbers = rows.iter().flat_map(|row| row.0.embedding.clone()).collect::<Vec<f32>>();
    let DataType::FixedSizeList(item, length) = schema.field(2).data_type().clone() else {
        panic!("no list")
    };
    let vectors = FixedSizeListArray::new(item, length, Arc::new(Float32Array::from(numbers)), None);
    let times = rows.iter().map(|row| row.0.timestamp.map(|micros| micros * 1_000));
    let columns: Vec<ArrayRef> = vec![
        text(|row| Some(&row.0.id)),
        text(|row| row.0.text.as_deref()),
        Arc::new(vectors),
        Arc::new(times.collect::<TimestampNanosecondArray>()),
        text(|row| row.0.source.as_deref()),
        text(|row| row.0.metadata.as_deref()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("the columns fit")
}
