//! The extension pgvector, as it is installed in one database.

use tokio_postgres::{
    Client, Error,
    types::{Kind, Oid, Type},
};

use crate::ident::Ident;

/// Where the extension lives, and its types. Their numbers differ from database to database.
#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) schema: Ident,
    /// The role may use what is in the schema.
    pub(crate) usable: bool,
    pub(crate) vector: Type,
    pub(crate) vector_array: Type,
}

const FIND: &str = "
select n.nspname, t.oid, t.typarray, pg_catalog.has_schema_privilege(n.oid, 'usage')
from pg_catalog.pg_extension e
join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_extension'::regclass and d.refobjid = e.oid
     and d.classid = 'pg_catalog.pg_type'::regclass and d.deptype = 'e'
join pg_catalog.pg_type t on t.oid = d.objid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where e.extname = 'vector' and t.typname = 'vector'";

impl Extension {
    /// Looks it up; `None` if this database does not have it.
    pub(crate) async fn find(client: &Client) -> Result<Option<Self>, Error> {
        let Some(row) = client.query_typed_opt(FIND, &[]).await? else {
            return Ok(None);
        };
        let schema: String = row.try_get(0)?;
        let (vector, array): (Oid, Oid) = (row.try_get(1)?, row.try_get(2)?);
        let vector = Type::new("vector".to_owned(), vector, Kind::Simple, schema.clone());
        let vector_array =
            Type::new("_vector".to_owned(), array, Kind::Array(vector.clone()), schema.clone());
        let schema = Ident::new(schema).expect("a name from the catalog is a name");
        Ok(Some(Self { schema, usable: row.try_get(3)?, vector, vector_array }))
    }
}
