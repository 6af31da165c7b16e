//! The lock that makes this process the only writer of a folder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    path::Path,
    process,
};

use crate::error::Error;

/// The file that is locked, in the dataset's folder. LanceDB looks at folders named `*.lance` only.
const NAME: &str = ".writer.lock";

/// Held as long as it lives. The operating system releases it when the process ends, however it ends, so nothing is ever to
/// be cleaned up; the file stays. On a network file system the lock is as good as that file system's locks are.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if it is missing, and takes the lock at once or not at all.
    pub(crate) fn take(folder: &Path) -> Result<Self, Error> {
        let failed = |action: &str, error: &io::Error| Error::Folder {
            folder: folder.to_owned(),
            problem: format!("{action}: {error}"),
            passes: matches!(
                error.kind(),
                ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::Interrupted
                    | ErrorKind::TimedOut
            ),
        };
        fs::create_dir_all(folder).map_err(|error| failed("it cannot be made", &error))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(NAME))
            .map_err(|error| failed(&format!("its file {NAME} cannot be opened for writing"), &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Held { folder: folder.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(failed("it cannot be locked", &error)),
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", process::id())?;
            file.flush()
        };
        note(&mut file).map_err(|error| failed(&format!("its file {NAME} cannot be written"), &error))?;
        Ok(Self { _file: file })
    }
}

/// Who has noted that it holds the lock. It may be about to.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
