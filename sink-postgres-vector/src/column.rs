//! What the columns of a table must be like.

use tokio_postgres::{Row, types::Type};

use crate::{contract::Findings, extension::Extension, ident::Ident, table::TableSpec};

/// The columns of the table with the number `$1`.
pub(crate) const ALL: &str = "
select a.attname, a.attnum, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attgenerated <> '', a.attnotnull and not a.atthasdef and a.attidentity = '',
       coalesce(l.collisdeterministic, true), a.attnotnull
from pg_catalog.pg_attribute a left join pg_catalog.pg_collation l on l.oid = a.attcollation
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
order by a.attnum";

/// The columns for which a row may have no value. A default does not help: the null is written.
const MAY_BE_LEFT_OUT: [&str; 4] = ["text", "timestamp", "source", "metadata"];

/// A column as the catalog has it.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) number: i16,
    ty: u32,
    modifier: i32,
    shown: String,
    generated: bool,
    /// Refuses an insert that does not name it.
    demanded: bool,
    deterministic: bool,
    not_null: bool,
}

impl Column {
    pub(crate) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            name: row.try_get(0)?,
            number: row.try_get(1)?,
            ty: row.try_get(2)?,
            modifier: row.try_get(3)?,
            shown: row.try_get(4)?,
            generated: row.try_get(5)?,
            demanded: row.try_get(6)?,
            deterministic: row.try_get(7)?,
            not_null: row.try_get(8)?,
        })
    }

    fn is(&self, ty: &Type) -> bool {
        self.ty == ty.oid()
    }

    /// The n of varchar(n); the server keeps it with 4 added.
    fn max_chars(&self) -> Option<u32> {
        u32::try_from(self.modifier - 4).ok().filter(|_| self.is(&Type::VARCHAR))
    }
}

/// How long the texts that are not unbounded may be.
pub(crate) struct MaxChars {
    pub(crate) id: Option<u32>,
    pub(crate) source: Option<u32>,
}

/// Compares the columns with those that are written to.
pub(crate) fn judge(
    spec: &TableSpec,
    extension: Option<&Extension>,
    columns: &[Column],
    findings: &mut Findings<'_>,
) -> MaxChars {
    let table = findings.table;
    let vector = extension.map(|extension| &extension.vector);
    let wanted = [
        ("id", "varchar(255)", vec![&Type::VARCHAR, &Type::TEXT]),
        ("text", "text", vec![&Type::TEXT, &Type::VARCHAR]),
        ("embedding", "vector", vector.into_iter().collect()),
        ("timestamp", "timestamptz", vec![&Type::TIMESTAMPTZ]),
        ("source", "varchar(255)", vec![&Type::VARCHAR, &Type::TEXT]),
        ("metadata", "jsonb", vec![&Type::JSONB]),
    ];
    for (name, ty, allowed) in &wanted {
        let column = Ident::new(*name).expect("a name of ours is a name");
        let ty = match *name {
            "embedding" => format!("vector({})", spec.dimensions),
            _ => (*ty).to_owned(),
        };
        let Some(found) = columns.iter().find(|column| column.name == *name) else {
            findings.add(
                format!("The column {column} is missing."),
                format!("alter table {table} add column {column} {ty};"),
            );
            continue;
        };
        if found.generated {
            findings.add(
                format!("The column {column} is generated, so nothing can be written to it."),
                format!("alter table {table} alter column {column} drop expression;"),
            );
        }
        if found.not_null && MAY_BE_LEFT_OUT.contains(name) {
            findings.add(
                format!("The column {column} must not be null, but records may leave it out, and one that does stops all writing."),
                format!("alter table {table} alter column {column} drop not null;"),
            );
        }
        if *name == "embedding" {
            judge_embedding(spec, extension, found, findings);
        } else if !allowed.iter().any(|ty| found.is(ty)) {
            findings.add(
                format!("The column {column} has the type {}, not {ty}.", found.shown),
                format!("alter table {table} alter column {column} type {ty} using {column}::{ty};"),
            );
        } else if *name == "text" && found.max_chars().is_some() {
            findings.add(
                format!(
                    "The column {column} has the type {}, which is too short for some texts.",
                    found.shown
                ),
                format!("alter table {table} alter column {column} type text;"),
            );
        } else if !found.deterministic {
            findings.add(
                format!("The collation of the column {column} takes different texts for equal, so changes would be lost."),
                format!("alter table {table} alter column {column} type {} collate \"default\";", found.shown),
            );
        }
    }
    for column in columns.iter().filter(|column| !wanted.iter().any(|(name, ..)| column.name == *name)) {
        if column.demanded {
            let name = Ident::new(&*column.name).expect("a name from the catalog is a name");
            findings.add(
                format!("The column {name} must not be null and has no default, so no row can be inserted without it."),
                format!("alter table {table} alter column {name} drop not null; or set a default"),
            );
        }
    }
    let max_chars = |name| columns.iter().find(|column| column.name == name).and_then(Column::max_chars);
    MaxChars { id: max_chars("id"), source: max_chars("source") }
}

fn judge_embedding(
    spec: &TableSpec,
    extension: Option<&Extension>,
    found: &Column,
    findings: &mut Findings<'_>,
) {
    let (table, dimensions) = (findings.table, spec.dimensions);
    let alter = format!("alter table {table} alter column \"embedding\" type vector({dimensions});");
    match extension {
        None => {}
        Some(extension) if !found.is(&extension.vector) => findings.add(
            format!("The column \"embedding\" has the type {}, not vector({dimensions}).", found.shown),
            alter,
        ),
        Some(_) if found.modifier < 0 => findings.add(
            "The column \"embedding\" has no dimension. It would take vectors of any length, and no index.",
            alter,
        ),
        Some(_) if found.modifier != i32::from(dimensions) => findings.add(
            format!(
                "The column \"embedding\" holds {} dimensions, but {dimensions} are configured.",
                found.modifier
            ),
            format!(
                "Configure {} dimensions. Or, if the model has changed, empty the table and: {alter}",
                found.modifier
            ),
        ),
        Some(_) => {}
    }
}
