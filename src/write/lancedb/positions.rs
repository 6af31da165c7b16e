//! Positions in a Lance table: one row a partition of a connector.
//!
//! Invariant: the positions of a batch move in one commit of their table, after all that they stand for.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sink_lancedb::{
    Dataset, Error, KeyedReader, KeyedRow, KeyedSpec, KeyedTable, Kind, LockedDataset, Mismatch, Upkeep,
    Value,
};

use super::POSITIONS;
use crate::batch::Span;
use crate::source::{Partition, Tenure};
use crate::write::positions::Stored;
use crate::write::{First, Taken};

/// Partitions that a topic is found to have so long after its first are late ones.
const LATE: Duration = Duration::from_secs(60);

/// The positions of one connector.
#[derive(Debug)]
pub(crate) struct Positions {
    connector: String,
    table: KeyedTable,
    /// What is stored, as far as it is known.
    known: HashMap<Partition, Position>,
}

/// Where a partition goes on. Moments are in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    next_offset: i64,
    epoch: i64,
    /// The last record that was written, and its timestamp in milliseconds as it was written.
    last: Option<(i64, Option<i64>)>,
    created: i64,
    updated: i64,
}

/// How a batch stands to what is stored.
pub(super) enum Standing {
    /// It is the next to be written.
    Next,
    /// It was written before, and only the answer got lost.
    Written,
    /// These partitions are no longer ours.
    Lost(Vec<(Partition, Tenure)>),
}

/// How the table looks.
pub(super) fn spec() -> KeyedSpec {
    let columns = [
        ("connector", Kind::Text),
        ("topic", Kind::Text),
        ("partition", Kind::Integer),
        ("next_offset", Kind::Integer),
        ("epoch", Kind::Integer),
        ("last_offset", Kind::Integer),
        ("last_timestamp", Kind::Integer),
        ("created_at", Kind::Timestamp),
        ("updated_at", Kind::Timestamp),
    ];
    KeyedSpec {
        name: POSITIONS.to_owned(),
        columns: columns.map(|(name, kind)| (name.to_owned(), kind)).into(),
        upkeep: Upkeep::default(),
    }
}

impl Positions {
    /// Opens the table, and makes it if it is missing.
    pub(crate) async fn open(connector: String, dataset: &LockedDataset) -> Result<Self, Error> {
        let table = KeyedTable::open(dataset, spec()).await?;
        Ok(Self { connector, table, known: HashMap::new() })
    }

    /// Raises the partition's epoch, and says where to go on.
    pub(super) async fn take(&mut self, partition: &Partition, first: First) -> Result<Taken, Error> {
        let now = now();
        let position = match self.find(partition).await? {
            Some(stored) => Position { epoch: stored.epoch + 1, updated: now, ..stored },
            None => {
                let is_late = self.of_topic(partition.topic()).await?.iter().any(|(_, known)| {
                    known.created < now - i64::try_from(LATE.as_micros()).unwrap_or(i64::MAX)
                });
                let next_offset = if is_late { first.late } else { first.offset };
                Position { next_offset, epoch: 1, last: None, created: now, updated: now }
            }
        };
        self.put(&[(partition, position)]).await?;
        Ok(Taken {
            tenure: Tenure(position.epoch),
            next_offset: position.next_offset,
            stored: position.epoch > 1,
            last_timestamp: last_timestamp(&position),
        })
    }

    /// Compares the spans of a batch with what is stored.
    pub(super) async fn standing(&mut self, spans: &[&Span]) -> Result<Standing, Error> {
        let (mut lost, mut written) = (Vec::new(), 0);
        for span in spans {
            match self.find(&span.partition).await? {
                Some(stored) if stored.epoch == span.tenure.0 && stored.next_offset == span.from => {}
                Some(stored) if stored.epoch == span.tenure.0 && stored.next_offset == span.to => {
                    written += 1;
                }
                _ => lost.push((span.partition.clone(), span.tenure)),
            }
        }
        // Positions move together: where a part of them has moved, it was not by this batch.
        if lost.is_empty() && written == spans.len() {
            return Ok(Standing::Written);
        }
        if written > 0 {
            let moved = |span: &&&Span| {
                self.known.get(&span.partition).is_some_and(|stored| stored.next_offset != span.from)
            };
            lost = spans.iter().filter(moved).map(|span| (span.partition.clone(), span.tenure)).collect();
        }
        Ok(if lost.is_empty() { Standing::Next } else { Standing::Lost(lost) })
    }

    /// Moves the positions of a batch, all or none.
    pub(super) async fn move_to_ends(&mut self, spans: &[&Span]) -> Result<(), Error> {
        let updated = now();
        let mut moved = Vec::with_capacity(spans.len());
        for span in spans {
            let stored = self.find(&span.partition).await?;
            let created = stored.map_or(updated, |stored| stored.created);
            let last = Some((span.to - 1, span.last_timestamp));
            let position = Position { next_offset: span.to, epoch: span.tenure.0, last, created, updated };
            moved.push((&span.partition, position));
        }
        self.put(&moved).await
    }

    /// Lets a topic of one partition go on at `offset`, if it is known.
    pub(super) async fn set_back(&mut self, topic: &str, offset: i64) -> Result<(), Error> {
        let known = self.of_topic(topic).await?;
        let back = |(partition, position): &(Partition, Position)| {
            (partition.clone(), Position { next_offset: offset, last: None, updated: now(), ..*position })
        };
        let moved: Vec<(Partition, Position)> = known.iter().map(back).collect();
        let moved: Vec<(&Partition, Position)> =
            moved.iter().map(|(partition, position)| (partition, *position)).collect();
        self.put(&moved).await
    }

