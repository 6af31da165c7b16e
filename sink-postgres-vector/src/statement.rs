//! The text of the statements, as pure functions of names.

use crate::{ident::Ident, overwrite::Overwrite};

/// One statement for a whole batch: six arrays in, rows inserted or updated.
///
/// * The `where` keeps an unchanged row as it is: no new version, no WAL.
/// * `case … else t.x` hands a value that has not changed back as it is stored. A value outside the page (TOAST) then
///   keeps its place, and the update can stay on the page (HOT), so that no index is touched.
/// * `unnest` stands in the select list, once per array: as a table it would first store all rows (7 % slower).
/// * The extension may live in a schema outside the search path, so vector's operator is named with it.
///
/// Where the stored timestamp is looked at, it gives one row: how many were written, and how many of them have one.
pub(crate) fn upsert(schema: &Ident, table: &Ident, extension: &Ident, overwrite: Overwrite) -> String {
    let differs = format!("(t.embedding operator({extension}.=) excluded.embedding) is not true");
    let upsert = format!(
        r#"insert into {schema}.{table} as t (id, text, embedding, "timestamp", source, metadata)
select unnest($1::text[]), unnest($2::text[]), unnest($3::{extension}.vector[]), unnest($4::timestamptz[]),
       unnest($5::text[]), unnest($6::jsonb[])
on conflict (id) do update set
  text = case when t.text is distinct from excluded.text then excluded.text else t.text end,
  embedding = case when {differs} then excluded.embedding else t.embedding end,
  "timestamp" = excluded."timestamp",
  source = excluded.source,
  metadata = case when t.metadata is distinct from excluded.metadata then excluded.metadata else t.metadata end
where ((t.text, t."timestamp", t.source, t.metadata)
       is distinct from (excluded.text, excluded."timestamp", excluded.source, excluded.metadata)
   or {differs})"#
    );
    match overwrite.operator() {
        None => upsert,
        Some(operator) => format!(
            r#"with written as ({upsert}
  and (t."timestamp" is null or t."timestamp" {operator} excluded."timestamp")
returning t."timestamp" is not null as dated)
select count(*), count(*) filter (where dated) from written"#
        ),
    }
}

/// Takes rows that are new, in COPY's binary form.
pub(crate) fn copy(schema: &Ident, table: &Ident) -> String {
    format!(
        r#"copy {schema}.{table} (id, text, embedding, "timestamp", source, metadata) from stdin (format binary)"#
    )
}

/// Counts, of the rows `$1` that come with the timestamps `$2`, those whose stored timestamp is later, and those whose
/// is the same. Right behind the upsert it is exact: that has locked every row, also those it left alone.
pub(crate) fn count_later(schema: &Ident, table: &Ident) -> String {
    format!(
        r#"select count(*) filter (where r.at is null or t."timestamp" > r.at),
       count(*) filter (where t."timestamp" = r.at)
from (select unnest($1::text[]) as id, unnest($2::timestamptz[]) as at) as r
join {schema}.{table} as t on t.id = r.id
where t."timestamp" is not null"#
    )
}

/// Deletes by key. Keys that are not there are no error.
pub(crate) fn delete(schema: &Ident, table: &Ident, overwrite: Overwrite) -> String {
    match overwrite.operator() {
        None => format!("delete from {schema}.{table} where id = any($1::text[])"),
        Some(operator) => format!(
            r#"delete from {schema}.{table} as t
using (select unnest($1::text[]) as id, unnest($2::timestamptz[]) as at) as r
where t.id = r.id and (t."timestamp" is null or r.at is null or t."timestamp" {operator} r.at)"#
        ),
    }
}

/// Counts the keys `$1` that are there.
pub(crate) fn count_keys(schema: &Ident, table: &Ident) -> String {
    format!("select count(*) from {schema}.{table} where id = any($1::text[])")
}

/// The table in the shape that is written to. `vector` is the type, with its schema if that is needed.
pub(crate) fn create_table(table: &Ident, vector: &str, dimensions: u16) -> String {
    format!(
        r#"create table if not exists {table} (
  id varchar(255) primary key,
  text text,
  embedding {vector}({dimensions}),
  "timestamp" timestamptz,
  source varchar(255),
  metadata jsonb
) with (fillfactor = {FILLFACTOR})"#
    )
}

/// How full inserts leave a page, in percent. The rest is for the next version of the rows on it: an update that stays
/// on the page touches no index (HOT), and an HNSW index is dear to touch.
///
/// Half is the most that leaves room for every row of a page once more, whatever its size. Measured with an update of
/// `text` in 10,000 rows of 384 dimensions: 50 and 60 hold two rows a page and all updates are HOT; 65 to 75 hold three,
/// a third are HOT (82 % when done in five transactions); 100 holds four, none is.
const FILLFACTOR: u8 = 50;
