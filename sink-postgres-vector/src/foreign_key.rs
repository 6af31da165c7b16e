//! Foreign keys between tables that are written to in one transaction.

use tokio_postgres::{Client, types::Type};

use crate::{
    contract::{ContractError, Mismatch},
    error::Error,
    ident::Ident,
    table::TableSpec,
};

/// What is being done, for the case that it fails.
pub(crate) const CHECKING: &str = "look for foreign keys between the tables";

/// A key that a partition has of its own counts as its table's. One that it has inherited does not count twice.
const BETWEEN: &str = "
with target as (select place, pg_catalog.to_regclass(name)::oid as oid
                from pg_catalog.unnest($1::text[]) with ordinality as named (name, place))
select c.conname, a.place, b.place
from pg_catalog.pg_constraint c
join target a on a.oid = c.conrelid
  or c.conparentid = 0 and a.oid = pg_catalog.pg_partition_root(c.conrelid)
join target b on b.oid = c.confrelid
  or c.conparentid = 0 and b.oid = pg_catalog.pg_partition_root(c.confrelid)
where c.contype = 'f'
order by a.place, c.conname";

/// Finds none between two of these tables, nor from one to itself. Of several tables with such keys it names the first.
pub(crate) async fn check(client: &Client, specs: &[TableSpec]) -> Result<(), ContractError> {
    let failed = |error| ContractError::Unknown(Error::during(CHECKING, error));
    let names: Vec<String> = specs.iter().map(|spec| spec.name.to_string()).collect();
    let rows = client.query_typed(BETWEEN, &[(&names, Type::TEXT_ARRAY)]).await.map_err(failed)?;
    let mut found: Option<(&Ident, Vec<Mismatch>)> = None;
    for row in &rows {
        let key = Ident::new(row.try_get::<_, String>(0).map_err(failed)?).expect("a name from the catalog");
        let end = |column| -> Result<&Ident, ContractError> {
            let place: i64 = row.try_get(column).map_err(failed)?;
            Ok(&specs[place.unsigned_abs() as usize - 1].name)
        };
        let (from, to) = (end(1)?, end(2)?);
        let (table, mismatches) = found.get_or_insert_with(|| (from, Vec::new()));
        if *table == from {
            mismatches.push(mismatch(&key, from, to));
        }
    }
    match found {
        Some((table, mismatches)) => Err(ContractError::Mismatches { table: table.clone(), mismatches }),
        None => Ok(()),
    }
}

fn mismatch(key: &Ident, from: &Ident, to: &Ident) -> Mismatch {
    let to = if from == to { "itself".to_owned() } else { format!("{to}, which is written to as well") };
    Mismatch {
        problem: format!(
            "Its foreign key {key} leads to {to}. A transaction goes table by table, deletions first, and not in the \
             order the rows came in, so the key would refuse rows that are good in that order, even if it is deferred."
        ),
        fix: format!("alter table {from} drop constraint {key};"),
    }
}
