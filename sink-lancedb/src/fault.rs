//! What went wrong inside the engine, told without the values that caused it.
//!
//! The engine's own texts quote filters and rows. So nothing of them is passed on but the kind, what the operating
//! system said, and the line of the engine's source.

use std::{error::Error as StdError, fmt, io::ErrorKind};

use lance_core::error::{CommitStatusUnknownError, Error as Lance};

use crate::class::Class;

/// A kind of failure, and where in the engine it came from.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// What the operating system said.
    system: Option<String>,
    /// File and line of the engine's source.
    place: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    DiskFull,
    Denied,
    ReadOnly,
    /// Any other answer of the disk or the object store.
    Storage,
    Timeout,
    /// Somebody else has changed the table at the same time.
    Conflict,
    /// A commit was sent and its outcome is not known.
    InDoubt,
    Missing,
    /// The object store knows no bucket, or container, of this name.
    NoBucket,
    TableName,
    Corrupt,
    /// A newer LanceDB has written what this one cannot read or must not write.
    NewerFormat,
    Unsupported,
    Refused,
    Internal,
}

/// What the engine says of a file that does not end like one of its own, or is shorter than it was. Of these errors nothing but
/// the text is left when they come here.
const DAMAGED: [&str; 3] =
    ["file does not appear to be a Lance file", "Requested range was invalid", "Out of range of file"];

/// What an object store answers, S3 and Google's, and Azure's.
const NO_BUCKET: [&str; 2] = ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"];

impl Fault {
    pub(crate) fn of(error: &lancedb::Error) -> Self {
        let chain = || causes(error);
        let system = chain().filter_map(|error| error.downcast_ref::<std::io::Error>()).last();
        // The engine turns some errors into text on the way.
        let text = error.to_string();
        let code = system.and_then(std::io::Error::raw_os_error).or_else(|| os_code(&text));
        let kind = if chain().any(|error| error.is::<CommitStatusUnknownError>()) {
            FaultKind::InDoubt
        } else if let Some(kind) = code
            .map(|code| std::io::Error::from_raw_os_error(code).kind())
            .or_else(|| system.map(std::io::Error::kind))
            .and_then(of_system)
        {
            kind
        } else if let Some(kind) = of_connecting(error) {
            kind
        } else if chain().any(lacks_bucket) {
            FaultKind::NoBucket
        } else if has_any(&text, &DAMAGED) {
            FaultKind::Corrupt
        } else {
            let mut kinds = chain().filter_map(of_engine);
            // Around what is wrong there is often no more than that something was to be read.
            match kinds.find(|kind| *kind != FaultKind::Storage) {
                Some(kind) => kind,
                None if code.is_some() || chain().any(|error| of_engine(error).is_some()) => {
                    FaultKind::Storage
                }
                None => FaultKind::Internal,
            }
        };
        let system = code.map(|code| std::io::Error::from_raw_os_error(code).to_string());
        Self { kind, system, place: place(&text) }
    }

    pub(crate) fn class(&self) -> Class {
        match self.kind {
            FaultKind::DiskFull
            | FaultKind::Storage
            | FaultKind::Timeout
            | FaultKind::Conflict
            | FaultKind::InDoubt => Class::Transient,
            FaultKind::Denied
            | FaultKind::ReadOnly
            | FaultKind::Missing
            | FaultKind::NoBucket
            | FaultKind::TableName
            | FaultKind::NewerFormat
            | FaultKind::Unsupported => Class::Configuration,
            FaultKind::Corrupt | FaultKind::Refused | FaultKind::Internal => Class::Fatal,
        }
    }

