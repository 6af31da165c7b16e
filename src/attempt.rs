//! Trying again until something is settled: the rhythm of it, and who is told.
//!
//! It stands between the [`Writer`], which makes one attempt and knows no monitoring, and the lanes,
//! which want to hear of the outcome only.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::batch::Batch;
use crate::error::{Disposition, WriteError};
use crate::monitoring::LaneMonitor;
use crate::source::{Partition, Tenure};
use crate::write::{First, Receipt, Taken, Writer, Written};

/// The longest pause between two attempts, but for its random part.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A batch that became durable.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The proof.
    pub(crate) receipt: Receipt,
    /// How long the attempt took that brought it.
    pub(crate) took: Duration,
}

/// Takes a partition over, however long the database needs for it.
///
/// # Errors
/// Only those that asking again does not mend.
pub(crate) async fn take_until_settled<W: Writer>(
    writer: &mut W,
    partition: &Partition,
    first: First,
    listener: &LaneMonitor<'_>,
) -> Result<Taken, WriteError> {
    let mut pauses = pauses();
    loop {
        match writer.take(partition, first).await {
            Ok(taken) => {
                listener.recovered();
                return Ok(taken);
            }
            Err(error) => pause_or_give_up(error, listener, &mut pauses).await?,
        }
    }
}

/// Writes a batch, however long the database needs for it. Partitions that were lost meanwhile are
/// taken out of it and added to `fenced`. `None` when nothing of the batch is left to write.
///
/// # Errors
/// Only those that asking again does not mend; the batch's positions have not moved then.
pub(crate) async fn write_until_settled<W: Writer>(
    writer: &mut W,
    batch: &mut Batch,
    fenced: &mut Vec<(Partition, Tenure)>,
    listener: &LaneMonitor<'_>,
) -> Result<Option<Settled>, WriteError> {
    let mut pauses = pauses();
    loop {
        let begun = Instant::now();
        match writer.write(batch).await {
            Ok(Written::Durable(receipt)) => {
                listener.recovered();
                return Ok(Some(Settled { receipt, took: begun.elapsed() }));
            }
            Ok(Written::Fenced(lost)) => {
                listener.recovered();
                let left = batch.drop_tenures(&lost);
                fenced.extend(lost);
                if !left {
                    return Ok(None);
                }
            }
            Err(error) => pause_or_give_up(error, listener, &mut pauses).await?,
        }
    }
}

async fn pause_or_give_up(
    error: WriteError,
    listener: &LaneMonitor<'_>,
    pauses: &mut impl Iterator<Item = Duration>,
) -> Result<(), WriteError> {
    match error.disposition() {
        Disposition::Retry => {
            listener.failed(&error);
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            Ok(())
        }
        Disposition::Reject | Disposition::Stop => Err(error),
    }
}

/// Pauses between attempts: from 50 ms, doubled up to 10 s, each lengthened by a random part of
/// itself so that many connectors do not come back at once. They never end.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
