//! A failure, told without the values that caused it.
//!
//! The driver's own error text holds the server's message and detail, and those quote rows ("Key (id)=(…) already
//! exists"). So nothing of it is passed on: the text is built anew from the SQLSTATE, a plain meaning, and the
//! names of constraint, table and column. The driver's error is not kept as a source either.

use std::{borrow::Cow, fmt, sync::Arc};

use tokio_postgres::error::SqlState;

use crate::{
    cause::{Cause, Target},
    class::{Class, classify},
    ident::Ident,
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
    /// What to do if a right was missing.
    grant: Option<String>,
}

impl Error {
    /// Wraps what the driver returned for SQL of the caller's own. `action` completes "could not …" and must hold
    /// no values. Inside a transaction [`Transaction::during`](crate::Transaction::during) says more.
    pub fn during(action: impl Into<Cow<'static, str>>, error: tokio_postgres::Error) -> Self {
        Self::new(action, Cause::of(&error))
    }

    pub(crate) fn new(action: impl Into<Cow<'static, str>>, cause: Cause) -> Self {
        Self(Box::new(Inner { action: action.into(), target: None, cause, in_doubt: false, grant: None }))
    }

    /// Names the server, for the remedy.
    pub(crate) fn at(mut self, target: &Arc<Target>) -> Self {
        self.0.target = Some(Arc::clone(target));
        self
    }

    /// Says what to do if it failed for want of a right.
    pub(crate) fn unless_granted(mut self, remedy: impl FnOnce() -> String) -> Self {
        if self.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            self.0.grant = Some(remedy());
        }
        self
    }

    /// Marks a commit that was sent and not answered. An answer that also ends the session proves nothing: a
    /// server that shuts down can say so after it has made the commit durable. Nor does one about the connection.
    pub(crate) fn after_commit_was_sent(mut self) -> Self {
        let is_about_the_link = |code: &str| code.starts_with("08") || code == "40003";
        self.0.in_doubt = match &self.0.cause {
            Cause::Server(error) => error.ended || is_about_the_link(error.code.code()),
            _ => true,
        };
        self
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        classify(&self.0.cause)
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

    /// Whether a statement took longer than it may: by the server's limit, or by ours.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.cause, Cause::Timeout(_)) || self.sqlstate() == Some(&SqlState::QUERY_CANCELED)
    }

    /// How to fix it, as whole sentences. `None` if it passes by itself or nothing general can be said.
    pub fn remedy(&self) -> Option<String> {
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let target = self.0.target.as_deref();
        let cause = match &self.0.cause {
            // What the server said when it ended the connection.
            Cause::Closed(Some(ended)) if matches!(**ended, Cause::Server(_)) => ended,
            cause => cause,
        };
        match cause {
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
                "42501" => Some(self.0.grant.clone().unwrap_or_else(|| {
                    let name = |name: &str| Ident::new(name).map(|name| format!(" {name}"));
                    let role = target.and_then(|target| name(&target.user).ok()).unwrap_or_default();
                    let database = target.and_then(|target| name(&target.database).ok()).unwrap_or_default();
                    format!(
                        "Grant the role{role} what it lacks in the database{database}: usage on the schema, and select, \
                         insert, update or delete on the table. The checks at the next start name each missing grant."
                    )
                })),
                "25006" => Some("Connect to the primary. Nothing can be written to a standby.".to_owned()),
                "25P03" | "57014" => Some(
                    "The link or the server is too slow for a batch of this size. Write smaller batches \
                     (batch.max-bytes, batch.max-rows)."
                        .to_owned(),
                ),
                "42P01" | "42703" | "42704" | "42883" | "42P10" | "3F000" => Some(
                    "The schema has changed since it was checked, or migrations are missing. Apply the migrations and \
                     check the table again."
                        .to_owned(),
                ),
                "26000" | "42P05" => Some(
                    "A pooler between here and the server mixes sessions. Set `prepared: false`, connect to the server \
                     directly, or use session pooling."
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cause::ServerError;

    #[test]
    fn a_commit_is_in_doubt_unless_the_server_has_refused_it_and_stays() {
        let server = |code, ended| Cause::Server(Box::new(ServerError::bare(code, ended)));
        for (cause, in_doubt) in [
            (server("23503", false), false),
            (server("40001", false), false),
            (server("25P02", false), false),
            (server("57P01", true), true),
            (server("08P01", false), true),
            (server("40003", false), true),
            (Cause::Closed(None), true),
            (Cause::Io { text: String::new() }, true),
            (Cause::Timeout(Duration::ZERO), true),
            (Cause::Program(String::new()), true),
        ] {
            let text = format!("{cause:?}");
            assert_eq!(Error::new("commit", cause).after_commit_was_sent().is_in_doubt(), in_doubt, "{text}");
        }
    }
}
