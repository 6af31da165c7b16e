//! A run of raw records, packed into one allocation. `Debug` shows sizes, never bytes.

use std::fmt;

use tokio::sync::OwnedSemaphorePermit;

use super::{Partition, Tenure};

/// A record as the broker holds it: positions and bytes, not yet understood.
#[derive(Clone, Copy)]
pub struct SourceRecord<'a> {
    /// Its offset within its partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch, as the producer or the broker stamped it.
    pub timestamp: Option<i64>,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Its headers, which only dead letters keep.
    pub headers: Headers<'a>,
    /// How many bytes of the payload the source has left out, since they are more than any record may have.
    pub omitted: usize,
}

/// The headers of a record, in its order: each a name and a value, which may be none. A name may come twice.
///
/// They lie packed in one piece, as [`HeadersBuilder`] wrote them, so that they cost nothing until they are wanted.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take_piece(&mut rest)??;
            Some((name, take_piece(&mut rest)?))
        })
    }
}

/// What stands for a value that is none, where otherwise its length stands.
const NO_VALUE: u32 = u32::MAX;

/// The piece that `rest` begins with; `None` at its end.
fn take_piece<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NO_VALUE {
        *rest = behind;
        return Some(None);
    }
    let (piece, behind) = behind.split_at_checked(length as usize)?;
    *rest = behind;
    Some(Some(piece))
}

/// Packs headers into one piece.
#[derive(Debug, Default)]
pub struct HeadersBuilder {
    packed: Vec<u8>,
}

impl HeadersBuilder {
    /// Takes the headers of the record before away, and keeps the room.
    pub fn clear(&mut self) {
        self.packed.clear();
    }

    /// Puts a header behind those before it.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.piece(Some(name));
        self.piece(value);
    }

    fn piece(&mut self, piece: Option<&[u8]>) {
        let length = piece.map_or(NO_VALUE, |piece| u32::try_from(piece.len()).unwrap_or(NO_VALUE - 1));
        self.packed.extend_from_slice(&length.to_le_bytes());
        self.packed.extend_from_slice(piece.unwrap_or_default());
    }

    /// What was pushed so far.
    pub fn headers(&self) -> Headers<'_> {
        Headers(&self.packed)
    }
}

#[derive(Debug)]
struct Span {
    offset: i64,
    timestamp: Option<i64>,
    start: usize,
    key: Option<usize>,
    payload: Option<usize>,
    headers: usize,
    omitted: usize,
}

/// Consecutive records of one partition under one tenure, in offset order.
///
/// Their bytes lie behind each other in one buffer. The memory they take is charged to the
/// source's budget until this value is dropped.
pub struct Fetched {
    partition: Partition,
    tenure: Tenure,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// The next offset, and the timestamp of the record before it, where the source left records out.
    passed: Option<(i64, Option<i64>)>,
    charge: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for SourceRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceRecord")
            .field("offset", &self.offset)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("payload_bytes", &self.payload.map(<[u8]>::len))
            .field("header_bytes", &self.headers.0.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} headers]", self.iter().count())
    }
}

impl SourceRecord<'_> {
    /// Bytes of key, payload and headers together.
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.payload.map_or(0, <[u8]>::len) + self.headers.0.len()
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("partition", &self.partition)
            .field("tenure", &self.tenure)
            .field("records", &self.spans.len())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Fetched {
    /// The partition all records are of.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The tenure they were fetched under.
    pub fn tenure(&self) -> Tenure {
        self.tenure
    }

    /// How many records there are; 0 only where all were left out.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The offset to go on at, and the timestamp of the record before it, if the source left out the last
    /// records that it read: a transform dropped them.
    pub fn passed(&self) -> Option<(i64, Option<i64>)> {
        self.passed
    }

    /// Bytes of keys, payloads and headers together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes it takes in memory, with what keeps account of each record, and room that is not used.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// Ties the memory budget's permit to the life of these records.
    #[must_use]
    pub fn charged(mut self, charge: OwnedSemaphorePermit) -> Self {
        self.charge = Some(charge);
        self
    }

    /// The records, in offset order.
    pub fn records(&self) -> impl Iterator<Item = SourceRecord<'_>> {
        self.spans.iter().map(|span| self.record(span))
    }

    /// The record at `offset`, if it is among them.
    pub fn record_at(&self, offset: i64) -> Option<SourceRecord<'_>> {
        let index = self.spans.binary_search_by_key(&offset, |span| span.offset).ok()?;
        Some(self.record(&self.spans[index]))
    }

    fn record(&self, span: &Span) -> SourceRecord<'_> {
        let payload_start = span.start + span.key.unwrap_or(0);
        let headers_start = payload_start + span.payload.unwrap_or(0);
        SourceRecord {
            offset: span.offset,
            timestamp: span.timestamp,
            key: span.key.map(|len| &self.bytes[span.start..span.start + len]),
            payload: span.payload.map(|len| &self.bytes[payload_start..payload_start + len]),
            headers: Headers(&self.bytes[headers_start..headers_start + span.headers]),
            omitted: span.omitted,
        }
    }
}

