//! The text of the statements, as pure functions of names.

use crate::{ident::Ident, overwrite::Overwrite};

/// One statement for a whole batch: six arrays in, rows inserted or updated.
///
/// * The `where` keeps an unchanged row as it is: no new version, no WAL.
/// * `case … else t.x` hands a value that has not changed back as it is stored. A value outside the page (TOAST) then
///   keeps its place, and the update can stay on the page (HOT), so that no index is touched.
/// * `unnest` stands in the select list, once per array: as a table it would first store all rows (7 % slower).
/// * The extension may live in a schema outside the search path, so vector's operator is named with it.
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
    let unless_kept = match overwrite {
        Overwrite::Always => "",
        Overwrite::NotNewer => {
            r#"
  and (t."timestamp" is null or t."timestamp" <= excluded."timestamp")"#
        }
        Overwrite::Older => {
            r#"
  and t."timestamp" < excluded."timestamp""#
        }
    };
    upsert + unless_kept
}

/// The rows with these keys as they are stored, all of them as one value: each as `record_send` writes it, one behind the other. `null`
/// where there are none. Of texts no more comes than is asked for: what is longer is not what it is compared with.
///
/// One value, for PostgreSQL sends a larger one in one go and many small ones by 8 KB, of which each wakes the receiver. All keys are asked
/// for at once; one by one, as in a join with the rows that are to be written, they took three times as long to find.
pub(crate) fn stored(schema: &Ident, table: &Ident) -> String {
    // The bytes of a text are known, and its characters have to be counted. Metadata becomes a text only here, and once.
    let beginning = |column: &str, limit: &str| {
        format!(
            "case when pg_catalog.octet_length({column}::text) operator(pg_catalog.<=) {limit} then {column}::text \
             else pg_catalog.left({column}::text, {limit}) end"
        )
    };
    let (text, source) = (beginning("text", "$2::int4"), beginning("source", "$3::int4"));
    format!(
        r#"select pg_catalog.string_agg(pg_catalog.record_send(row(
  id::text, embedding, {text}, "timestamp"::timestamptz,
  {source}, pg_catalog.left(metadata::text, $4::int4))), ''::bytea)
from {schema}.{table} where id = any($1::text[])"#
    )
}

/// Takes rows that are new, in COPY's binary form.
pub(crate) fn copy(schema: &Ident, table: &Ident) -> String {
    format!(
        r#"copy {schema}.{table} (id, text, embedding, "timestamp", source, metadata) from stdin (format binary)"#
    )
}

/// Counts, of the rows `$1` that come with the timestamps `$2`, those that [`Overwrite::NotNewer`] leaves alone. Right
/// behind the upsert it is exact: that has locked every row, also those it left alone.
pub(crate) fn count_newer(schema: &Ident, table: &Ident) -> String {
    count(schema, table, r#"t."timestamp" is not null and (r.at is null or t."timestamp" > r.at)"#)
}

/// The same for [`Overwrite::Older`]. What the upsert has written is among them: it is as new as itself.
pub(crate) fn count_not_older(schema: &Ident, table: &Ident) -> String {
    count(schema, table, r#"(t."timestamp" < r.at) is not true"#)
}

fn count(schema: &Ident, table: &Ident, condition: &str) -> String {
    format!(
        "select count(*)
from (select unnest($1::text[]) as id, unnest($2::timestamptz[]) as at) as r
join {schema}.{table} as t on t.id = r.id
where {condition}"
    )
}

/// Deletes by key. Keys that are not there are no error.
pub(crate) fn delete(schema: &Ident, table: &Ident, overwrite: Overwrite) -> String {
    let condition = match overwrite {
        Overwrite::Always => return format!("delete from {schema}.{table} where id = any($1::text[])"),
        Overwrite::NotNewer => r#"(t."timestamp" is null or r.at is null or t."timestamp" <= r.at)"#,
        Overwrite::Older => r#"t."timestamp" < r.at"#,
    };
    format!(
        "delete from {schema}.{table} as t
using (select unnest($1::text[]) as id, unnest($2::timestamptz[]) as at) as r
where t.id = r.id and {condition}"
    )
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
