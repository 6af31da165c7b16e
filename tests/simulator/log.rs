//! The log of a history, and its fold.

use std::collections::BTreeMap;

use super::random::Random;
use crate::reject::RejectReason;
use crate::route::{Router, TableLimits};

/// What the tables are called, and how many numbers their vectors have.
const TABLES: [(&str, usize); 2] = [("a", 2), ("b", 3)];

/// The target refuses texts that begin so.
const POISON: &str = "poison";

/// A place in the log.
pub(super) struct Entry {
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) fate: Fate,
}

/// What must become of it.
pub(super) enum Fate {
    /// A row, unless the target refuses it.
    Row {
        table: usize,
        id: String,
        text: String,
    },
    Delete(String),
    Dead(RejectReason),
    /// The broker does not serve it.
    Gap,
    /// A transform leaves it out.
    Passed,
}

/// All partitions, from the first offset that the broker still has.
pub(super) struct Log {
    pub(super) partitions: Vec<Vec<Entry>>,
    pub(super) earliest: i64,
}

/// Rows by table and key, with their texts.
pub(super) type Tables = [BTreeMap<String, String>; 2];

/// Dead letters by partition and offset.
pub(super) type Letters = BTreeMap<(usize, i64), RejectReason>;

impl Log {
    /// Some partitions with some records.
    pub(super) fn draw(random: &mut Random) -> Self {
        let earliest = if random.chance(30) { 1 + random.below(5) as i64 } else { 0 };
        let partitions = 1 + random.below(4);
        let draw = |partition: usize, random: &mut Random| {
            let entries = 5 + random.below(45) as i64;
            let mut log: Vec<Entry> =
                (earliest..earliest + entries).map(|offset| Entry::draw(partition, offset, random)).collect();
            // So that the end of the log is a position that can be stored.
            log.push(Entry::row(partition, earliest + entries, random));
            log
        };
        Self { partitions: (0..partitions).map(|partition| draw(partition, random)).collect(), earliest }
    }

    /// The router for its tables.
    pub(super) fn router() -> Router {
        let limits = TABLES.map(|(name, dimensions)| TableLimits {
            name: name.to_owned(),
            dimensions,
            max_id_chars: None,
            max_source_chars: None,
            skip_stale: false,
        });
        Router::new(limits.into())
    }

    /// What stands at an offset.
    pub(super) fn at(&self, partition: usize, offset: i64) -> Option<&Entry> {
        self.partitions[partition].get(usize::try_from(offset - self.earliest).ok()?)
    }

    /// The offset behind the last record.
    pub(super) fn end(&self, partition: usize) -> i64 {
        self.earliest + self.partitions[partition].len() as i64
    }

    /// Compares what is stored with the fold of the log up to `positions`.
    pub(super) fn judge(
        &self,
        positions: impl Fn(usize) -> i64,
        tables: &Tables,
        letters: &Letters,
    ) -> Result<(), String> {
        let mut expected = Tables::default();
        let mut wanted = Letters::new();
        for (partition, log) in self.partitions.iter().enumerate() {
            for (offset, entry) in (self.earliest..positions(partition)).zip(log) {
                match &entry.fate {
                    // A refused row is a dead letter, or was overtaken before the target saw it.
                    Fate::Row { text, .. }
                        if is_poison(text) && letters.contains_key(&(partition, offset)) =>
                    {
                        wanted.insert((partition, offset), RejectReason::Refused);
                    }
                    Fate::Row { table, id, text } => {
                        expected[*table].insert(id.clone(), text.clone());
                    }
                    Fate::Delete(id) => expected.iter_mut().for_each(|table| drop(table.remove(id))),
                    Fate::Dead(reason) => drop(wanted.insert((partition, offset), *reason)),
                    Fate::Gap | Fate::Passed => {}
                }
            }
        }
        if *letters != wanted {
            return Err(format!("dead letters are\n{letters:?}, expected\n{wanted:?}"));
        }
        if *tables != expected {
            return Err(format!("tables are\n{tables:?}, expected\n{expected:?}"));
        }
        Ok(())
    }
}

/// Whether the target refuses a row with this text.
pub(super) fn is_poison(text: &str) -> bool {
    text.starts_with(POISON)
}

impl Entry {
    fn draw(partition: usize, offset: i64, random: &mut Random) -> Self {
        match random.below(100) {
            0..=3 => Self::new(offset, None, None, Fate::Gap),
            4..=7 => Self::new(offset, None, None, Fate::Passed),
            8..=17 => {
                let id = id(partition, random);
                Self::new(offset, Some(id.clone().into_bytes()), None, Fate::Delete(id))
            }
            18..=20 => Self::dead(offset, "{\"id\": \"k\", \"embedding\": [1", RejectReason::BadJson),
            21..=23 => {
                let payload = "{\"id\": \"k\", \"embedding\": [1]}";
                Self::dead(offset, payload, RejectReason::WrongDimension)
            }
            24..=25 => Self::dead(offset, "{\"embedding\": [1, 2]}", RejectReason::MissingId),
            _ => Self::row(partition, offset, random),
        }
    }

    fn row(partition: usize, offset: i64, random: &mut Random) -> Self {
        let (id, table) = (id(partition, random), random.below(TABLES.len()));
        let mark = if random.chance(7) { POISON } else { "text" };
        let text = format!("{mark} {partition}/{offset}");
        let (name, dimensions) = TABLES[table];
        let numbers = vec![offset.to_string(); dimensions].join(",");
        let payload = format!(
            "{{\"id\":\"{id}\",\"text\":\"{text}\",\"embedding\":[{numbers}],\"table_name\":\"{name}\"}}"
        );
        Self::new(offset, None, Some(payload.into_bytes()), Fate::Row { table, id, text })
    }

    fn dead(offset: i64, payload: &str, reason: RejectReason) -> Self {
        Self::new(offset, None, Some(payload.as_bytes().to_vec()), Fate::Dead(reason))
    }

    fn new(offset: i64, key: Option<Vec<u8>>, payload: Option<Vec<u8>>, fate: Fate) -> Self {
        Self { timestamp: 1_700_000_000_000 + offset * 7, key, payload, fate }
    }
}

/// Few ids, so that they come again.
fn id(partition: usize, random: &mut Random) -> String {
    format!("{partition}-{}", random.below(5))
}
