//! `embedsink.sink.postgres.tls`, and what the URL and the environment say of the same.

use std::net::IpAddr;
use std::path::Path;

use super::field::{Field, join};
use super::file::{self, Pem};
use super::node::Value;
use super::postgres::{Given, contradiction};
use super::problem::{Origin, Report};
use super::section::Section;
use super::settings::{ClientSettings, TlsMode, TlsSettings};

const MODES: &[(&str, TlsMode)] = &[
    ("disable", TlsMode::Disable),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// Reads the section. `host` is where the connection goes, when that is known.
pub(super) fn read(
    given: &Given<'_, '_>,
    host: Option<&str>,
    folder: &Path,
    report: &mut Report,
) -> Option<TlsSettings> {
    let tls = given.postgres.section("tls", "embedsink.sink.postgres.tls", report);
    let named = tls.as_ref().map_or(Some(None), |tls| read_mode(tls, report));
    let in_url = read_mode_in_url(given, report);
    let in_environment = match (&tls, &given.url, &named, &in_url) {
        (Some(_), Ok(_), Some(None), Some(None)) => read_mode_in_environment(given, report),
        _ => Some(None),
    };
    let ca_field = tls.as_ref().and_then(|tls| tls.get("ca-file"));
    let ca_file = match ca_field {
        Some(field) => file::pem(field, folder, Pem::Certificate, report).map(Some),
        None => Some(None),
    };
    let client = tls.as_ref().map_or(Some(None), |tls| read_client(tls, folder, report));
    let client_field = tls.as_ref().and_then(|tls| tls.get("cert-file"));
    let (named, in_url, in_environment) = (named?, in_url?, in_environment?);
    let (ca_file, client) = (ca_file?, client?);
    if let (Some((mode, field)), Some((in_url, _))) = (&named, &in_url)
        && mode != in_url
    {
        contradiction(field, report);
        return None;
    }
    tls.as_ref()?;
    let (host, named) = (host?, named.or(in_url));
    let mode = match named.as_ref().map(|(mode, _)| *mode).or(in_environment) {
        Some(mode) => mode,
        // Whoever names an authority or shows a certificate wants the server verified, wherever it is.
        None if ca_file.is_none() && client.is_none() && is_local(host) => TlsMode::Disable,
        None => TlsMode::VerifyFull,
    };
    if tls.as_ref().is_none_or(|tls| tls.get("mode").is_none()) {
        let origin = match (&named, in_environment) {
            (Some(_), _) => given.url_at().map(Origin::Url),
            (None, Some(_)) => Some(Origin::Environment("PGSSLMODE")),
            (None, None) => None,
        };
        let word = MODES.iter().find(|(_, known)| *known == mode).map(|(word, _)| (*word).to_owned());
        let path = join(&given.postgres.path, "tls.mode");
        report.resolve(path, word, origin.unwrap_or(Origin::Default));
    }
    if host.starts_with('/') && mode != TlsMode::Disable {
        let what = "PostgreSQL speaks no TLS over a Unix socket";
        match named.as_ref().map(|(_, field)| *field).or(ca_field).or(client_field) {
            Some(field) => field.complain(report, what, "remove it, or name a TCP host"),
            None => complain_of_environment(
                given,
                format!("from {VARIABLE}: {what}"),
                "unset it, or name a TCP host",
                report,
            ),
        }
        return None;
    }
    if let Some(field) = ca_field
        && matches!(mode, TlsMode::Disable | TlsMode::Require)
    {
        let what = match named {
            None => format!("contradicts {VARIABLE}, which verifies no certificate"),
            Some(_) => "contradicts the TLS mode, which verifies no certificate".to_owned(),
        };
        field.complain(report, what, "use `verify-full` or `verify-ca`, or remove the file");
        return None;
    }
    if let Some(field) = client_field
        && mode == TlsMode::Disable
    {
        let whose = if named.is_none() { VARIABLE } else { "the TLS mode" };
        let what = format!("contradicts {whose}, which is `disable`: no certificate is shown without TLS");
        field.complain(report, what, "use another mode, or remove the files");
        return None;
    }
    Some(TlsSettings { mode, ca_file, client })
}

/// A mode and where it is given. `None` when it is wrong, `Some(None)` when nobody gives one.
type NamedMode<'f, 'a> = Option<Option<(TlsMode, &'f Field<'a>)>>;

fn read_mode<'f, 'a>(tls: &'f Section<'a>, report: &mut Report) -> NamedMode<'f, 'a> {
    let Some(field) = tls.get("mode") else {
        return Some(None);
    };
    if let Value::Scalar(scalar) = &field.node.value
        && let Some((what, fix)) = weak_mode(&scalar.text)
    {
        field.complain(report, what, fix);
        return None;
    }
    field.choice(MODES, report).map(|mode| Some((mode, field)))
}

fn read_mode_in_url<'f, 'a>(given: &Given<'f, 'a>, report: &mut Report) -> NamedMode<'f, 'a> {
    let word = given.url.as_ref().ok().and_then(|url| url.sslmode.as_deref());
    let Some((word, field)) = word.zip(given.postgres.get("url")) else {
        return Some(None);
    };
    let mode = MODES.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode);
    if mode.is_none() {
        let unknown = ("`sslmode` in the URL is not known", GIVE_A_MODE);
        let (what, fix) = weak_mode(word).unwrap_or(unknown);
        field.complain(report, what, fix);
    }
    mode.map(|mode| Some((mode, field)))
}

