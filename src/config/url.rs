//! A PostgreSQL URL in its parts.
//!
//! No complaint quotes the URL: where it cannot be split, any part of it may be the password.

use crate::framework::secret::Secret;

/// What a URL may say. Each part may be absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PostgresUrl {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) database: Option<String>,
    pub(super) sslmode: Option<String>,
}

/// What is wrong and how to mend it.
pub(super) type Complaint = (&'static str, &'static str);

const ENCODE: &str = "percent-encode special characters in it, or use `host`, `user` and `password`";

impl PostgresUrl {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(("this is no PostgreSQL URL", "write `postgres://user@host:5432/database`"))?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // An `@` further right means that the password holds a `/` or a `?`.
        if database.contains('@') || query.is_some_and(|query| query.contains('@')) {
            return Err(("the password in the URL holds a `/` or a `?`", ENCODE));
        }
        let mut url = Self::default();
        let server = match authority.rsplit_once('@') {
            Some((login, server)) => {
                let (user, password) = login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)));
                url.user = decode(user)?;
                url.password = password.map(decode).transpose()?.flatten().map(Secret::new);
                server
            }
            None => authority,
        };
        url.read_server(server)?;
        url.database = decode(database)?;
        url.read_query(query.unwrap_or_default())?;
        Ok(url)
    }

    fn read_server(&mut self, server: &str) -> Result<(), Complaint> {
        if server.contains(',') {
            return Err((
                "the URL names several servers, and the connector writes to one",
                "name the primary",
            ));
        }
        let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, Some(rest.strip_prefix(':').ok_or(HOST)?)),
            None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
        };
        self.port = port.map(read_port).transpose()?;
        self.host = decode(host)?;
        self.host.as_deref().map_or(Ok(()), |host| host_complaint(host).map_or(Ok(()), Err))
    }

    fn read_query(&mut self, query: &str) -> Result<(), Complaint> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) if self.sslmode.is_none() => self.sslmode = decode(mode)?,
                Some(("sslmode", _)) => return Err(("the URL gives `sslmode` twice", "keep one")),
                _ => {
                    let what = "the URL has a parameter that the connector does not know";
                    return Err((what, "remove it; `sslmode` is the only one that is understood"));
                }
            }
        }
        Ok(())
    }
}

const HOST: Complaint =
    ("the host cannot be used", "give a host name, an address, or the folder of a Unix socket");

/// What is wrong with the host. An absolute path is the folder of a Unix socket.
pub(super) fn host_complaint(host: &str) -> Option<Complaint> {
    if host.contains("://") {
        return Some(("the host is a URL", "move it to `url`"));
    }
    if host.starts_with('/') {
        return host.contains('\0').then_some(HOST);
    }
    if host.contains(',') {
        return Some(("it names several servers, and the connector writes to one", "name the primary"));
    }
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if host.contains(':') && !is_address {
        return Some(("the host holds a port", "move the port to `port`"));
    }
    let is_name = host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
    (!is_address && !is_name).then_some(HOST)
}

fn read_port(port: &str) -> Result<u16, Complaint> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err((
            "the port in the URL is no number from 1 to 65535, or the password holds a special character",
            ENCODE,
        )),
    }
}

/// The text with each `%41` replaced, or nothing when it is empty.
fn decode(text: &str) -> Result<Option<String>, Complaint> {
    const ODD: Complaint =
        ("a `%` in the URL is not followed by two hexadecimal digits of UTF-8", "write `%25` for `%`");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.ok_or(ODD)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| ODD)?;
    if text.contains('\0') {
        return Err(("the URL holds a NUL", "remove it"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}
