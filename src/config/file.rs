//! Files that the configuration names, and the configuration itself.
//!
//! A relative path starts at the folder of the configuration. No message shows what a file holds.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::field::Field;
use super::problem::{ConfigError, Report};
use crate::framework::secret::Secret;

/// What a PEM file has to hold.
#[derive(Clone, Copy)]
pub(super) enum Pem {
    /// At least one certificate.
    Certificate,
    /// A private key, encrypted or not.
    Key,
    /// A private key that needs no passphrase.
    PlainKey,
}

/// The path of a PEM file, which has been read and found to hold what it has to.
pub(super) fn pem(field: &Field<'_>, folder: &Path, wanted: Pem, report: &mut Report) -> Option<PathBuf> {
    const FIX: &str = "give a PEM file; a relative path starts at this configuration's folder";
    let path = folder.join(field.text(report)?);
    let bytes = match read(&path) {
        Ok(bytes) => bytes,
        Err(why) => {
            field.complain(report, format!("{} {why}", field.quoted()), FIX);
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let blocks = blocks(&text);
    let is_wanted = |block: &&Block<'_>| match wanted {
        Pem::Certificate => block.label == "CERTIFICATE",
        Pem::Key | Pem::PlainKey => block.label.ends_with("PRIVATE KEY"),
    };
    let noun = if matches!(wanted, Pem::Certificate) { "certificate" } else { "private key" };
    if !blocks.iter().any(|block| is_wanted(&block)) {
        field.complain(report, format!("{} holds no PEM {noun}", field.quoted()), FIX);
        return None;
    }
    // The older form says so in a header, not in the label.
    let encrypted =
        text.contains("-----BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
    if encrypted && matches!(wanted, Pem::PlainKey) {
        let what = format!("{} is encrypted, and the connector has no passphrase for it", field.quoted());
        field.complain(report, what, "decrypt it with `openssl pkey`, and keep the file from others");
        return None;
    }
    if !blocks.iter().filter(is_wanted).any(|block| block.is_readable) {
        let what = format!("{} has the marks of a PEM {noun}, but no base64 between them", field.quoted());
        field.complain(report, what, "give the whole file; it may have been cut or changed");
        return None;
    }
    Some(path)
}

/// A block of a PEM file.
struct Block<'t> {
    label: &'t str,
    /// It ends, and what is in it can be decoded. Whether that is what the label says, only those who use it can
    /// tell.
    is_readable: bool,
}

/// The label of a mark, if the line is one.
fn label_of<'t>(line: &'t str, mark: &str) -> Option<&'t str> {
    line.strip_prefix(mark)?.strip_suffix("-----")
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut lines = text.lines().map(str::trim);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line, "-----BEGIN ") else { continue };
        let mut body = String::new();
        let mut ends = false;
        for line in lines.by_ref() {
            if label_of(line, "-----END ").is_some() {
                ends = true;
                break;
            }
            // The older form has headers before the body.
            if !line.contains(':') {
                body.push_str(line);
            }
        }
        let is_readable = ends && STANDARD.decode(&body).is_ok_and(|bytes| !bytes.is_empty());
        blocks.push(Block { label, is_readable });
    }
    blocks
}

/// The password in a file: all of it but one line break at its end, and the byte order mark that some
/// editors put before everything.
pub(super) fn password(field: &Field<'_>, folder: &Path, report: &mut Report) -> Option<Secret> {
    const FIX: &str = "give a file that holds only the password; a relative path starts at this \
                       configuration's folder";
    let bytes = match read(&folder.join(field.text(report)?)) {
        Ok(bytes) => bytes,
        Err(why) => {
            field.complain(report, format!("{} {why}", field.quoted()), FIX);
            return None;
        }
    };
    let Ok(text) = String::from_utf8(bytes) else {
        field.complain(report, format!("{} is not UTF-8", field.quoted()), FIX);
        return None;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        field.complain(report, format!("{} is empty", field.quoted()), FIX);
        return None;
    }
    Some(Secret::new(text))
}

/// The bytes of a file, or why there are none.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::metadata(path).and_then(|about| about.is_file().then(|| fs::read(path)).transpose());
    match bytes {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err("is no file".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// The text of a file, or why there is none.
pub(crate) fn read_text(path: &Path, fix: &str) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let bytes = fs::read(path)
        .map_err(|error| ConfigError::whole_file(&name, format!("cannot be read: {error}"), fix))?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        ConfigError::whole_file(
            &name,
            format!("is not UTF-8: line {line} holds other bytes"),
            "save it as UTF-8",
        )
    })
}
