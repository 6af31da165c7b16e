//! Where commands print. Nothing else here writes to standard output or, beside the log, to standard error: `println!`
//! and `eprintln!` end the process with a panic when whoever reads has gone away, and a drain may be under way.

use std::io::{self, Write};

/// Writes a command's result to standard output, all of it at once.
///
/// # Errors
/// When it cannot be written. That nobody reads any more is [`io::ErrorKind::BrokenPipe`], which is no failure of a
/// command's: see [`super::failure::report`] and [`is_gone`].
pub(super) fn print(result: impl AsRef<[u8]>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(result.as_ref())?;
    output.flush()
}

/// Whether the reader of standard output has gone away.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Says something to a person, beside the result, on standard error. Nothing comes of it when nobody is there.
pub(super) fn tell(text: &str) {
    let mut output = io::stderr().lock();
    drop(output.write_all(text.as_bytes()).and_then(|()| output.flush()));
}
