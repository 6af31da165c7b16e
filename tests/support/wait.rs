//! Waiting for something that another process does.

use std::time::{Duration, Instant};

/// Long enough for whatever is waited for, on a slow machine too. Only a test that fails takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `probe` gives something, and returns that; `None` when `deadline` has passed.
///
/// The one place where tests let time pass: the state of another process can only be asked for again and again.
pub(crate) async fn at_most<T>(deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let found = probe().await;
        if found.is_some() || since.elapsed() > deadline {
            return found;
        }
    }
}

/// Lets `time` pass, where its length is the fault that a test wants: how long a stall lasts, or how long after
/// its start a process is killed.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Looks until `probe` gives something, and returns that.
///
/// # Panics
/// When the usual deadline has passed. `what` completes "waited for".
pub(crate) async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    at_most(PATIENCE, probe).await.unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}