/// The mode that the environment gives: `None` when it is wrong, `Some(None)` when it gives none.
fn read_mode_in_environment(given: &Given<'_, '_>, report: &mut Report) -> Option<Option<TlsMode>> {
    let Some(word) = (given.environment)("PGSSLMODE") else {
        return Some(None);
    };
    let mode = MODES.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode);
    if mode.is_none() {
        let (what, fix) = match weak_mode(&word) {
            Some((what, fix)) => (format!("from {VARIABLE}: {what}"), fix),
            None => (format!("{VARIABLE} is no TLS mode"), GIVE_A_MODE),
        };
        complain_of_environment(given, what, fix, report);
    }
    mode.map(Some)
}

fn complain_of_environment(given: &Given<'_, '_>, what: String, fix: &str, report: &mut Report) {
    let path = join(&given.postgres.path, "tls.mode");
    report.add(given.postgres.at, &path, what, fix);
}

const VARIABLE: &str = "the environment variable `PGSSLMODE`";
const GIVE_A_MODE: &str = "give disable, require, verify-ca or verify-full";

/// Why a mode of libpq that depends on the server's mood is refused.
fn weak_mode(word: &str) -> Option<(&'static str, &'static str)> {
    const FIX: &str = "give require, verify-ca or verify-full; or disable, for no TLS";
    match word {
        "prefer" => Some(("TLS mode `prefer` falls back to no TLS without a word", FIX)),
        "allow" => Some(("TLS mode `allow` uses TLS only where the server insists", FIX)),
        _ => None,
    }
}

fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The client's own certificate. `None` when it is wrong, `Some(None)` when there is none.
fn read_client(tls: &Section<'_>, folder: &Path, report: &mut Report) -> Option<Option<ClientSettings>> {
    let (cert, key) = (tls.get("cert-file"), tls.get("key-file"));
    if cert.is_none() && key.is_none() {
        return Some(None);
    }
    let fix = "a certificate and its key go together: add the other file";
    let cert_file = tls
        .require("cert-file", fix, report)
        .and_then(|field| file::pem(field, folder, Pem::Certificate, report));
    let key_file = tls
        .require("key-file", fix, report)
        .and_then(|field| file::pem(field, folder, Pem::PlainKey, report));
    Some(Some(ClientSettings { cert_file: cert_file?, key_file: key_file? }))
}