    /// Whether this connector has stored a position behind a record that it has written.
    pub(super) async fn have_moved(&mut self) -> Result<bool, Error> {
        let rows = self.table.reader().all(None).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut ours = rows.iter().filter(|(connector, ..)| *connector == self.connector);
        Ok(ours.any(|(.., position)| position.last.is_some()))
    }

    /// Deletes the positions of a topic that will never be read again.
    pub(crate) async fn forget(&mut self, topic: &str) -> Result<(), Error> {
        let known = self.of_topic(topic).await?;
        let keys: Vec<String> = known.iter().map(|(partition, _)| self.key(partition)).collect();
        self.known.clear();
        self.table.remove(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await.map(drop)
    }

    pub(super) fn table(&mut self) -> &mut KeyedTable {
        &mut self.table
    }

    async fn find(&mut self, partition: &Partition) -> Result<Option<Position>, Error> {
        if let Some(known) = self.known.get(partition) {
            return Ok(Some(*known));
        }
        let key = self.key(partition);
        let found = self.table.reader().get(&[&key]).await?;
        let found = found.first().map(read).transpose()?.map(|(.., position)| position);
        if let Some(position) = found {
            self.known.insert(partition.clone(), position);
        }
        Ok(found)
    }

    async fn of_topic(&mut self, topic: &str) -> Result<Vec<(Partition, Position)>, Error> {
        let rows = self.table.reader().all(None).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let ours = rows
            .into_iter()
            .filter(|(connector, partition, _)| *connector == self.connector && partition.topic() == topic);
        Ok(ours.map(|(_, partition, position)| (partition, position)).collect())
    }

    async fn put(&mut self, positions: &[(&Partition, Position)]) -> Result<(), Error> {
        let rows: Vec<KeyedRow> =
            positions.iter().map(|(partition, position)| self.row(partition, position)).collect();
        // Until it is known how this ends, nothing is.
        self.known.clear();
        self.table.put(&rows).await?;
        self.known.extend(positions.iter().map(|(partition, position)| ((*partition).clone(), *position)));
        Ok(())
    }

    /// A name has no `/`, and a topic comes last.
    fn key(&self, partition: &Partition) -> String {
        format!("{}/{}/{}", self.connector, partition.number(), partition.topic())
    }

    fn row(&self, partition: &Partition, position: &Position) -> KeyedRow {
        let integer = |number: Option<i64>| number.map_or(Value::Null, Value::Integer);
        KeyedRow {
            key: self.key(partition),
            values: vec![
                Value::Text(self.connector.clone()),
                Value::Text(partition.topic().to_owned()),
                Value::Integer(partition.number().into()),
                Value::Integer(position.next_offset),
                Value::Integer(position.epoch),
                integer(position.last.map(|(offset, _)| offset)),
                integer(position.last.and_then(|(_, timestamp)| timestamp)),
                Value::Timestamp(position.created),
                Value::Timestamp(position.updated),
            ],
        }
    }
}

/// The positions of a connector, or of all, sorted. None where there is no table yet.
pub(crate) async fn list(dataset: &Dataset, connector: Option<&str>) -> Result<Vec<Stored>, Error> {
    let mut reader = match KeyedReader::open(dataset, spec()).await {
        Ok(reader) => reader,
        Err(Error::NoTable { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let rows = reader.all(None).await?;
    let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let wanted = rows.into_iter().filter(|(name, ..)| connector.is_none_or(|connector| name == connector));
    let mut stored: Vec<Stored> = wanted
        .map(|(connector, partition, position)| Stored {
            connector,
            partition,
            next_offset: position.next_offset,
            epoch: position.epoch,
            last_timestamp: last_timestamp(&position),
            updated: moment(position.updated),
        })
        .collect();
    stored.sort_by(|one, other| (&one.connector, &one.partition).cmp(&(&other.connector, &other.partition)));
    Ok(stored)
}

/// That of the record before the next one, unless the position was set to another place.
fn last_timestamp(position: &Position) -> Option<i64> {
    position
        .last
        .filter(|(offset, _)| *offset == position.next_offset - 1)
        .and_then(|(_, timestamp)| timestamp)
}

/// A row that is none of ours is an error: taken for none, it would let a partition begin anew.
fn read(row: &KeyedRow) -> Result<(String, Partition, Position), Error> {
    position(&row.values).ok_or_else(|| {
        let mismatch = Mismatch {
            problem: format!("Its row with the key {:?} is no position.", row.key),
            fix: "If somebody has changed it, undo that, or restore the whole dataset from a copy; delete the row only \
                  if its partition is to begin anew (in Python: table.delete(\"key = '...'\"))."
                .to_owned(),
        };
        Error::Mismatches { table: POSITIONS.to_owned(), mismatches: vec![mismatch] }
    })
}

fn position(values: &[Value]) -> Option<(String, Partition, Position)> {
    let [
        Value::Text(connector),
        Value::Text(topic),
        Value::Integer(partition),
        Value::Integer(next_offset),
        Value::Integer(epoch),
        last_offset,
        last_timestamp,
        Value::Timestamp(created),
        Value::Timestamp(updated),
    ] = values
    else {
        return None;
    };
    let integer = |value: &Value| if let Value::Integer(number) = value { Some(*number) } else { None };
    let partition = Partition::new(topic.as_str(), i32::try_from(*partition).ok()?);
    let position = Position {
        next_offset: *next_offset,
        epoch: *epoch,
        last: integer(last_offset).map(|offset| (offset, integer(last_timestamp))),
        created: *created,
        updated: *updated,
    };
    Some((connector.clone(), partition, position))
}

fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

fn moment(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let moment = if micros < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}
