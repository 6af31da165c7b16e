//! A database per test.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Config, NoTls};

use super::servers;

/// An empty database. Dropping it drops it on the server, whoever is still connected.
pub(crate) struct Database {
    port: u16,
    name: String,
}

impl Database {
    /// Creates one on the common server.
    pub(crate) async fn create() -> Self {
        Self::create_on(servers::postgres_port()).await
    }

    /// Creates one on the server at `port`.
    pub(crate) async fn create_on(port: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("embedsink_{}_{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = connect(port, "postgres").await.unwrap();
        run(&server, &format!("create database {name} template template0 encoding 'utf8'")).await;
        Self { port, name }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What stands under `url` in a configuration.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// A new session.
    ///
    /// # Panics
    /// When the server does not let us in.
    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    /// A new session, if the server can be reached.
    pub(crate) async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(self.port, &self.name).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (port, sql) = (self.port, format!("drop database if exists {} with (force)", self.name));
        // The test's runtime cannot wait inside of a drop.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                run(&connect(port, "postgres").await.unwrap(), &sql).await;
            });
        });
        if dropped.join().is_err() {
            eprintln!("the database {} was left behind", self.name);
        }
    }
}

async fn connect(port: u16, database: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname(database);
    let (client, connection) = config.application_name("embedsink tests").connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            println!("a session of the test ended: {error}");
        }
    });
    Ok(client)
}

/// Runs statements.
pub(crate) async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap();
}

/// The first column of the only row.
pub(crate) async fn one<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// How many records are settled, over all partitions; 0 before the connector has made its schema.
pub(crate) async fn settled(client: &Client) -> i64 {
    let sum =
        client.query_one("select coalesce(sum(next_offset), 0)::int8 from embedsink.offsets", &[]).await;
    sum.map_or(0, |row| row.get(0))
}

/// The stored positions of a topic, by partition.
pub(crate) async fn positions(client: &Client, topic: &str) -> Vec<(i32, i64)> {
    let sql = "select partition, next_offset from embedsink.offsets where topic = $1 order by partition";
    let rows = client.query(sql, &[&topic]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
