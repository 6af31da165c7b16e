//! A database per test.

pub(crate) mod random;
pub(crate) mod wire;

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use sink_postgres_vector::{
    ConnectOptions, Connection, Ident, Migration, Migrator, Overwrite, TableSpec, Tls, TlsMode, Transaction,
    Upserted, VectorRow, VectorTable,
};
use tokio::runtime;

pub(crate) static MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "bookkeeping",
    sql: include_str!("../../../migrations/0001_bookkeeping.sql"),
}];

/// An empty database. Dropping it drops it on the server, whoever is still connected.
pub(crate) struct Database {
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pgvector_{}_{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = Connection::open(&options("postgres")).await.unwrap();
        let create = format!("create database {name} template template0 encoding 'utf8'");
        server.client().batch_execute(&create).await.unwrap();
        Self { name }
    }

    /// One with the extension and the bookkeeping.
    pub(crate) async fn migrated() -> (Self, Connection) {
        let database = Self::create().await;
        let mut connection = database.connect().await;
        Migrator::new(MIGRATIONS).apply(&mut connection, &[]).await.unwrap();
        (database, connection)
    }

    /// One with a table `embeddings`, too.
    pub(crate) async fn with_table(dimensions: u16) -> (Self, Connection, VectorTable) {
        let database = Self::create().await;
        let mut connection = database.connect().await;
        let spec = spec(dimensions);
        Migrator::new(MIGRATIONS).apply(&mut connection, std::slice::from_ref(&spec)).await.unwrap();
        let table = VectorTable::check(connection.client(), &spec).await.unwrap();
        (database, connection, table)
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        options(&self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.options()).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database if exists {} with (force)", self.name);
        // The test's runtime cannot wait inside a drop.
        let dropped = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Connection::open(&options("postgres")).await.unwrap();
                server.client().batch_execute(&sql).await.unwrap();
            });
        });
        if dropped.join().is_err() {
            eprintln!("a test's database was left behind");
        }
    }
}

pub(crate) fn options(database: &str) -> ConnectOptions {
    ConnectOptions {
        host: "127.0.0.1".into(),
        port: std::env::var("POSTGRES_PORT").map_or(5432, |port| port.parse().unwrap()),
        database: database.into(),
        user: "postgres".into(),
        password: None,
        tls: Tls { mode: TlsMode::Disable, ca_file: None, client: None },
        application_name: "sink-postgres-vector tests".into(),
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(5 * 60),
        prepared: true,
    }
}

pub(crate) fn spec(dimensions: u16) -> TableSpec {
    TableSpec { name: Ident::new("embeddings").unwrap(), dimensions }
}

/// A row with everything in it but the embedding.
pub(crate) fn row<'a>(id: &'a str, text: &'a str, embedding: &'a [f32]) -> VectorRow<'a> {
    VectorRow {
        id,
        text: Some(text),
        embedding,
        timestamp: Some(1_704_067_200_000_000),
        source: Some("test"),
        metadata: Some(r#"{"lang": "en"}"#),
    }
}

/// The two ways of an upsert, which have to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Upsert,
    Differing,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Upsert, Self::Differing];

    pub(crate) async fn upsert(
        self,
        transaction: &mut Transaction<'_>,
        table: &VectorTable,
        rows: &[VectorRow<'_>],
        overwrite: Overwrite,
    ) -> Upserted {
        match self {
            Self::Upsert => transaction.upsert(table, rows, overwrite).await.unwrap(),
            Self::Differing => transaction.upsert_differing(table, rows, overwrite).await.unwrap().0,
        }
    }

    /// Writes the rows in a transaction of their own and says how many changed.
    pub(crate) async fn write(
        self,
        connection: &mut Connection,
        table: &VectorTable,
        rows: &[VectorRow<'_>],
    ) -> u64 {
        let mut transaction = connection.begin().await.unwrap();
        let upserted = self.upsert(&mut transaction, table, rows, Overwrite::Always).await;
        let _committed = transaction.commit().await.unwrap();
        upserted.changed
    }
}

/// Writes the rows by an upsert and says how many changed.
pub(crate) async fn write(connection: &mut Connection, table: &VectorTable, rows: &[VectorRow<'_>]) -> u64 {
    Way::Upsert.write(connection, table, rows).await
}

/// The first column of the first row.
pub(crate) async fn one<T>(connection: &Connection, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    connection.client().query_one(sql, &[]).await.unwrap().get(0)
}

pub(crate) async fn run(connection: &Connection, sql: &str) {
    connection.client().batch_execute(sql).await.unwrap();
}

/// Vectors that differ from each other, the same in every run.
pub(crate) fn vectors(count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 65_536.0 - 0.5
    };
    (0..count).map(|_| (0..dimensions).map(|_| next()).collect()).collect()
}
