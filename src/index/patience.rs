//! What a keeper waits for. Each wait ends with the stop.

use std::time::Duration;

use tokio::time::Instant;

use super::calm::Calm;
use super::keeper::Keeper;

/// How often the connector's own figures are looked at.
const LOOK: Duration = Duration::from_millis(250);

impl Keeper {
    /// Waits until it has been calm for so `long`, or `most` records are durable, or the stop. Whether it is calm.
    pub(super) async fn calm(&self, long: Duration, most: u64) -> bool {
        let (mut calm, mut look) = (Calm::lasting(long), tokio::time::interval(LOOK));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                _ = look.tick() => {
                    let (seen, now) = (self.monitor.look(), Instant::now());
                    if calm.sees(seen, now) {
                        return true;
                    }
                    if seen.settled >= most {
                        return false;
                    }
                    if calm.is_overdue(now) {
                        tracing::warn!(
                            index = self.name(), table = self.table(), lag = seen.lag,
                            "the backlog is not written yet, so the index is not built; if the lag stays, build it by \
                             hand, or start with `build: immediate`"
                        );
                    }
                }
            }
        }
    }

    /// Waits until more records are durable, or so long, since others write to the table too, or until the stop.
    pub(super) async fn more_than(&self, settled: u64, long: Duration) {
        let more = async {
            let mut look = tokio::time::interval(LOOK);
            while self.monitor.look().settled <= settled {
                look.tick().await;
            }
        };
        tokio::select! {
            () = self.pause(long) => {}
            () = more => {}
        }
    }

    /// Waits until no other index of this connector is being built, or the stop.
    pub(super) async fn queue(&self) {
        drop(self.unless_stopped(self.turn.lock()).await);
    }

    pub(super) async fn pause(&self, time: Duration) {
        self.unless_stopped(tokio::time::sleep(time)).await;
    }

    /// Awaits what asks or waits only, and so may be dropped. `None` at the stop.
    pub(super) async fn unless_stopped<T>(&self, asks: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            answer = asks => Some(answer),
        }
    }
}