    pub(crate) fn remedy(&self) -> Option<&'static str> {
        Some(match self.kind {
            FaultKind::DiskFull => {
                "Free space on the disk that holds the dataset. A commit needs room for its rows, and compaction for a second copy of what it rewrites."
            }
            FaultKind::Denied => {
                "Give the user of this process the right to read and write the folder and all that is in it. In an object store it is the user of `storage-options`, who has to be known there and may read, write, list and delete."
            }
            FaultKind::ReadOnly => "Mount the file system for writing, or name another folder.",
            FaultKind::Conflict => "Let no other program write to the dataset meanwhile.",
            FaultKind::Missing | FaultKind::Corrupt => {
                "Restore the whole dataset from a copy, all tables as of one moment. Without a copy, move the whole dataset away and write it anew from the source. A table whose folder alone is moved away is made anew, and stays without the rows written so far."
            }
            FaultKind::NoBucket => {
                "Make the bucket (in Azure the container), or correct its name in the URI."
            }
            FaultKind::TableName => "Name the table with ASCII letters, digits, `_`, `-` and `.` only.",
            FaultKind::NewerFormat => {
                "Open the dataset only with versions of LanceDB that know the same format, or let embedsink write to a new folder: start with another `meta.name` there."
            }
            FaultKind::Unsupported => {
                "Use a file system that can rename atomically, or the object store's own URI instead of a mount of it. A URI of an object store needs the feature aws, azure or gcs."
            }
            FaultKind::Storage
            | FaultKind::Timeout
            | FaultKind::InDoubt
            | FaultKind::Refused
            | FaultKind::Internal => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FaultKind::DiskFull => "the disk is full",
            FaultKind::Denied => "this user may not",
            FaultKind::ReadOnly => "the file system is read-only",
            FaultKind::Storage => "the disk or the object store failed",
            FaultKind::Timeout => "it took too long",
            FaultKind::Conflict => "another program has changed the table at the same time",
            FaultKind::InDoubt => "whether the commit took effect is not known",
            FaultKind::Missing => "a file or version of the table is not there",
            FaultKind::NoBucket => "the object store has no such bucket",
            FaultKind::TableName => "the table's name cannot be used",
            FaultKind::Corrupt => "a file of the table is damaged",
            FaultKind::NewerFormat => "the table is in a format of another version of LanceDB",
            FaultKind::Unsupported => "this is not supported here",
            FaultKind::Refused => "LanceDB refuses what it was asked",
            FaultKind::Internal => "LanceDB failed",
        })?;
        if let Some(system) = &self.system {
            write!(f, ": {system}")?;
        }
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " [{place}]"))
    }
}

/// An error, what caused it, and so on.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn of_system(kind: ErrorKind) -> Option<FaultKind> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Some(FaultKind::DiskFull)
        }
        ErrorKind::PermissionDenied => Some(FaultKind::Denied),
        ErrorKind::ReadOnlyFilesystem => Some(FaultKind::ReadOnly),
        ErrorKind::TimedOut => Some(FaultKind::Timeout),
        // Here only files are opened that a version names, and a folder that is in the way of one is no better than none.
        ErrorKind::NotFound => Some(FaultKind::Missing),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Some(FaultKind::Corrupt),
        _ => None,
    }
}

