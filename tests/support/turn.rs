//! Who may use the machine.

use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for the turn of a heavy test, which lasts until the guard is dropped.
///
/// The tests run in parallel, but two cores carry only one of those that load the servers, or that
/// measure how long something takes.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().await
}
