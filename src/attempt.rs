//! Trying again until something is settled: the rhythm of it, and who is told.
//!
//! It stands between the [`Writer`], which makes one attempt and knows no monitoring, and the lanes,
//! which want to hear of the outcome only.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::batch::Batch;
use crate::breaker::Breaker;
use crate::config::Tolerance;
use crate::error::{ConnectorError, Disposition, WriteError};
use crate::monitoring::LaneMonitor;
use crate::source::{Partition, Tenure};
use crate::write::topic::LetterTopic;
use crate::write::{First, Receipt, Taken, Writer, Written};

/// The longest pause between two attempts.
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
        listener.begins();
        match writer.take(partition, first).await {
            Ok(taken) => {
                listener.recovered();
                return Ok(taken);
            }
            Err(error) => pause_or_give_up(error, listener, &mut pauses).await?,
        }
    }
}

/// What a batch has to pass before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// What a rejected record does.
    pub(crate) tolerance: Tolerance,
    /// Ends it all when too many are rejected.
    pub(crate) breaker: Arc<Breaker>,
    /// Where a copy of each dead letter goes first.
    pub(crate) letters: Option<LetterTopic>,
}

/// Writes a batch, however long the database needs for it. Partitions that were lost meanwhile are
/// taken out of it and added to `fenced`. What the target refuses becomes dead letters. `None` when nothing
/// of the batch is left to write.
///
/// # Errors
/// Only those that asking again does not mend; the batch's positions have not moved then.
pub(crate) async fn write_until_settled<W: Writer>(
    writer: &mut W,
    batch: &mut Batch,
    gate: &Gate,
    fenced: &mut Vec<(Partition, Tenure)>,
    listener: &LaneMonitor<'_>,
) -> Result<Option<Settled>, ConnectorError> {
    let (mut pauses, mut published) = (pauses(), 0);
    gate.breaker.judge(batch).map_err(ConnectorError::TooManyRejects)?;
    loop {
        if let Some(topic) = &gate.letters
            && let Err(error) = topic.publish(batch, &mut published).await
        {
            pause_or_give_up(error.into(), listener, &mut pauses).await?;
            continue;
        }
        let begun = Instant::now();
        listener.begins();
        match writer.write(batch).await {
            Ok(Written::Durable(receipt)) => {
                listener.recovered();
                gate.breaker.count(batch);
                return Ok(Some(Settled { receipt, took: begun.elapsed() }));
            }
            Ok(Written::Fenced(lost)) => {
                listener.recovered();
                let left = batch.drop_tenures(&lost);
                fenced.extend(lost);
                if !left {
                    return Ok(None);
                }
                // Those of the lost partitions are no longer counted, so the numbers have changed.
                published = 0;
            }
            Ok(Written::Refused(refusals)) => {
                tracing::debug!(records = refusals.len(), took = ?begun.elapsed(), "refused by the target");
                batch.refuse(refusals);
                if gate.tolerance == Tolerance::None
                    && let Some(rejected) = batch.rejected().min_by_key(|rejected| rejected.offset)
                {
                    let (partition, offset) = (rejected.partition.clone(), rejected.offset);
                    let reject = rejected.reject.clone();
                    return Err(ConnectorError::BadRecord { partition, offset, reject });
                }
                gate.breaker.judge(batch).map_err(ConnectorError::TooManyRejects)?;
            }
            Err(error) => {
                pause_or_give_up(error, listener, &mut pauses)
                    .await
                    .map_err(|error| refused(batch, error))?;
            }
        }
    }
}

fn refused(batch: &Batch, error: WriteError) -> ConnectorError {
    if error.disposition() != Disposition::Reject {
        return error.into();
    }
    let covers: Vec<String> = batch
        .spans()
        .map(|span| format!("{} offsets {} to {}", span.partition, span.from, span.to - 1))
        .collect();
    ConnectorError::RefusedBatch { covers: covers.join(", "), error }
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

/// Pauses between attempts: from 50 ms, doubled, each lengthened by a random part of itself so that many
/// connectors do not come back at once, and none longer than 10 s. They never end.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .with_jitter_seed(jitter_seed())
        .without_max_times()
        .build()
        .map(|pause| pause.min(LONGEST_PAUSE))
}

/// Without a seed of its own every process would pause alike. The simulator, which has to repeat a history, does.
fn jitter_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if cfg!(test) { 1 } else { u64::from(std::process::id()) ^ now.as_nanos() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_twentieth_of_a_second_to_ten_and_never_end() {
        let pauses: Vec<Duration> = pauses().take(100).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses.is_sorted_by(|earlier, later| *later * 2 >= *earlier), "{pauses:?}");
        assert!(pauses[20..].iter().all(|pause| *pause == LONGEST_PAUSE), "{pauses:?}");
    }
}
