//! Where to connect, and how.

use std::{fmt, path::PathBuf, time::Duration};

/// Where to connect, as whom, and how. Everything here is plain data; nothing is read or resolved before
/// [`Connection::open`](crate::Connection::open).
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// A name, an address, or the directory of a Unix socket (it then begins with `/`).
    pub host: String,
    /// The TCP port, or the number in the name of the socket file.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role to connect as.
    pub user: String,
    /// The password, if the server asks for one.
    pub password: Option<Password>,
    /// Encryption. Not used on a Unix socket, where PostgreSQL knows none.
    pub tls: Tls,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// How long opening may take altogether: name lookup, TCP, TLS, authentication and the first query.
    pub connect_timeout: Duration,
    /// How long the server may work on one statement of a transaction. The answer is awaited 15 s longer, and as long
    /// as sending takes at 256 KiB/s.
    pub statement_timeout: Duration,
    /// Whether the statements that come with each batch are prepared once per connection, which saves parsing and planning. A
    /// pooler in transaction mode needs `false`: then no statement has a name, and no setting outlives a transaction.
    pub prepared: bool,
}

/// A password. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the password as it is; an empty one is a password too.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Encryption of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// What is verified.
    pub mode: TlsMode,
    /// A PEM file with the certificates of the authorities to trust. `None`: those of this machine.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a server that asks who connects. `None`: nothing.
    pub client: Option<ClientCertificate>,
}

/// A certificate of the client, for servers whose `pg_hba.conf` asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A PEM file: the certificate first, then those between it and the authority.
    pub cert_file: PathBuf,
    /// A PEM file of its private key, which is not encrypted.
    pub key_file: PathBuf,
}

/// What is verified about the server before anything is sent to it.
///
/// There is no `prefer`: falling back to plain text unasked is no protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encryption, but nothing is verified: whoever answers is believed. A warning is logged once.
    Require,
    /// The certificate must come from a trusted authority; the name in it is not compared.
    VerifyCa,
    /// The certificate must come from a trusted authority and be made out to the host.
    VerifyFull,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_in_debug_output() {
        let options = ConnectOptions {
            host: "localhost".into(),
            port: 5432,
            database: "d".into(),
            user: "u".into(),
            password: Some(Password::new("canary")),
            tls: Tls { mode: TlsMode::Disable, ca_file: None, client: None },
            application_name: "a".into(),
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(1),
            prepared: true,
        };
        assert!(!format!("{options:?}").contains("canary"));
    }
}