/// What an error of the engine says by its kind. `None` for those that only wrap another.
fn of_engine(error: &(dyn StdError + 'static)) -> Option<FaultKind> {
    if let Some(error) = error.downcast_ref::<lancedb::Error>() {
        use lancedb::Error;
        return match error {
            Error::InvalidTableName { .. } => Some(FaultKind::TableName),
            Error::TableCorrupted { .. } => Some(FaultKind::Corrupt),
            Error::TableNotFound { .. } | Error::DatabaseNotFound { .. } => Some(FaultKind::Missing),
            Error::CreateDir { .. } => Some(FaultKind::Storage),
            Error::Timeout { .. } => Some(FaultKind::Timeout),
            Error::NotSupported { .. } => Some(FaultKind::Unsupported),
            Error::InvalidInput { .. } | Error::Schema { .. } | Error::Arrow { .. } => {
                Some(FaultKind::Refused)
            }
            Error::ObjectStore { .. } => Some(FaultKind::Storage),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<object_store::Error>() {
        return match error {
            object_store::Error::NotFound { .. } => Some(FaultKind::Missing),
            // A small file is held whole, and is shorter than it was.
            object_store::Error::Generic { store: "memory", .. } => Some(FaultKind::Corrupt),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Some(FaultKind::Denied)
            }
            _ => None,
        };
    }
    let error = error.downcast_ref::<Lance>()?.find_root();
    match error {
        Lance::InvalidInput { location, .. } | Lance::Arrow { location, .. }
            if reads_a_format(location.file()) =>
        {
            return Some(FaultKind::Corrupt);
        }
        Lance::IO { location, source, .. }
            if reads_a_format(location.file()) && !source.is::<object_store::Error>() =>
        {
            return Some(FaultKind::Corrupt);
        }
        _ => {}
    }
    match error {
        Lance::CommitConflict { .. }
        | Lance::RetryableCommitConflict { .. }
        | Lance::IncompatibleTransaction { .. }
        | Lance::TooMuchWriteContention { .. } => Some(FaultKind::Conflict),
        Lance::Timeout { .. } => Some(FaultKind::Timeout),
        Lance::DatasetNotFound { .. } | Lance::NotFound { .. } | Lance::VersionNotFound { .. } => {
            Some(FaultKind::Missing)
        }
        Lance::CorruptFile { .. } => Some(FaultKind::Corrupt),
        Lance::VersionConflict { .. } => Some(FaultKind::NewerFormat),
        // What it says of a table with feature flags that it does not know.
        Lance::NotSupported { .. } if error.to_string().contains("Please upgrade") => {
            Some(FaultKind::NewerFormat)
        }
        Lance::NotSupported { .. } => Some(FaultKind::Unsupported),
        Lance::DiskCapExceeded { .. } => Some(FaultKind::DiskFull),
        Lance::IO { .. } => Some(FaultKind::Storage),
        Lance::InvalidInput { .. } | Lance::Schema { .. } | Lance::SchemaMismatch { .. } => {
            Some(FaultKind::Refused)
        }
        _ => None,
    }
}

/// What hinders LanceDB to connect to an object store. It makes a text of that and calls it a wrong input, whatever it is; no row is in
/// it yet.
fn of_connecting(error: &lancedb::Error) -> Option<FaultKind> {
    let lancedb::Error::InvalidInput { message } = error else { return None };
    let why = message.strip_prefix("Failed to connect to namespace: ")?;
    if has_any(why, &NO_BUCKET) {
        Some(FaultKind::NoBucket)
    } else if has_any(why, &["PermissionDenied {", "Unauthenticated {", "status: 401", "status: 403"]) {
        Some(FaultKind::Denied)
    } else {
        why.starts_with("IO {").then_some(FaultKind::Storage)
    }
}

/// Only the store's own errors are looked into: those of the engine may quote rows.
fn lacks_bucket(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<object_store::Error>().is_some_and(|error| has_any(&error.to_string(), &NO_BUCKET))
}

fn has_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Whether this source of the engine's takes files apart: what it refuses, or cannot make anything of, is in a file.
fn reads_a_format(source: &str) -> bool {
    [
        ("lance-file-", "reader.rs"),
        ("lance-table-", "deletion.rs"),
        ("lance-table-", "manifest.rs"),
        ("lance-io-", "utils.rs"),
    ]
    .iter()
    .any(|(part, name)| source.contains(part) && source.ends_with(name))
}

/// The number in "(os error 28)".
fn os_code(text: &str) -> Option<i32> {
    let (_, rest) = text.rsplit_once("(os error ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// The last "name.rs:12:34" of a text, without the folders before it.
fn place(text: &str) -> Option<String> {
    let word = text.rsplit([' ', '/', '\\']).find(|word| word.contains(".rs:"))?;
    let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || "._:-".contains(c))).unwrap_or(word.len());
    let place = &word[..end];
    let (name, line) = place.split_once(".rs:")?;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let number = line.split(':').all(|part| part.chars().all(|c| c.is_ascii_digit()));
    (plain && number).then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(code: i32) -> lancedb::Error {
        let inner = Lance::io_source(Box::new(std::io::Error::from_raw_os_error(code)));
        lancedb::Error::Lance { source: inner }
    }

    #[test]
    fn a_full_disk_a_missing_right_and_a_read_only_mount_are_told_apart() {
        for (code, kind, class) in [
            (28, FaultKind::DiskFull, Class::Transient),
            (122, FaultKind::DiskFull, Class::Transient),
            (13, FaultKind::Denied, Class::Configuration),
            (30, FaultKind::ReadOnly, Class::Configuration),
            (5, FaultKind::Storage, Class::Transient),
        ] {
            let fault = Fault::of(&external(code));
            assert_eq!((fault.kind, fault.class()), (kind, class), "{fault}");
            assert!(fault.to_string().contains(&format!("(os error {code})")), "{fault}");
        }
    }

    #[test]
    fn another_program_s_change_is_told_as_such_and_tried_again() {
        let source = || -> Box<dyn StdError + Send + Sync> { "the values of a row".into() };
        for conflict in [
            Lance::commit_conflict_source(7, source()),
            Lance::retryable_commit_conflict_source(7, source()),
            Lance::incompatible_transaction_source(source()),
            Lance::too_much_write_contention("the values of a row"),
        ] {
            let fault = Fault::of(&lancedb::Error::Lance { source: conflict });
            assert_eq!((fault.kind, fault.class()), (FaultKind::Conflict, Class::Transient), "{fault}");
            assert!(!fault.to_string().contains("row") && fault.remedy().is_some(), "{fault}");
        }
    }

    #[test]
    fn a_table_of_a_newer_lancedb_is_not_taken_for_a_file_system_that_cannot_rename() {
        let upgrade =
            "This dataset cannot be written by this version of Lance. Please upgrade Lance to write it.";
        for source in [
            Lance::version_conflict("newer", 3, 0),
            Lance::not_supported(upgrade),
            Lance::not_supported("other"),
        ] {
            let is_other = source.to_string().contains("other");
            let fault = Fault::of(&lancedb::Error::Lance { source });
            let kind = if is_other { FaultKind::Unsupported } else { FaultKind::NewerFormat };
            assert_eq!((fault.kind, fault.class()), (kind, Class::Configuration), "{fault}");
        }
    }

    #[test]
    fn the_system_s_answer_is_found_where_only_its_text_is_left() {
        let text = "LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28), /a/b/io.rs:7:9";
        let fault = Fault::of(&lancedb::Error::Runtime { message: text.to_owned() });
        assert_eq!(fault.kind, FaultKind::DiskFull);
        assert!(fault.to_string().ends_with("(os error 28) [io.rs:7:9]"), "{fault}");
    }

    #[test]
    fn a_bucket_that_is_missing_is_told_and_no_row_can_say_so() {
        let answer = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code></Error>";
        let store = object_store::Error::NotFound { path: "elsewhere".to_owned(), source: answer.into() };
        let fault = Fault::of(&lancedb::Error::Lance { source: Lance::io_source(Box::new(store)) });
        assert_eq!((fault.kind, fault.class()), (FaultKind::NoBucket, Class::Configuration));
        assert!(!fault.to_string().contains("elsewhere") && fault.remedy().is_some(), "{fault}");
        let row = "cannot evaluate id = '<Code>NoSuchBucket</Code>'";
        let fault =
            Fault::of(&lancedb::Error::Lance { source: Lance::commit_conflict_source(7, row.into()) });
        assert_eq!(fault.kind, FaultKind::Conflict);
    }

    #[test]
    fn what_hinders_to_connect_is_told_apart_though_lancedb_calls_it_an_input() {
        for (why, kind, class) in [
            (
                "IO { source: Generic { store: \"S3\", source: Http(Connect) } }",
                FaultKind::Storage,
                Class::Transient,
            ),
            ("IO { source: PermissionDenied { path: \"data\" } }", FaultKind::Denied, Class::Configuration),
            ("IO { source: \"<Code>NoSuchBucket</Code>\" }", FaultKind::NoBucket, Class::Configuration),
            ("InvalidInput { source: \"an option\" }", FaultKind::Refused, Class::Fatal),
        ] {
            let message = format!("Failed to connect to namespace: {why}");
            let fault = Fault::of(&lancedb::Error::InvalidInput { message });
            assert_eq!((fault.kind, fault.class()), (kind, class), "{why}");
        }
    }

    #[test]
    fn no_word_of_the_engine_s_text_is_passed_on() {
        let text = "cannot evaluate id = 'secret.rs:key' near 'hidden'";
        let fault = Fault::of(&lancedb::Error::Runtime { message: text.to_owned() });
        assert_eq!(fault.to_string(), "LanceDB failed");
        assert_eq!(fault.class(), Class::Fatal);
    }
}
