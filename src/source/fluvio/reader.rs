//! Reads one partition under one tenure, whatever happens to the cluster meanwhile.
//!
//! Invariant: what it hands on begins at the offset it was told and has no gap and no repeat. It goes on
//! where it was over any number of streams; before each it makes sure that the log still holds the next
//! record, and that the one before is the one it has read.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use fluvio::dataplane::record::{Batch, Record};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Cluster, Desk, LONGEST_PAUSE, number_of, pauses};
use crate::framework::consumer::Fault;
use crate::framework::smartmodule::Chain;
use crate::source::{
    Fetched, FetchedBuilder, Headers, Partition, Retained, SourceError, SourceEvent, SourceRecord, Tenure,
};

/// How often the partition's end is asked for, and with it whether its leader still answers.
const CHECK: Duration = Duration::from_secs(5);
/// A stream that brings nothing for this long, though there is something, is opened anew.
const PATIENCE: Duration = Duration::from_secs(10);
/// A chain of transforms lets other tasks have their turn after this many records.
const YIELD: usize = 64;
/// How long the end of a log may be before what was read of it, until that is believed: a leader that
/// has just started knows its end before it knows how much of it is committed.
const SETTLE: Duration = Duration::from_secs(30);
/// A batch that did not fit into an answer is asked for with a larger one, up to this size.
const MOST_BYTES: u32 = 64 << 20;
/// A run of records is handed on at this size, though more of the partition may be at hand.
const RUN_BYTES: usize = 512 * 1024;
/// The same in records.
const RUN_RECORDS: usize = 1024;
/// How long reading waits for room before it is said to be paused.
const PAUSED: Duration = Duration::from_secs(1);

/// Why a stream was left.
enum Left {
    /// It can be opened again.
    Again(String),
    /// An answer was too small for the batch that comes next.
    TooSmall,
    /// The batch that needed a larger answer was read.
    Fitted,
    /// The connector has to stop.
    Stop(SourceError),
}

pub(super) struct Reader<C> {
    desk: Arc<Desk<C>>,
    partition: Partition,
    tenure: Tenure,
    /// The offset of the next record to hand on.
    next: i64,
    /// The timestamp of the record before, once one was read.
    last: Option<i64>,
    max_bytes: u32,
    /// The transforms, once they were started.
    chain: Option<Chain>,
    /// Since when the log has been shorter than what was read of it.
    short_since: Option<Instant>,
}

impl<C: Cluster> Reader<C> {
    pub(super) fn new(desk: Arc<Desk<C>>, partition: Partition, tenure: Tenure, next: i64) -> Self {
        let max_bytes = desk.max_bytes;
        Self { desk, partition, tenure, next, last: None, max_bytes, chain: None, short_since: None }
    }

    /// Reads until it is dropped, or has to stop the connector.
    pub(super) async fn run(mut self) {
        let mut rests = pauses();
        loop {
            let before = self.next;
            let left = self.read().await;
            if self.next != before {
                rests = pauses();
            }
            match left {
                Left::Stop(error) => return self.desk.say(Err(error)),
                Left::TooSmall if self.max_bytes < MOST_BYTES => {
                    self.max_bytes = self.max_bytes.saturating_mul(4).min(MOST_BYTES);
                }
                Left::Fitted => {}
                Left::TooSmall if self.next == before => return self.desk.say(Err(self.too_large())),
                Left::TooSmall => {}
                Left::Again(what) => {
                    if self.desk.note(Some(number_of(&self.partition)), Some(what.clone())) {
                        let offset = self.next;
                        tracing::warn!(partition = %self.partition, offset, what, "reading was cut off; it goes on there");
                    }
                    tokio::time::sleep(rests.next().unwrap_or(LONGEST_PAUSE)).await;
                }
            }
        }
    }

    /// Opens a stream and reads it as long as it goes. All that was read is handed on, however it ends.
    async fn read(&mut self) -> Left {
        let mut run = self.new_run();
        let left = match self.stream(&mut run).await {
            Ok(never) => match never {},
            Err(left) => left,
        };
        self.hand_on(&mut run).await;
        left
    }

