//! `embedsink.tables`.

use super::field::Key;
use super::index::{self, Surroundings};
use super::lancedb;
use super::problem::{Report, quote};
use super::quantity::Limits;
use super::section::Section;
use super::settings::{StaleWrites, TableSettings};
use super::sink::SinkKind;

const DIMENSIONS: Limits<u32> =
    Limits { least: 1, most: 16_000, why: "a pgvector column holds between 1 and 16000 dimensions" };
const LANCE_DIMENSIONS: Limits<u32> =
    Limits { least: 1, most: 16_000, why: "the connector writes vectors of 1 to 16000 dimensions" };

/// Reads the tables in file order: the first takes records that name none.
pub(super) fn read(
    embedsink: &Section<'_>,
    sink: SinkKind,
    report: &mut Report,
) -> Option<Vec<TableSettings>> {
    let fix = "add a table, such as `embeddings: {dimensions: 384}`";
    let field = embedsink.require("tables", fix, report)?;
    let entries = field.entries(Key::Free, report)?;
    if entries.is_empty() {
        field.complain(report, "there is no table to write to", fix);
        return None;
    }
    let mut tables = Vec::new();
    let mut good = true;
    for (name, field) in entries {
        let complaint = match sink {
            SinkKind::Postgres { .. } => name_complaint(&name),
            SinkKind::Lance => lancedb::name_complaint(&name),
            SinkKind::Unclear => None,
        };
        if let Some((what, fix)) = complaint {
            report.add(field.key_at, &field.path, what, fix);
            good = false;
        }
        match Section::open(field.node, &field.path, field.key_at, "embedsink.tables.*", report)
            .and_then(|table| read_table(name, &table, sink, report))
        {
            Some(table) => tables.push(table),
            None => good = false,
        }
    }
    good.then_some(tables)
}

fn read_table(
    name: String,
    table: &Section<'_>,
    sink: SinkKind,
    report: &mut Report,
) -> Option<TableSettings> {
    let limits = if sink == SinkKind::Lance { &LANCE_DIMENSIONS } else { &DIMENSIONS };
    let dimensions = table
        .require("dimensions", "say how long its vectors are, such as `384`", report)
        .and_then(|field| field.count(limits, report))
        .and_then(|dimensions| u16::try_from(dimensions).ok());
    let stale_writes = match table.get("stale-writes") {
        Some(field) => field.choice(&[("apply", StaleWrites::Apply), ("skip", StaleWrites::Skip)], report),
        None => Some(StaleWrites::default()),
    };
    let (index, lance_index) = match (table.get("index"), sink) {
        (Some(field), SinkKind::Postgres { prepared }) => {
            (index::read(field, Surroundings { dimensions, prepared }, report)?, None)
        }
        (Some(field), SinkKind::Lance) => (None, lancedb::read_index(field, report)?),
        (Some(_), SinkKind::Unclear) | (None, _) => (None, None),
    };
    Some(TableSettings { name, dimensions: dimensions?, stale_writes: stale_writes?, index, lance_index })
}

fn name_complaint(name: &str) -> Option<(String, &'static str)> {
    if name.is_empty() {
        Some(("a table needs a name".to_owned(), "give one"))
    } else if name.contains('\0') {
        Some(("the table's name holds a NUL, which PostgreSQL cannot store".to_owned(), "remove it"))
    } else if name.len() > 63 {
        Some((format!("PostgreSQL would cut the name {} to 63 bytes", quote(name)), "shorten it"))
    } else if name.contains('.') {
        let what = format!("{} names a schema, and tables are found through the search path", quote(name));
        Some((what, "name the table alone; the role's `search_path` says in which schema it is"))
    } else {
        None
    }
}
