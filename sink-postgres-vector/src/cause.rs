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
        Self::of_client(&error.to_string(), std::error::Error::source(error))
    }

    /// Reads a warning that the session ends.
    pub(crate) fn of_farewell(notice: &DbError) -> Self {
        Self::Server(Box::new(ServerError { ended: true, ..ServerError::of(notice) }))
    }

    /// Reads what the driver found out by itself: no code of the server, which does not yet mean a lost connection.
    fn of_client(kind: &str, source: Option<&(dyn std::error::Error + 'static)>) -> Self {
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        match (kind, source, io) {
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
            ("error connecting to server", _, Some(io)) => Self::Io { text: io.to_string() },
            ("error communicating with the server", _, Some(io)) => Self::of_link(io),
            _ => Self::Program(kind.to_owned()),
        }
    }

    /// Reads how sending or receiving failed. Rows are under way then, so only fixed texts are repeated: the system's,
    /// and those of TLS.
    fn of_link(error: &io::Error) -> Self {
        let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match of_tls {
            // With TLS 1.3 a server judges the client's certificate after the handshake.
            Some(rustls::Error::AlertReceived(alert)) if tls::is_about_a_certificate(*alert) => {
                tls::cause(None, Some(error))
            }
            Some(_) => Self::Io { text: error.to_string() },
            None if error.raw_os_error().is_some() => Self::Io { text: error.to_string() },
            None => match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                    Self::Program("the other side does not speak PostgreSQL's protocol".to_owned())
                }
                kind => Self::Io { text: kind.to_string() },
            },
        }
    }
}

impl ServerError {
    fn of(error: &DbError) -> Self {
        // What is raised inside a function may carry any text for a name.
        let name = |name: Option<&str>| name.filter(|_| error.where_().is_none()).map(str::to_owned);
        Self {
            code: error.code().clone(),
            ended: match error.parsed_severity() {
                Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
                // A pooler says it in words only, and in English.
                None => matches!(error.severity(), "FATAL" | "PANIC"),
            },
            message: is_about_the_server(error).then(|| error.message().to_owned()),
            constraint: name(error.constraint()),
            table: name(error.table()),
            column: name(error.column()),
        }
    }
}

#[cfg(test)]
impl ServerError {
    /// One with nothing but a code.
    pub(crate) fn bare(code: &str, ended: bool) -> Self {
        let code = SqlState::from_code(code);
        Self { code, ended, message: None, constraint: None, table: None, column: None }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::{Class, classify};

    fn of(kind: &str, source: impl std::error::Error + 'static) -> Cause {
        Cause::of_client(kind, Some(&source))
    }

    #[test]
    fn no_sqlstate_is_not_yet_a_lost_connection() {
        let lost = |kind| of("error communicating with the server", io::Error::from(kind));
        let alert = |alert| {
            let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            of("error communicating with the server", error)
        };
        for (cause, class) in [
            (lost(io::ErrorKind::ConnectionReset), Class::Transient),
            (lost(io::ErrorKind::BrokenPipe), Class::Transient),
            (lost(io::ErrorKind::TimedOut), Class::Transient),
            (lost(io::ErrorKind::UnexpectedEof), Class::Transient),
            (alert(rustls::AlertDescription::InternalError), Class::Transient),
            (alert(rustls::AlertDescription::CertificateRequired), Class::Configuration),
            (lost(io::ErrorKind::InvalidData), Class::Fatal),
            (lost(io::ErrorKind::InvalidInput), Class::Fatal),
            (
                of("error connecting to server", io::Error::other("failed to lookup address")),
                Class::Transient,
            ),
            (
                of("error connecting to server", io::Error::from(io::ErrorKind::ConnectionRefused)),
                Class::Transient,
            ),
            (
                of("error connecting to server", io::Error::from(io::ErrorKind::PermissionDenied)),
                Class::Transient,
            ),
            (Cause::of_client("timeout waiting for server", None), Class::Transient),
            (
                of("error parsing response from server", io::Error::from(io::ErrorKind::UnexpectedEof)),
                Class::Fatal,
            ),
            (of("error encoding message to server", io::Error::other("too large")), Class::Fatal),
            (of("error serializing parameter 2", io::Error::other("a value")), Class::Fatal),
            (of("error deserializing column 0", io::Error::other("a value")), Class::Fatal),
            (Cause::of_client("unexpected message from server", None), Class::Fatal),
            (Cause::of_client("expected 2 parameters but got 3", None), Class::Fatal),
            (Cause::of_client("query returned an unexpected number of rows", None), Class::Fatal),
            (of("invalid configuration", io::Error::other("password missing")), Class::Configuration),
            (
                of("authentication error", io::Error::other("unsupported SASL mechanism")),
                Class::Configuration,
            ),
            (Cause::of_client("error performing TLS handshake", None), Class::Configuration),
        ] {
            assert_eq!(classify(&cause), class, "{cause:?}");
        }
    }

    #[test]
    fn what_became_of_the_connection_decides_where_no_code_does() {
        for (cause, class) in [
            (Cause::Closed(None), Class::Transient),
            (
                Cause::Closed(Some(Box::new(Cause::Server(Box::new(ServerError::bare("57P01", true)))))),
                Class::Transient,
            ),
            (Cause::Timeout(Duration::from_secs(1)), Class::Transient),
            (Cause::ReadOnly, Class::Transient),
            (Cause::Io { text: String::new() }, Class::Transient),
            (Cause::Tls { text: String::new(), remedy: String::new() }, Class::Configuration),
            (Cause::Settings(String::new()), Class::Configuration),
            (Cause::Program(String::new()), Class::Fatal),
        ] {
            assert_eq!(classify(&cause), class, "{cause:?}");
        }
    }

    #[test]
    fn the_driver_words_its_errors_as_we_read_them() {
        let error = "nonsense".parse::<tokio_postgres::Config>().unwrap_err();
        assert_eq!(error.to_string(), "invalid connection string");
        let error = tokio_postgres::Error::__private_api_timeout();
        assert!(
            matches!(Cause::of(&error), Cause::Io { text } if text == "the server did not answer in time")
        );
    }

    #[test]
    fn a_text_that_could_quote_what_was_sent_is_not_repeated() {
        for kind in [
            "error communicating with the server",
            "error encoding message to server",
            "error serializing parameter 2",
        ] {
            for inner in [io::ErrorKind::Other, io::ErrorKind::InvalidData, io::ErrorKind::BrokenPipe] {
                let cause = of(kind, io::Error::new(inner, "canary"));
                assert!(!format!("{cause} {cause:?}").contains("canary"), "{kind}: {cause}");
            }
        }
        let reset = of("error communicating with the server", io::Error::from_raw_os_error(104));
        assert!(reset.to_string().contains("reset"), "{reset}");
    }
}
