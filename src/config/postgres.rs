//! `embedsink.sink.postgres`: the URL, the keys and the environment joined into one place to connect to.

use std::path::Path;
use std::time::Duration;

use super::field::{Field, join};
use super::file;
use super::problem::{Origin, Position, Report, quote};
use super::quantity::Limits;
use super::section::Section;
use super::settings::{MigrateMode, PostgresSettings};
use super::tls;
use super::url::{PostgresUrl, host_complaint};
use crate::framework::secret::Secret;

const STATEMENT_TIMEOUT: Limits<Duration> = Limits {
    least: Duration::from_secs(1),
    most: Duration::from_secs(3600),
    why: "a batch needs time to be written, but a server that hangs must be found out",
};
const PORT: Limits<u32> = Limits { least: 1, most: 65_535, why: "TCP has no other ports" };

/// Reads the section. Relative paths start at `folder`.
pub(super) fn read(
    postgres: &Section<'_>,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<PostgresSettings> {
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let given = Given { postgres, url: read_url(postgres, report), environment: &environment };

    let host = given.text("host", |url| url.host.clone(), "PGHOST", report);
    let host = host.and_then(|host| host.or_else(|| given.missing("host", "PGHOST", report)));
    let port = read_port(&given, report);
    let database = given.text("database", |url| url.database.clone(), "PGDATABASE", report);
    let database = database.and_then(|name| name.or_else(|| given.missing("database", "PGDATABASE", report)));
    let user = given.text("user", |url| url.user.clone(), "PGUSER", report);
    let user = user.and_then(|name| name.or_else(|| given.missing("user", "PGUSER", report)));
    let password = read_password(&given, folder, report);

    let tls = tls::read(&given, host.as_deref(), folder, report);
    let migrate = match postgres.get("migrate") {
        Some(field) => field.choice(&[("auto", MigrateMode::Auto), ("manual", MigrateMode::Manual)], report),
        None => Some(MigrateMode::default()),
    };
    let prepared = match postgres.get("prepared") {
        Some(field) => field.boolean(report),
        None => Some(true),
    };
    let statement_timeout = match postgres.get("statement-timeout") {
        Some(field) => field.duration(&STATEMENT_TIMEOUT, report),
        None => Some(Duration::from_secs(120)),
    };
    given.url.as_ref().ok()?;
    Some(PostgresSettings {
        host: host?,
        port: port?,
        database: database?,
        user: user?,
        password: password?,
        tls: tls?,
        migrate: migrate?,
        prepared: prepared?,
        statement_timeout: statement_timeout?,
    })
}

/// The URL could not be used. That has been reported, and what it may have said counts as given.
pub(super) struct BadUrl;

fn read_url(postgres: &Section<'_>, report: &mut Report) -> Result<PostgresUrl, BadUrl> {
    let Some(field) = postgres.get("url") else {
        return Ok(PostgresUrl::default());
    };
    let text = field.text(report).ok_or(BadUrl)?;
    PostgresUrl::parse(text).map_err(|(what, fix)| {
        field.complain(report, what, fix);
        BadUrl
    })
}

/// The three places where a value may be given.
pub(super) struct Given<'f, 'a> {
    pub(super) postgres: &'f Section<'a>,
    pub(super) url: Result<PostgresUrl, BadUrl>,
    pub(super) environment: &'f dyn Fn(&str) -> Option<String>,
}

