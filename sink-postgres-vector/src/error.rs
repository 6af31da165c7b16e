//! A failure, told without the values that caused it.
//!
//! The driver's own error text holds the server's message and detail, and those quote rows ("Key (id)=(…) already
//! exists"). So nothing of it is passed on: the text is built anew from the SQLSTATE, a plain meaning, and the
//! names of constraint, table and column. The driver's error is not kept as a source either.

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::{
    class::{Class, classify_sqlstate, meaning},
    ident::Ident,
    options::ConnectOptions,
    tls,
};

/// What failed, why, and what to do about it. Holds no value of a row and no password, in `Debug` neither.
///
/// `Display` is one line: what was attempted, what came of it, and the SQLSTATE if there is one.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// Completes the sentence "could not …".
    action: Cow<'static, str>,
    target: Option<Arc<Target>>,
    cause: Cause,
    in_doubt: bool,
}

/// The server as configured, for texts.
#[derive(Debug)]
pub(crate) struct Target {
    host: String,
    port: u16,
    database: String,
    user: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// The server answered with an error.
    Server(ServerError),
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
    code: SqlState,
    /// The server ended the session with it.
    ended: bool,
    message: Option<String>,
    constraint: Option<String>,
    table: Option<String>,
    column: Option<String>,
}

impl Error {
    /// Wraps what the driver returned for SQL of the caller's own. `action` completes "could not …" and must hold
    /// no values. Inside a transaction [`Transaction::during`](crate::Transaction::during) says more.
    pub fn during(action: impl Into<Cow<'static, str>>, error: tokio_postgres::Error) -> Self {
        Self::new(action, Cause::of(&error))
    }

    pub(crate) fn new(action: impl Into<Cow<'static, str>>, cause: Cause) -> Self {
        Self(Box::new(Inner {
            action: action.into(),
            target: None,
            cause,
            in_doubt: false,
        }))
    }

    /// Names the server, for the remedy.
    pub(crate) fn at(mut self, target: &Arc<Target>) -> Self {
        self.0.target = Some(Arc::clone(target));
        self
    }

    /// Marks a commit that was sent and not answered. An answer that also ends the session proves nothing: a
    /// server that shuts down can say so after it has made the commit durable.
    pub(crate) fn after_commit_was_sent(mut self) -> Self {
        self.0.in_doubt = !matches!(&self.0.cause, Cause::Server(error) if !error.ended);
        self
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match &self.0.cause {
            Cause::Server(error) => classify_sqlstate(error.code.code()),
            Cause::Closed(_) | Cause::Io { .. } | Cause::Timeout(_) | Cause::ReadOnly => Class::Transient,
            Cause::Tls { .. } | Cause::Settings(_) => Class::Configuration,
            Cause::Program(_) => Class::Fatal,
        }
    }

    /// The server's code: of its answer, or of what it said when it ended the connection.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.0.cause {
            Cause::Server(error) => Some(&error.code),
            Cause::Closed(Some(cause)) => match &**cause {
                Cause::Server(error) => Some(&error.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a commit was sent and its outcome is not known. The caller finds out by reading, on a fresh
    /// connection, what it has written in the same transaction.
    pub fn is_in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// Whether nothing more can be sent on this connection.
    pub fn is_closed(&self) -> bool {
        match &self.0.cause {
            Cause::Server(error) => error.ended,
            Cause::Closed(_) | Cause::Io { .. } | Cause::Timeout(_) => true,
            Cause::ReadOnly | Cause::Tls { .. } | Cause::Settings(_) | Cause::Program(_) => false,
        }
    }

    /// How to fix it, as whole sentences. `None` if it passes by itself or nothing general can be said.
    pub fn remedy(&self) -> Option<String> {
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let target = self.0.target.as_deref();
        match &self.0.cause {
            Cause::Tls { remedy, .. } => Some(remedy.clone()),
            Cause::Settings(text) if text.contains("password") => {
                Some("Set the password. The server asks for one and none is configured.".to_owned())
            }
            Cause::Settings(_) => Some("Check the way to log in that pg_hba.conf asks for.".to_owned()),
            Cause::Io { .. } if target.is_some() => {
                Some("Check host and port, and that the server is running and can be reached from here.".to_owned())
            }
            Cause::ReadOnly => Some("Connect to the primary. Nothing can be written to a standby.".to_owned()),
            Cause::Server(error) => match error.code.code() {
                "3D000" => {
                    let create = target.and_then(|target| Ident::new(&*target.database).ok());
                    let create = create.map_or(String::new(), |name| format!(": create database {name};"));
                    Some(format!("Correct the name of the database, or create it{create}"))
                }
                "28P01" => Some("Correct the user or the password.".to_owned()),
                "28000" => Some(
                    "Check that the role exists and may log in, and that pg_hba.conf lets it in from here, with or \
                     without encryption as configured."
                        .to_owned(),
                ),
                "42501" => {
                    let role = target.and_then(|target| Ident::new(&*target.user).ok());
                    let role = role.map_or("the role".to_owned(), |role| role.to_string());
                    Some(format!(
                        "Grant {role} the right: usage on the schemas; select, insert, update and delete on the tables."
                    ))
                }
                "42P01" | "42703" | "42704" | "42883" | "42P10" | "3F000" => Some(
                    "The schema has changed since it was checked, or migrations are missing. Apply the migrations and \
                     check the table again."
                        .to_owned(),
                ),
                "26000" | "42P05" => Some(
                    "A pooler between here and the server mixes sessions. Connect to the server directly, or use \
                     session pooling."
                        .to_owned(),
                ),
                "53100" => Some("Free space on the server's disk.".to_owned()),
                "53300" => Some("Raise max_connections on the server, or close other connections.".to_owned()),
                "23505" => Some(format!(
                    "The table has a second unique key, {}, that these rows break. Drop it, or correct the rows.",
                    name(&error.constraint)
                )),
                "23514" | "23503" | "23502" => {
                    Some("Correct the rows, or relax the constraint on the table.".to_owned())
                }
                _ => None,
            },
            Cause::Closed(_) | Cause::Io { .. } | Cause::Timeout(_) | Cause::Program(_) => None,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.0.action)?;
        write!(f, ": {}", self.0.cause)?;
        if self.0.in_doubt {
            f.write_str("; whether it took effect is not known")?;
        }
        Ok(())
    }
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
        let Self {
            host,
            port,
            database,
            user,
        } = self;
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
            return Self::Server(ServerError::of(error));
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
            ("timeout waiting for server", ..) => Self::Io {
                text: "the server did not answer in time".to_owned(),
            },
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
        let name = |name: Option<&str>| name.map(str::to_owned);
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
    matches!(
        error.code().code().get(..2),
        Some("08" | "28" | "3D" | "53" | "57" | "58")
    ) && error.where_().is_none()
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
        let names = [
            ("constraint", &self.constraint),
            ("table", &self.table),
            ("column", &self.column),
        ];
        for (what, name) in names {
            if let Some(name) = name {
                write!(f, ", {what} {name}")?;
            }
        }
        f.write_str(")")
    }
}