/// Gives room back that is not used, if that is more than a quarter of all.
fn give_back<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() / 4 * 3 {
        list.shrink_to_fit();
    }
}

/// Packs records of one partition into a [`Fetched`].
#[derive(Debug)]
pub struct FetchedBuilder {
    run: Fetched,
}

impl FetchedBuilder {
    /// Starts a run.
    pub fn new(partition: Partition, tenure: Tenure) -> Self {
        Self {
            run: Fetched {
                partition,
                tenure,
                bytes: Vec::new(),
                spans: Vec::new(),
                passed: None,
                charge: None,
            },
        }
    }

    /// The partition of the run.
    pub fn partition(&self) -> &Partition {
        &self.run.partition
    }

    /// The tenure of the run.
    pub fn tenure(&self) -> Tenure {
        self.run.tenure
    }

    /// The same with room for so many bytes of records. A run that grows by itself copies what it holds each time it doubles.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.run.bytes.reserve_exact(bytes);
        self
    }

    /// Copies a record behind the ones before it.
    pub fn push(&mut self, record: SourceRecord<'_>) {
        self.run.passed = None;
        let start = self.run.bytes.len();
        self.run.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.run.bytes.extend_from_slice(record.payload.unwrap_or_default());
        self.run.bytes.extend_from_slice(record.headers.0);
        self.run.spans.push(Span {
            offset: record.offset,
            timestamp: record.timestamp,
            start,
            key: record.key.map(<[u8]>::len),
            payload: record.payload.map(<[u8]>::len),
            headers: record.headers.0.len(),
            omitted: record.omitted,
        });
    }

    /// Leaves out the record at `offset`: it was read, and a transform dropped it.
    pub fn pass(&mut self, offset: i64, timestamp: Option<i64>) {
        self.run.passed = Some((offset + 1, timestamp));
    }

    /// Bytes packed so far.
    pub fn bytes(&self) -> usize {
        self.run.bytes.len()
    }

    /// Records packed so far.
    pub fn len(&self) -> usize {
        self.run.spans.len()
    }

    /// Whether nothing is packed yet, and nothing left out.
    pub fn is_empty(&self) -> bool {
        self.run.spans.is_empty() && self.run.passed.is_none()
    }

    /// The finished run. Where much room was left over it is given back, so that the budget holds records, not air.
    pub fn finish(mut self) -> Fetched {
        give_back(&mut self.run.bytes);
        give_back(&mut self.run.spans);
        self.run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_charged_for_all_the_room_it_takes_and_little_of_that_is_not_used() {
        for (records, size) in
            [(0, 0), (1, 1), (1, 700_000), (3, 40_000), (65, 8_600), (1024, 10), (700, 900)]
        {
            let mut run = FetchedBuilder::new(Partition::new("topic", 0), Tenure(1));
            let payload = vec![b'x'; size];
            for offset in 0..records {
                run.push(SourceRecord {
                    offset,
                    timestamp: None,
                    key: None,
                    payload: Some(&payload),
                    headers: Headers::default(),
                    omitted: 0,
                });
            }
            let run = run.finish();
            let used = run.bytes.len() + size_of_val(run.spans.as_slice());
            let taken = run.bytes.capacity() + run.spans.capacity() * size_of::<Span>();
            assert_eq!(run.memory(), taken, "{records} of {size}");
            assert!(taken - used <= taken / 4 + 8, "{records} of {size}: {used} of {taken}");
        }
    }
}
