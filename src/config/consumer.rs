//! `meta.consumer`: how a Fluvio topic is read.

use std::time::Duration;

use super::field::{Field, Key};
use super::node::{Kind, Value};
use super::problem::{Origin, Report};
use super::quantity::Limits;
use super::section::Section;
use crate::framework::config::{ConsumerSettings, Partitions, StartAt};

const MAX_BYTES: Limits<usize> = Limits {
    least: 64 << 10,
    most: 1 << 30,
    why: "an answer needs room for a record, and is kept in memory",
};
const PARTITION: Limits<u32> =
    Limits { least: 0, most: i32::MAX as u32, why: "partitions are numbered from 0" };
const ABSOLUTE: Limits<i64> = Limits { least: 0, most: i64::MAX, why: "offsets begin at 0" };
const RECORDS: Limits<u32> =
    Limits { least: 0, most: u32::MAX, why: "Fluvio counts these records in 32 bits" };
const SECONDS: Limits<u32> = Limits { least: 0, most: u32::MAX, why: "it is a number of seconds" };
const NANOS: Limits<u32> = Limits { least: 0, most: 999_999_999, why: "it is a part of a second" };
const PERIOD: Limits<Duration> = Limits {
    least: Duration::from_millis(100),
    most: Duration::from_secs(3600),
    why: "Fluvio is told this often how far the connector is",
};
const DEFAULT_PERIOD: Duration = Duration::from_secs(10);

/// Whether Fluvio is told how far the connector is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Manual,
    None,
}

const STRATEGIES: &[(&str, Strategy)] = &[("manual", Strategy::Manual), ("none", Strategy::None)];

/// Reads the section. The consumer is named after the connector when it has no name of its own.
pub(super) fn read(
    meta: &Section<'_>,
    connector: Option<&str>,
    report: &mut Report,
) -> Option<ConsumerSettings> {
    let consumer = meta.section("consumer", "meta.consumer", report)?;
    let id = match consumer.get("id") {
        Some(field) => field.text(report).map(str::to_owned),
        None => {
            let id = connector.map(str::to_owned);
            report.resolve(format!("{}.id", consumer.path), id.clone(), Origin::Key("meta.name"));
            id
        }
    };
    let partitions = match consumer.get("partition") {
        Some(field) => read_partitions(field, report),
        None => Some(Partitions::All),
    };
    let max_bytes = match consumer.get("max-bytes") {
        Some(field) => field.size(&MAX_BYTES, report).and_then(|bytes| u32::try_from(bytes).ok()).map(Some),
        None => Some(None),
    };
    let offset = consumer.section("offset", "meta.consumer.offset", report)?;
    let start = match offset.get("start") {
        Some(field) => read_start(field, report),
        None => Some(StartAt::Beginning),
    };
    let report_every = read_reporting(&offset, report);
    Some(ConsumerSettings {
        id: id?,
        partitions: partitions?,
        max_bytes: max_bytes?,
        start: start?,
        report_every: report_every?,
    })
}

fn read_partitions(field: &Field<'_>, report: &mut Report) -> Option<Partitions> {
    let numbers = match &field.node.value {
        Value::Scalar(scalar) if scalar.text == "all" => return Some(Partitions::All),
        Value::Scalar(scalar) if scalar.kind == Kind::Text && !scalar.is_tainted() => {
            let what = format!("{} is no partition", field.quoted());
            field.complain(report, what, "give `all`, a number, or a list of numbers");
            return None;
        }
        Value::Sequence(items) if items.is_empty() => {
            field.complain(report, "the list is empty", "name at least one, or write `all`");
            return None;
        }
        Value::Sequence(_) => {
            let mut numbers = Vec::new();
            let mut good = true;
            for item in field.items(report)? {
                match item.count(&PARTITION, report) {
                    Some(number) if numbers.contains(&number) => {
                        item.complain(report, format!("{} is named twice", item.quoted()), "keep one");
                        good = false;
                    }
                    Some(number) => numbers.push(number),
                    None => good = false,
                }
            }
            numbers.sort_unstable();
            good.then_some(numbers)?
        }
        _ => vec![field.count(&PARTITION, report)?],
    };
    Some(Partitions::Listed(numbers))
}

fn read_start(field: &Field<'_>, report: &mut Report) -> Option<StartAt> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        let scalar = field.scalar("a word or a mapping", report)?;
        return match scalar.text.as_str() {
            "beginning" => Some(StartAt::Beginning),
            "end" => Some(StartAt::End),
            _ => {
                let fix =
                    "give `beginning` or `end`, or a mapping with `absolute`, `from-beginning` or `from-end`";
                field.complain(report, format!("{} is not known here", field.quoted()), fix);
                None
            }
        };
    }
    let given = field.entries(Key::Known, report)?.len();
    let start = Section::open(field.node, &field.path, field.key_at, "meta.consumer.offset.start", report)?;
    if given != 1 {
        let what = "a start is one of `absolute`, `from-beginning` and `from-end`";
        field.complain(report, what, "give exactly one of them");
        return None;
    }
    if let Some(field) = start.get("absolute") {
        field.count(&ABSOLUTE, report).map(StartAt::Absolute)
    } else if let Some(field) = start.get("from-beginning") {
        field.count(&RECORDS, report).map(StartAt::FromBeginning)
    } else {
        start.get("from-end")?.count(&RECORDS, report).map(StartAt::FromEnd)
    }
}

/// How often Fluvio is told how far the connector is. `None` when that is wrong, `Some(None)` for never.
fn read_reporting(offset: &Section<'_>, report: &mut Report) -> Option<Option<Duration>> {
    let strategy = match offset.get("strategy") {
        Some(field) if matches!(&field.node.value, Value::Scalar(scalar) if scalar.text == "auto") => {
            let what = "with `auto`, Fluvio commits a record's offset when it hands the record out, before it is \
                        written: a crash would lose it";
            let fix = "write `manual`, or `none`; positions are stored together with the rows";
            field.complain(report, what, fix);
            return None;
        }
        Some(field) => field.choice(STRATEGIES, report)?,
        None => Strategy::Manual,
    };
    match (offset.get("flush-period"), strategy) {
        (None, Strategy::None) => Some(None),
        (None, _) => Some(Some(DEFAULT_PERIOD)),
        (Some(field), Strategy::None) => {
            let what = "contradicts `strategy: none`, with which Fluvio is told nothing";
            field.complain(report, what, "remove it, or write `strategy: manual`");
            None
        }
        (Some(field), _) => read_period(field, report).map(Some),
    }
}

/// A duration, as text or as the framework spells it: `{secs: 10, nanos: 0}`.
fn read_period(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        return field.duration(&PERIOD, report);
    }
    let schema = "meta.consumer.offset.flush-period";
    let period = Section::open(field.node, &field.path, field.key_at, schema, report)?;
    let seconds = period
        .require("secs", "write `{secs: 10, nanos: 0}`, or `10s`", report)
        .and_then(|field| field.count(&SECONDS, report));
    let nanos = match period.get("nanos") {
        Some(field) => field.count(&NANOS, report),
        None => Some(0),
    };
    field.duration_within(Duration::new(seconds?.into(), nanos?), &PERIOD, report)
}
