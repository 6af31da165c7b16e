//! Why something failed, read from the driver's error and rid of values.

use std::{fmt, io, time::Duration};

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::{class::meaning, options::ConnectOptions, tls};

/// The server as configured, for texts.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// The server answered with an error.
    Server(Box<ServerError>),
    /// The connection is gone; what ended it, if the driver saw that.
    Closed(Option<Box<Cause>>),
    /// The system could not connect, send or receive.
    Io { text: String },
    /// No answer within the time we allow.
    Timeout(Duration),
    /// A standby answered where a primary is needed.
    ReadOnly,
    /// No trust or no encryption, and how to get it.
    Tls { text: String, remedy: String },
    /// Settings that cannot work, such as a missing password.
    Settings(String),
    /// The program or the protocol is wrong.
    Program(String),
}

#[derive(Clone, Debug)]
pub(crate) struct ServerError {
    pub(crate) code: SqlState,
    /// The server ended the session with it.
    pub(crate) ended: bool,
    message: Option<String>,
    pub(crate) constraint: Option<String>,
    table: Option<String>,
    column: Option<String>,
}

impl Target {
    pub(crate) fn of(options: &ConnectOptions) -> Self {
        Self {
            host: options.host.clone(),
            port: options.port,
            database: options.database.clone(),
            user: options.user.clone(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, database, user } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}/{database} as {user}"),
            false => write!(f, "{host}:{port}/{database} as {user}"),
        }
    }
}

impl Cause {
    /// Reads the driver's error. Its kind is private, so beside the downcasts the fixed texts of the kinds decide.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            return Self::Server(Box::new(ServerError::of(error)));
        }
        if error.is_closed() {
            return Self::Closed(None);
        }
        let kind = error.to_string();
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        match (kind.as_str(), source, io) {
            ("error performing TLS handshake", source, io) => tls::cause(source, io),
            // `target_session_attrs=read-write` met a standby.
            ("error connecting to server", _, Some(io))
                if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() =>
            {
                Self::ReadOnly
            }
            ("timeout waiting for server", ..) => {
                Self::Io { text: "the server did not answer in time".to_owned() }
            }
            ("invalid configuration" | "authentication error", Some(source), _) => {
                Self::Settings(source.to_string())
            }
            ("error encoding message to server", ..) => {
                Self::Program("the statement is too large to send".to_owned())
            }
            (_, _, Some(io)) => Self::Io { text: io.to_string() },
            _ => Self::Program(kind),
        }
    }
}

impl ServerError {
    fn of(error: &DbError) -> Self {
        // What a function raises may call itself as it likes, and by a value of the row.
        let is_raised = error.where_().is_some();
        let name = |name: Option<&str>| name.filter(|_| !is_raised).map(str::to_owned);
        Self {
            code: error.code().clone(),
            ended: matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic)),
            message: is_about_the_server(error).then(|| error.message().to_owned()),
            constraint: name(error.constraint()),
            table: name(error.table()),
            column: name(error.column()),
        }
    }
}

/// Whether the message speaks of the server and cannot quote a row: connection, login, resources. One that
/// comes from inside a function, which could raise any code with any text, says so by its context.
fn is_about_the_server(error: &DbError) -> bool {
    matches!(error.code().code().get(..2), Some("08" | "28" | "3D" | "53" | "57" | "58"))
        && error.where_().is_none()
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Closed(None) => f.write_str("the connection is closed"),
            Self::Closed(Some(cause)) => write!(f, "the connection is closed: {cause}"),
            Self::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::ReadOnly => f.write_str("the server is read-only"),
            Self::Io { text } | Self::Tls { text, .. } | Self::Settings(text) | Self::Program(text) => {
                f.write_str(text)
            }
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(meaning(self.code.code()))?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        write!(f, " (SQLSTATE {}", self.code.code())?;
        let names = [("constraint", &self.constraint), ("table", &self.table), ("column", &self.column)];
        for (what, name) in names {
            if let Some(name) = name {
                write!(f, ", {what} {name}")?;
            }
        }
        f.write_str(")")
    }
}
