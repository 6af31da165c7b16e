//! The task that drives a connection, and how it comes to be.

use std::{
    future::poll_fn,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinHandle, spawn_blocking},
};
use tokio_postgres::{
    AsyncMessage, Client, NoTls, Socket,
    config::{SslMode, TargetSessionAttrs},
    error::{DbError, Severity},
};

use crate::{
    cause::Cause,
    options::{ConnectOptions, Password, TlsMode},
    tls,
};

/// How long the server's machine may be silent before the kernel gives the connection up: 5 s + 3 × 2 s when nothing
/// is under way, 15 s when something sent is not acknowledged.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// Settings of the session, so a pooler's sessions are spared them.
///
/// * The server sees within 5 s that we are gone, even in the middle of a statement, and frees the locks. Servers before
///   14 have no such setting.
/// * It finds rows by their keys: the plan of a prepared statement can be from when the table was so small that reading
///   it from end to end was faster.
/// * It does so by itself: no second process is called in for a few hundred rows.
/// * No limit of the server's on whole transactions ends the build of an index. Servers before 17 have none.
const SETTINGS: &str = "select set_config(name, case name when 'enable_seqscan' then 'off' \
                        when 'client_connection_check_interval' then '5s' else '0' end, false) \
                        from pg_catalog.pg_settings \
                        where name in ('client_connection_check_interval', 'enable_seqscan', \
                        'max_parallel_workers_per_gather', 'transaction_timeout')";

/// The task that moves bytes, and what ended it.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) task: JoinHandle<()>,
    pub(crate) end: Arc<OnceLock<Cause>>,
    /// The task was told to end. It does so only when it is its turn.
    given_up: AtomicBool,
}

impl Driver {
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.task.abort();
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects, logs in, and makes sure that the server can be written to. The caller sets the limit.
pub(crate) async fn connect(options: &ConnectOptions) -> Result<(Client, Driver), Cause> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&options.host)
        .port(options.port)
        .dbname(&options.database)
        .user(&options.user)
        .application_name(&options.application_name)
        .connect_timeout(options.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    if let Some(password) = &options.password {
        config.password(Password::reveal(password));
    }
    let socket = options.host.starts_with('/');
    let connector = if socket || options.tls.mode == TlsMode::Disable {
        None
    } else {
        let tls = options.tls.clone();
        let connector = spawn_blocking(move || tls::connector(&tls)).await;
        connector.map_err(|error| Cause::Program(error.to_string()))??
    };
    let (client, driver) = match connector {
        None => {
            let connected = config.ssl_mode(SslMode::Disable).connect(NoTls).await;
            let (client, connection) = connected.map_err(|error| Cause::of(&error))?;
            (client, spawn(connection))
        }
        Some(connector) => {
            let connected = config.ssl_mode(SslMode::Require).connect(connector).await;
            let (client, connection) = connected.map_err(|error| Cause::of(&error))?;
            (client, spawn(connection))
        }
    };
    if options.prepared {
        match client.batch_execute(SETTINGS).await {
            // A nicety: a server that refuses it, as some platforms do, can be written to all the same.
            Err(error) if is_refusal(&error) => {}
            noticed => noticed.map_err(|error| Cause::of(&error))?,
        }
    }
    Ok((client, driver))
}

/// Whether the server refused the statement and keeps the session.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// Whether the server is about to end the session without another word: it has lost a process of its own, or shuts down at once.
fn is_farewell(notice: &DbError) -> bool {
    matches!(notice.code().code(), "57P01" | "57P02") && notice.where_().is_none()
}

/// Drives by hand rather than by awaiting the connection: that would log the server's notices, and a notice of a
/// trigger can quote a row.
fn spawn<T>(mut connection: tokio_postgres::Connection<Socket, T>) -> Driver
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let end = Arc::new(OnceLock::new());
    let reason = Arc::clone(&end);
    let task = tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                // What a server says that ends all sessions at once, before it hangs up, is a warning.
                Ok(AsyncMessage::Notice(notice)) if is_farewell(&notice) => {
                    reason.get_or_init(|| Cause::of_farewell(&notice));
                }
                Ok(_) => {}
                Err(error) => {
                    // Set before the connection is dropped, so whoever waits for an answer can read it.
                    reason.get_or_init(|| Cause::of(&error));
                    break;
                }
            }
        }
    });
    Driver { task, end, given_up: AtomicBool::new(false) }
}
