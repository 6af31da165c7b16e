//! Decodes and routes a record, and puts it into a batch. Between the source and the batch, for whoever
//! fills one: the lanes, and the replay of dead letters.

use std::sync::Arc;

use crate::batch::{Batch, Place};
use crate::decode::{self, Change};
use crate::reject::{Reject, RejectReason};
use crate::route::{Router, TableId};
use crate::source::SourceRecord;

/// The way of one record into a batch.
#[derive(Debug)]
pub(crate) struct Intake {
    router: Arc<Router>,
    max_bytes: usize,
    /// Room for the vector of one record.
    vector: Vec<f32>,
}

impl Intake {
    /// For the tables of `router`. A payload of more than `max_bytes` is not looked at.
    pub(crate) fn new(router: Arc<Router>, max_bytes: usize) -> Self {
        Self { router, max_bytes, vector: Vec::new() }
    }

    /// What finds the table of each record.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// An empty batch for the same tables.
    pub(crate) fn batch(&self, id: u64) -> Batch {
        Batch::new(id, &self.router)
    }

    /// Adds the row or the deletion that `record` asks for.
    ///
    /// # Errors
    /// For a record that cannot be used: the verdict, and the table it was for if that is known. The batch does
    /// not cover it then.
    pub(crate) fn add(
        &mut self,
        batch: &mut Batch,
        place: &Place<'_>,
        record: &SourceRecord<'_>,
    ) -> Result<(), (Option<TableId>, Reject)> {
        let (bytes, limit) = (record.payload.map_or(0, <[u8]>::len) + record.omitted, self.max_bytes);
        if bytes > limit {
            let message = format!("the payload has {bytes} bytes; batch.max-bytes is {limit}");
            return Err((None, Reject::new(RejectReason::TooLarge, message)));
        }
        match decode::decode(record, &mut self.vector).map_err(|reject| (None, reject))? {
            Change::Upsert(embedding) => {
                let table = self
                    .router
                    .route(&embedding, self.vector.len())
                    .map_err(|reject| (self.router.table_of(&embedding).ok(), reject))?;
                batch.upsert(place, record, table, &embedding, &self.vector);
            }
            Change::Delete { id } => batch.delete(place, record, &id),
        }
        Ok(())
    }
}
