//! What is read: a file that can be known again, or standard input.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
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
    reading: Arc<Reading>,
}

/// So much of a file's beginning and of its end is looked at to know it again. Two files may have one size and one time of
/// modification: archives and images set all times to the same, and some file systems keep whole seconds.
const SAMPLE: usize = 64 * 1024;

/// What compressed files begin with.
const COMPRESSED: &[(&[u8], &str)] =
    &[(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")];

/// What to do with one that is.
pub(super) const DECOMPRESS: &str =
    "Decompress it on the way: `zcat FILE | embedsink write --config … -`, or with the tool for its kind";

/// A file as it was when it was opened.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
    /// Of its beginning and its end.
    sample: [u8; 32],
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
    /// Opens the file at `path`. Blocks; with a named pipe, until somebody writes to it.
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
        let mut beginning = [0; 8];
        let length = read_at(&file, &mut beginning, 0).map_err(unreadable)?;
        if let Some(kind) = compression(&beginning[..length]) {
            return Err(format!("is compressed ({kind}). {DECOMPRESS}"));
        }
        let identity = Identity::of(path, &file).map_err(unreadable)?;
        let (topic, identity) = (identity.topic(), Some(identity));
        Ok(Self { topic, name, file, identity, reading: Arc::default() })
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
        let moment = humantime::format_rfc3339_nanos(SystemTime::now());
        let topic = format!("stdin#{moment}-{}", std::process::id());
        Self { topic, name, file, identity: None, reading: Arc::default() }
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

    /// Whether it is still what it was when it was opened, as far as its size, its time and its ends tell.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        let Some(identity) = &self.identity else { return Ok(true) };
        Ok(Identity::of(identity.path.clone(), &self.file)? == *identity)
    }
}

impl Identity {
    /// It does not move the place up to which the file is read.
    fn of(path: PathBuf, file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        let size = about.len();
        let (mut digest, mut bytes) = (Sha256::new(), vec![0; SAMPLE]);
        for from in [0, size.saturating_sub(SAMPLE as u64)] {
            let length = read_at(file, &mut bytes, from)?;
            digest.update(&bytes[..length]);
        }
        Ok(Self { path, size, modified: about.modified()?, sample: digest.finalize().into() })
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
        digest.update(self.sample);
        let digest: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name: String =
            name.chars().take(LONGEST_NAME).map(|c| if c.is_control() { '_' } else { c }).collect();
        format!("file:{name}#{digest}")
    }
}

/// By what the beginning shows to be compressed, if anything.
pub(super) fn compression(beginning: &[u8]) -> Option<&'static str> {
    COMPRESSED.iter().find(|(magic, _)| beginning.starts_with(magic)).map(|(_, kind)| *kind)
}

/// Fills the buffer from there on, as far as the file goes.
fn read_at(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
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