impl Given<'_, '_> {
    /// The value of `key`: from its key or from the URL, which must agree, else from the environment. `None`
    /// when it is wrong, `Some(None)` when nobody gives one.
    fn text(
        &self,
        key: &'static str,
        in_url: impl Fn(&PostgresUrl) -> Option<String>,
        variable: &'static str,
        report: &mut Report,
    ) -> Option<Option<String>> {
        let in_url = self.url.as_ref().ok().and_then(in_url);
        let Some(field) = self.postgres.get(key) else {
            let found = match &in_url {
                Some(_) => in_url.clone(),
                None => self.fill_in(key, variable, report)?,
            };
            if let Some(value) = &found {
                let origin = in_url.as_ref().and(self.url_at()).map(Origin::Url);
                let shown = (key != "password").then(|| value.clone());
                let path = join(&self.postgres.path, key);
                report.resolve(path, shown, origin.unwrap_or(Origin::Environment(variable)));
            }
            return Some(found);
        };
        let value = field.text(report)?;
        if key == "host"
            && let Some((what, fix)) = host_complaint(value)
        {
            field.complain(report, what, fix);
            return None;
        }
        if in_url.is_some_and(|in_url| in_url != value) {
            contradiction(field, report);
            return None;
        }
        Some(Some(value.to_owned()))
    }

    /// Where the URL stands, if there is one.
    pub(super) fn url_at(&self) -> Option<Position> {
        self.postgres.get("url").map(|field| field.key_at)
    }

    fn fill_in(&self, key: &str, variable: &'static str, report: &mut Report) -> Option<Option<String>> {
        // What an unreadable URL says is not known, so nothing may stand in for it.
        self.url.as_ref().ok()?;
        let value = (self.environment)(variable);
        if key == "host"
            && let Some((what, fix)) = value.as_deref().and_then(host_complaint)
        {
            let what = format!("from the environment variable {}: {what}", quote(variable));
            report.add(self.postgres.at, &join(&self.postgres.path, key), what, fix);
            return None;
        }
        Some(value)
    }

    fn missing(&self, key: &str, variable: &str, report: &mut Report) -> Option<String> {
        let fix = format!("add it, or name it in `url`, or set the environment variable {}", quote(variable));
        report.add(self.postgres.at, &join(&self.postgres.path, key), "missing", fix);
        None
    }
}

/// Reports a key that says something else than the URL.
pub(super) fn contradiction(field: &Field<'_>, report: &mut Report) {
    field.complain(report, "contradicts `url`, which says something else", "keep one of them");
}

/// The password, or its file. `None` when it is wrong, `Some(None)` when nobody gives one.
fn read_password(given: &Given<'_, '_>, folder: &Path, report: &mut Report) -> Option<Option<Secret>> {
    let in_url = |url: &PostgresUrl| url.password.as_ref().map(|password| password.expose().to_owned());
    let Some(field) = given.postgres.get("password-file") else {
        return given
            .text("password", in_url, "PGPASSWORD", report)
            .map(|password| password.map(Secret::new));
    };
    let elsewhere = if given.postgres.get("password").is_some() {
        Some("contradicts `password`, which gives one too")
    } else if given.url.as_ref().is_ok_and(|url| url.password.is_some()) {
        Some("contradicts `url`, which holds a password")
    } else {
        None
    };
    if let Some(what) = elsewhere {
        field.complain(report, what, "keep one of them");
        return None;
    }
    file::password(field, folder, report).map(Some)
}

fn read_port(given: &Given<'_, '_>, report: &mut Report) -> Option<u16> {
    let in_url = given.url.as_ref().ok().and_then(|url| url.port);
    if let Some(field) = given.postgres.get("port") {
        let port = u16::try_from(field.count(&PORT, report)?).ok()?;
        if in_url.is_some_and(|in_url| in_url != port) {
            contradiction(field, report);
            return None;
        }
        return Some(port);
    }
    let path = join(&given.postgres.path, "port");
    let (port, origin) = match (in_url.zip(given.url_at()), (given.environment)("PGPORT")) {
        (Some((port, at)), _) => (port, Origin::Url(at)),
        (None, None) => (5432, Origin::Default),
        (None, Some(text)) => match text.parse::<u16>().ok().filter(|port| *port > 0) {
            Some(port) => (port, Origin::Environment("PGPORT")),
            None => {
                let what = "the environment variable `PGPORT` is no port";
                report.add(given.postgres.at, &path, what, "set it to 1 to 65535, or add `port`");
                return None;
            }
        },
    };
    report.resolve(path, Some(port.to_string()), origin);
    Some(port)
}
