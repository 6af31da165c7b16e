//! What is read: a file that can be known again, or standard input.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// How much of a file's name stands in its topic's.
const LONGEST_NAME: usize = 80;

/// An input of records, one a line.
#[derive(Debug)]
pub struct FileInput {
    topic: String,
    /// What people call it.
    name: String,
    pub(super) file: File,
    /// What the file is known again by. Standard input has none.
    identity: Option<Identity>,
    /// The timestamp of its records, in milliseconds.
    pub(super) timestamp: i64,
    reading: Arc<Reading>,
}

/// A file as it was when it was opened.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

/// How far an input is read. Somebody else looks at it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    bytes: AtomicU64,
    blank: AtomicU64,
    /// The position behind the end, once that is known.
    end: AtomicI64,
    was_stored: AtomicBool,
}

impl FileInput {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Why not, as words that follow its name.
    pub fn open(path: &Path) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let file = File::open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if about.is_dir() {
            return Err("is a folder; name a file, or `-` for standard input".to_owned());
        }
        let name = path.display().to_string();
        if !about.is_file() {
            // A pipe: what comes out of it next time is something else.
            return Ok(Self::nameless(file, name));
        }
        let path = path.canonicalize().map_err(unreadable)?;
        let identity = Identity::of(path, &about).map_err(unreadable)?;
        let timestamp = millis(identity.modified);
        let (topic, identity) = (identity.topic(), Some(identity));
        Ok(Self { topic, name, file, identity, timestamp, reading: Arc::default() })
    }

    /// Standard input.
    ///
    /// # Errors
    /// When there is none.
    pub fn standard() -> io::Result<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self::nameless(file, "standard input".to_owned()))
    }

    fn nameless(file: File, name: String) -> Self {
        let now = SystemTime::now();
        let moment = humantime::format_rfc3339_nanos(now);
        let topic = format!("stdin#{moment}-{}", std::process::id());
        Self { topic, name, file, identity: None, timestamp: millis(now), reading: Arc::default() }
    }

    /// What its topic is called.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it cannot be known again: standard input, or a pipe.
    pub fn is_standard(&self) -> bool {
        self.identity.is_none()
    }

    /// Its size in bytes, as far as that is known.
    pub fn size(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.size)
    }

    /// Where to look how far it is read.
    pub(crate) fn reading(&self) -> Arc<Reading> {
        Arc::clone(&self.reading)
    }

    pub(super) fn progress(&self) -> &Reading {
        &self.reading
    }

    /// Whether it is still what it was when it was opened.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        let Some(identity) = &self.identity else { return Ok(true) };
        Ok(Identity::of(identity.path.clone(), &self.file.metadata()?)? == *identity)
    }
}

impl Identity {
    fn of(path: PathBuf, about: &Metadata) -> io::Result<Self> {
        Ok(Self { path, size: about.len(), modified: about.modified()? })
    }

    /// The file's name, for people, and a digest of what it is known again by.
    fn topic(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.path.as_os_str().as_bytes());
        digest.update(self.size.to_le_bytes());
        let since = |moment: SystemTime| match moment.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => (true, since),
            Err(before) => (false, before.duration()),
        };
        let (is_later, distance): (bool, Duration) = since(self.modified);
        digest.update([u8::from(is_later)]);
        digest.update(distance.as_nanos().to_le_bytes());
        let digest: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name: String =
            name.chars().take(LONGEST_NAME).map(|c| if c.is_control() { '_' } else { c }).collect();
        format!("file:{name}#{digest}")
    }
}

fn millis(moment: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => -whole(before.duration()),
    }
}

impl Reading {
    /// How many bytes were read, those of lines that had been written before included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many lines held nothing, of those that had not been written before.
    pub(crate) fn blank(&self) -> u64 {
        self.blank.load(Ordering::Relaxed)
    }

    /// The position behind the end, once that was reached.
    pub(crate) fn end(&self) -> Option<i64> {
        Some(self.end.load(Ordering::Acquire)).filter(|end| *end > 0)
    }

    /// Whether all of it had been written before.
    pub(crate) fn was_stored(&self) -> bool {
        self.was_stored.load(Ordering::Acquire)
    }

    pub(super) fn passed(&self, bytes: usize, is_blank: bool) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.blank.fetch_add(u64::from(is_blank), Ordering::Relaxed);
    }

    pub(super) fn ends(&self, position: i64, was_stored: bool) {
        self.was_stored.store(was_stored, Ordering::Release);
        self.end.store(position, Ordering::Release);
    }
}
