//! Taking a path for a socket without taking it from anybody.
//!
//! Invariant: at its path the socket has mode 0600 and is listened on from the first moment, and no socket is
//! removed on which somebody listens.
//!
//! How: the socket is made in a directory of its own with mode 0700, which nobody else can look into, gets its
//! mode there, and is then linked to its path. A link is never made over something that exists, so of two that
//! come at once one wins. (The process's umask is left alone: other threads make files too.) A socket on which
//! nobody listens is removed first; from the look at it to the link the directory is locked (`flock`), so that
//! what is removed is what was looked at. Directories of processes that were killed at work are removed too.
//! The framework's own connectors know no such lock: they remove whatever they find.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// How long others may hold the directory's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried again meanwhile.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// How long a socket is waited for that neither answers nor refuses. It counts as answering then.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// A directory of ours that is older than this was left by a process that was killed.
const LEFT_FOR: Duration = Duration::from_mins(1);

/// A socket at its path. Dropping it removes it from there, if it is still the same one.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    identity: Identity,
}

/// Why a path was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untaken {
    #[error("another process answers there")]
    Answered,
    #[error("there is something there already that is not a socket; it is left alone")]
    NotASocket,
    #[error("another process keeps the directory locked")]
    Locked,
    #[error("could not {action}: {error}")]
    Failed { action: &'static str, error: io::Error },
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    /// Of what stands at the path itself; links are not followed.
    fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self(found.dev(), found.ino()))
    }
}

/// What stands at a path.
enum Occupant {
    Nobody,
    /// A socket on which nobody listens: its process is gone.
    Stale(Identity),
}

impl Socket {
    /// Takes `path`. Cancel-safe: what was made until then is removed.
    pub(super) async fn take(path: &Path) -> Result<Self, Untaken> {
        let failed = |action| move |error| Untaken::Failed { action, error };
        SocketAddr::from_pathname(path).map_err(failed("use the path"))?;
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let _locked = lock(directory).await?;
        // First of all: a path that is not free is tried again and again, and nothing is made each time.
        make_room(path).await?;
        let workshop = Workshop::create_in(directory).map_err(failed("make a directory beside the path"))?;
        workshop.sweep(directory);
        let draft = workshop.draft();
        let listener = UnixListener::bind(&draft).map_err(failed("make the socket"))?;
        fs::set_permissions(&draft, Permissions::from_mode(0o600)).map_err(failed("set its mode"))?;
        let identity = Identity::at(&draft).map_err(failed("look at the socket"))?;
        loop {
            match fs::hard_link(&draft, path) {
                Ok(()) => return Ok(Self { listener, path: path.to_owned(), identity }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("link the socket to its path")(error)),
            }
            // This comes to an end: who has made room holds the lock, and nothing else of ours fills it.
            make_room(path).await?;
        }
    }

    /// Whether nothing, or something else, is at its path now. What cannot be looked at counts as there.
    pub(super) fn is_lost(&self) -> bool {
        match Identity::at(&self.path) {
            Ok(found) => found != self.identity,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// The next client. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(client, _)| client)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It is still listened on, so that nobody has reason to put another in its place just now.
        if Identity::at(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the monitoring socket was left behind");
        }
    }
}

/// Removes a socket on which nobody listens. The directory must be locked.
async fn make_room(path: &Path) -> Result<(), Untaken> {
    if let Occupant::Stale(looked_at) = look(path).await?
        && Identity::at(path).is_ok_and(|found| found == looked_at)
    {
        fs::remove_file(path).map_err(|error| Untaken::Failed {
            action: "remove the socket of a process that is gone",
            error,
        })?;
    }
    Ok(())
}

/// Finds out who is there.
async fn look(path: &Path) -> Result<Occupant, Untaken> {
    let failed = |error| Untaken::Failed { action: "see who is there already", error };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(Untaken::NotASocket);
    }
    match tokio::time::timeout(ANSWER_PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Occupant::Stale(Identity(found.dev(), found.ino()))),
            io::ErrorKind::NotFound => Ok(Occupant::Nobody),
            // Its queue is full: somebody is there, and busy.
            io::ErrorKind::WouldBlock => Err(Untaken::Answered),
            _ => Err(failed(error)),
        },
        Ok(Ok(_)) | Err(_) => Err(Untaken::Answered),
    }
}

/// Locks the directory until the file is dropped. Nothing is written for it, so nothing is left behind.
async fn lock(directory: &Path) -> Result<File, Untaken> {
    let failed = |error| Untaken::Failed { action: "lock the directory", error };
    let file = File::open(directory).map_err(failed)?;
    let mut look = tokio::time::interval(LOCK_LOOK);
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => look.tick().await,
            Err(TryLockError::WouldBlock) => return Err(Untaken::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
    }
}

/// What the name of a workshop begins with; eight hexadecimal digits follow.
const PREFIX: &str = ".es";
/// The socket's name in it.
const DRAFT: &str = "s";

/// A directory into which nobody else can look, for the moment in which the socket has no mode yet.
struct Workshop(PathBuf);

impl Workshop {
    /// Its name is short, since a socket's path may have some hundred bytes only.
    fn create_in(directory: &Path) -> io::Result<Self> {
        let random = RandomState::new().hash_one(std::process::id()) as u32;
        let path = directory.join(format!("{PREFIX}{random:08x}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn draft(&self) -> PathBuf {
        self.0.join(DRAFT)
    }

    /// Removes what others have left that were killed. The directory must be locked, so none is at work.
    fn sweep(&self, directory: &Path) {
        let Ok(owner) = fs::symlink_metadata(&self.0).map(|ours| ours.uid()) else { return };
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten().filter(|entry| is_name_of_workshop(&entry.file_name())) {
            // Of a link, this is the link itself.
            let Ok(found) = entry.metadata() else { continue };
            let age = found.modified().ok().and_then(|modified| modified.elapsed().ok());
            if !found.is_dir() || found.uid() != owner || age.is_none_or(|age| age < LEFT_FOR) {
                continue;
            }
            if let Err(error) = remove_left(&entry.path()) {
                tracing::debug!(path = %entry.path().display(), %error, "a directory that was left stays");
            }
        }
    }
}

fn is_name_of_workshop(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    number.is_some_and(|number| {
        number.len() == 8 && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Removes a workshop that was left. One that holds anything else than a draft stays.
fn remove_left(path: &Path) -> io::Result<()> {
    let draft = path.join(DRAFT);
    if fs::symlink_metadata(&draft).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(&draft)?;
    }
    fs::remove_dir(path)
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let emptied = fs::remove_file(self.draft());
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), ?emptied, %error, "a directory was left behind");
        }
    }
}

#[cfg(test)]
mod tests;
