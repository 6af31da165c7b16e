//! Building an index, by one program at a time.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::{IndexFound, IndexMethod, VectorIndex, definition::Create, estimate};
use crate::{connection::Connection, error::Error, options::ConnectOptions};

/// The upper half of the advisory lock that a build is done under, the text `embi` as a number; the lower half is the
/// table's oid.
pub(super) const LOCK: i64 = 0x656d_6269 << 32;

/// What a build may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Bytes for `maintenance_work_mem`, at most.
    pub maintenance_memory: u64,
    /// How many times to halve what the rows would take, for a server that has run out. Only a graph is built with less.
    pub halved: u32,
    /// Parallel workers at most. `None`: as many as the server's own setting lets it have.
    pub workers: Option<u16>,
}

/// An index that was built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Built {
    /// About how many rows it was built over.
    pub rows: f64,
    /// What `maintenance_work_mem` was set to, in bytes.
    pub maintenance_memory: u64,
    /// How long it took.
    pub took: Duration,
}

/// The turn to build one index, on a session of its own. It ends with this value, whatever happens: the session ends, and
/// what the server does for it within 5 s.
///
/// Over a pooler in transaction mode (`prepared: false`) nothing outlives a transaction. There all is one transaction,
/// and nobody else writes to the table until it is built.
#[derive(Debug)]
pub struct IndexBuild<'i> {
    index: &'i VectorIndex,
    connection: Connection,
    backend: i32,
    is_session: bool,
}

impl<'i> IndexBuild<'i> {
    /// Connects and takes the turn. `None` when somebody else has it.
    pub async fn begin(options: &ConnectOptions, index: &'i VectorIndex) -> Result<Option<Self>, Error> {
        let connection = Connection::open(options).await?;
        let is_session = options.prepared;
        let (begin, lock) = match is_session {
            // What it waits for are transactions that are older; meanwhile it keeps nobody from writing.
            true => ("set statement_timeout = 0; set lock_timeout = 0", "pg_try_advisory_lock"),
            false => (
                "begin; set local statement_timeout = 0; set local lock_timeout = '10s'; \
                 select set_config(name, case name when 'transaction_timeout' then '0' else '5s' end, true) \
                 from pg_catalog.pg_settings where name in ('client_connection_check_interval', 'transaction_timeout')",
                "pg_try_advisory_xact_lock",
            ),
        };
        let sql = format!(
            "select pg_catalog.{lock}($2::int8 | $1::text::pg_catalog.regclass::oid::int8), pg_catalog.pg_backend_pid()"
        );
        let table = index.qualified_table();
        let answer = async {
            connection.client().batch_execute(begin).await?;
            let values = [(&table as _, Type::TEXT), (&LOCK as _, Type::INT8)];
            let row = connection.client().query_typed_one(&sql, &values).await?;
            Ok((row.try_get::<_, bool>(0)?, row.try_get::<_, i32>(1)?))
        };
        let action = format!("take the turn to index {}", index.table);
        let (taken, backend) = connection.during(action, answer).await?;
        Ok(taken.then_some(Self { index, connection, backend, is_session }))
    }

    /// What is there, now that nobody else can change it.
    pub async fn find(&self) -> Result<IndexFound, Error> {
        self.index.find(&self.connection).await
    }

    /// Whether somebody builds an index on the table at the moment, by hand.
    pub async fn is_under_way(&self) -> Result<bool, Error> {
        Ok(self.index.progress(&self.connection).await?.is_some())
    }

    /// Drops ours, which a broken build has left. Takes as long as transactions last that may know it.
    ///
    /// `false`, and nothing is dropped, while somebody builds it by hand: dropping would wait for that, and then take
    /// an index that works.
    pub async fn drop_invalid(&self) -> Result<bool, Error> {
        if self.index.is_built_by_hand(&self.connection).await? {
            return Ok(false);
        }
        let concurrently = if self.is_session { "concurrently " } else { "" };
        let sql = format!("drop index {concurrently}if exists {}", self.index.qualified_name());
        let action = format!("drop the unfinished index {}", self.index.name);
        self.connection.at_leisure(action, self.connection.client().batch_execute(&sql)).await.map(|()| true)
    }

    /// Builds the index, which must not be there. It takes as long as it takes; writing goes on meanwhile, unless a pooler
    /// is in between or the table is empty.
    ///
    /// If it fails or the future is dropped, an invalid index can be left.
    pub async fn build(&self, limits: &BuildLimits) -> Result<Built, Error> {
        let (index, client) = (self.index, self.connection.client());
        let begun = Instant::now();
        let action = format!("build the index {}", index.name);
        let rows = self.connection.at_leisure(action.clone(), index.rows(client)).await?;
        let maintenance_memory = estimate::maintenance_memory(
            index.spec.method,
            rows,
            index.dimensions,
            limits.maintenance_memory,
        );
        let maintenance_memory = match index.spec.method {
            IndexMethod::Hnsw { .. } => maintenance_memory >> limits.halved,
            // It takes what its lists need or refuses.
            IndexMethod::Ivfflat { .. } => maintenance_memory,
        };
        // An empty table is indexed in no time; to do it concurrently would wait for every old transaction of the database.
        // The sample does not say that it is empty: a large table with a few rows can show none.
        let concurrently = self.is_session && index.has_rows(&self.connection).await?;
        let create = Create {
            schema: &index.schema,
            table: &index.table,
            extension: &index.extension,
            name: &index.name,
            spec: index.spec,
            rows,
            concurrently,
        };
        let local = if self.is_session { "" } else { "local " };
        let mut settings = format!("set {local}maintenance_work_mem = '{}kB'", maintenance_memory / 1024);
        if let Some(workers) = limits.workers {
            settings.push_str(&format!("; set {local}max_parallel_maintenance_workers = {workers}"));
        }
        if !concurrently {
            settings.push_str(&format!("; set {local}lock_timeout = '10s'"));
        }
        let answer = async {
            client.batch_execute(&settings).await?;
            client.batch_execute(&create.sql()).await?;
            if !self.is_session {
                client.batch_execute("commit").await?;
            }
            Ok(())
        };
        self.connection.at_leisure(action, answer).await?;
        Ok(Built { rows, maintenance_memory, took: begun.elapsed() })
    }

    /// The server's process that builds, for [`IndexBuild::cancel`].
    pub fn backend(&self) -> i32 {
        self.backend
    }

    /// Breaks the build of the process `backend` off, over another connection of the same role.
    pub async fn cancel(connection: &Connection, backend: i32) -> Result<(), Error> {
        let sql = "select pg_catalog.pg_cancel_backend($1::int4)";
        let values = [(&backend as _, Type::INT4)];
        let answer = connection.client().query_typed_one(sql, &values);
        connection.during("break the build of an index off", answer).await.map(|_| ())
    }

    /// Gives the turn back, in order.
    pub async fn end(self) {
        self.connection.close().await;
    }
}