    async fn stream(&mut self, run: &mut FetchedBuilder) -> Result<Infallible, Left> {
        let cluster = self.desk.cluster.clone();
        let number = number_of(&self.partition);
        let retained = cluster.retained(number).await.map_err(left)?;
        self.check(retained)?;
        if self.chain.is_none() {
            self.chain = cluster.chain().await.map_err(left)?;
        }
        // The last record read is read once more: it bears witness that this is still the same log.
        let mut witness = self.last.filter(|_| retained.earliest < self.next);
        let from = if witness.is_some() { self.next - 1 } else { self.next };
        let mut batches = cluster.read(number, from, self.max_bytes).await.map_err(left)?;
        let mut check = tokio::time::interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due_since = None;
        let mut is_well = false;
        let mut at_hand = None;
        loop {
            let item = match at_hand.take() {
                Some(item) => item,
                None => tokio::select! {
                    biased;
                    item = batches.next() => item,
                    _ = check.tick() => {
                        let retained = cluster.retained(number).await.map_err(left)?;
                        self.tell_end(retained);
                        self.tell_well(&mut is_well);
                        if retained.end <= self.next {
                            due_since = None;
                        } else if due_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                            return Err(Left::Again("nothing came".to_owned()));
                        }
                        continue;
                    }
                },
            };
            let batch = match item {
                Some(Ok(batch)) => batch,
                Some(Err(code)) => return Err(left(Fault::of(&code))),
                None => return Err(Left::Again("the stream ended".to_owned())),
            };
            self.tell_well(&mut is_well);
            let before = self.next;
            self.take(&batch, &mut witness, run).await?;
            due_since = None;
            if self.max_bytes > self.desk.max_bytes && self.next > before {
                // The batch that needed more is read.
                self.max_bytes = self.desk.max_bytes;
                return Err(Left::Fitted);
            }
            // Small batches that are there already join the run; nothing waits for those to come.
            at_hand = batches.next().now_or_never();
            if at_hand.is_none() {
                self.hand_on(run).await;
            }
        }
    }

    /// Puts the records of a batch that were not read before into the run, as the transforms leave them.
    async fn take(
        &mut self,
        batch: &Batch,
        witness: &mut Option<i64>,
        run: &mut FetchedBuilder,
    ) -> Result<(), Left> {
        let records = batch.records();
        let (base, last) = (batch.get_base_offset(), batch.get_last_offset());
        if base > self.next {
            // Whether the records between were deleted is seen before the next stream.
            return Err(Left::Again(format!("the stream went on at offset {base}")));
        }
        for (index, record) in records.iter().enumerate() {
            let offset = base + index as i64;
            let timestamp = timestamp(batch, record);
            if offset == self.next - 1 && witness.take().is_some_and(|expected| timestamp != Some(expected)) {
                let partition = self.partition.clone();
                return Err(Left::Stop(SourceError::Recreated { partition, offset }));
            }
            if offset < self.next {
                continue;
            }
            match self.transformed(batch, record)? {
                Some(record) => {
                    run.push(SourceRecord {
                        offset,
                        timestamp,
                        key: key(&record),
                        payload: payload(&record),
                        headers: Headers::default(),
                        omitted: 0,
                    });
                }
                None => run.pass(offset, timestamp),
            }
            (self.next, self.last) = (offset + 1, timestamp);
            if run.bytes() >= RUN_BYTES || run.len() >= RUN_RECORDS {
                self.hand_on(run).await;
            }
            if self.chain.is_some() && index % YIELD == 0 {
                tokio::task::yield_now().await;
            }
        }
        if self.next <= last {
            return Err(Left::Stop(SourceError::refused(
                format!(
                    "{}: the batch at offset {base} lacks records from offset {} to {last}",
                    self.partition, self.next
                ),
                "Look at the SPU's storage, and at what produced the batch",
            )));
        }
        Ok(())
    }

    /// What the transforms leave of a record, if anything.
    fn transformed<'a>(
        &mut self,
        batch: &Batch,
        record: &'a Record,
    ) -> Result<Option<Cow<'a, Record>>, Left> {
        let Some(chain) = &mut self.chain else {
            return Ok(Some(Cow::Borrowed(record)));
        };
        let applied = chain.apply(record, batch.get_base_offset(), batch.get_base_timestamp());
        applied.map(|record| record.map(Cow::Owned)).map_err(left)
    }

    /// Gives the run to the lanes once there is room for it. Another takes its place.
    async fn hand_on(&self, run: &mut FetchedBuilder) {
        if run.is_empty() {
            return;
        }
        let run = std::mem::replace(run, self.new_run()).finish();
        if let Some(run) = self.charged(run).await {
            self.desk.say(Ok(SourceEvent::Fetched(run)));
        }
    }

    async fn charged(&self, run: Fetched) -> Option<Fetched> {
        let memory = run.memory();
        let permit = match tokio::time::timeout(PAUSED, self.desk.budget.charge(memory)).await {
            Ok(permit) => permit,
            Err(_) => {
                let _held = self.desk.hold();
                self.desk.budget.charge(memory).await
            }
        };
        permit.ok().map(|permit| run.charged(permit))
    }

    fn new_run(&self) -> FetchedBuilder {
        FetchedBuilder::new(self.partition.clone(), self.tenure)
    }

    /// Whether the log can still be read on from the next record.
    fn check(&mut self, retained: Retained) -> Result<(), Left> {
        self.tell_end(retained);
        if retained.covers(self.next) {
            self.short_since = None;
            return Ok(());
        }
        let short = self.next > retained.end;
        if short && self.short_since.get_or_insert_with(Instant::now).elapsed() < SETTLE {
            return Err(Left::Again(format!("the log ends at offset {} for now", retained.end)));
        }
        Err(Left::Stop(SourceError::out_of_range(self.partition.clone(), self.next, retained)))
    }

    /// The stream goes: what was told of a fault is over. Once a stream is enough.
    fn tell_well(&self, is_well: &mut bool) {
        if !std::mem::replace(is_well, true) && self.desk.note(Some(number_of(&self.partition)), None) {
            tracing::info!(partition = %self.partition, offset = self.next, "the partition is read again");
        }
    }

    fn tell_end(&self, retained: Retained) {
        self.desk.say(Ok(SourceEvent::Ends(vec![(self.partition.clone(), retained.end)])));
    }

    fn too_large(&self) -> SourceError {
        SourceError::refused(
            format!(
                "{}: the batch at offset {} does not fit into an answer of {MOST_BYTES} bytes",
                self.partition, self.next
            ),
            "Set meta.consumer.max-bytes to more than the largest batch that is produced",
        )
    }
}

fn left(fault: Fault) -> Left {
    match fault {
        Fault::TooSmall => Left::TooSmall,
        Fault::Refused { reason, remedy } => Left::Stop(SourceError::refused(reason, remedy)),
        // Whether the topic, or what an offset stood for, is gone for good is seen before the next stream.
        fault => Left::Again(fault.to_string()),
    }
}

/// Milliseconds since the Unix epoch, where the batch has a time.
fn timestamp(batch: &Batch, record: &Record) -> Option<i64> {
    let base = batch.get_base_timestamp();
    (base > 0).then(|| base + record.timestamp_delta())
}

/// Fluvio's own kafka-source makes an empty key of a record that has none.
fn key(record: &Record) -> Option<&[u8]> {
    record.key().map(AsRef::as_ref).filter(|key: &&[u8]| !key.is_empty())
}

/// Fluvio has no tombstones; an empty value, which is what its kafka-source makes of one, stands for it.
fn payload(record: &Record) -> Option<&[u8]> {
    let value: &[u8] = record.value().as_ref();
    (!value.is_empty()).then_some(value)
}
