//! Tells other instances of a backlog, for whose end everybody's index waits.

use std::sync::Arc;
use std::time::Duration;

use sink_postgres_vector::{ConnectOptions, Connection, Error};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calm::Calm;
use crate::monitoring::Monitor;
use crate::source::Partition;
use crate::write::positions;

/// How often. A word counts for a minute, so some may get lost.
const TELL: Duration = Duration::from_secs(5);

/// What tells it, as long as an index is missing. Who has just taken a partition has told its end with that.
pub(super) struct Herald {
    pub(super) options: ConnectOptions,
    pub(super) monitor: Arc<Monitor>,
    pub(super) stop: CancellationToken,
}

impl Herald {
    /// Until the stop.
    pub(super) async fn run(self) {
        let told = async {
            let (mut calm, mut turn, mut known) = (Calm::default(), tokio::time::interval(TELL), true);
            loop {
                turn.tick().await;
                let behind = calm.is_behind(self.monitor.look(), Instant::now());
                // That there is no backlog (any more) is told once.
                if !self.monitor.lacks_an_index() || !(behind || known) {
                    continue;
                }
                match self.tell(behind).await {
                    Ok(()) => known = behind,
                    Err(error) => tracing::debug!(%error, "other instances do not hear of the backlog"),
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = told => {}
        }
    }

    async fn tell(&self, behind: bool) -> Result<(), Error> {
        let ends = self.monitor.ends_held();
        let ends: Vec<(Partition, Option<i64>)> =
            ends.into_iter().map(|(partition, end)| (partition, end.filter(|_| behind))).collect();
        let connection = Connection::open(&self.options).await?;
        positions::tell(&connection, self.monitor.connector(), &ends).await?;
        connection.close().await;
        Ok(())
    }
}
