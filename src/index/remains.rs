//! What is left of a build that failed: it costs with every write, serves nobody, and may be what fills the disk.

use sink_postgres_vector::{Class, Connection, Error, IndexBuild, IndexFound};

use super::keeper::{Keeper, LONGEST_PAUSE, Step, is_cancelled};
use super::pauses::Pauses;

/// What came of one try to drop it.
enum Cleaned {
    /// There is nothing of it.
    Gone,
    /// Another connector has the turn; perhaps the session that failed, of which the server does not know yet that it has.
    Taken,
    /// Somebody builds it at the moment.
    ByHand,
    /// It could not be dropped.
    Failed(Error),
}

impl Keeper {
    /// Drops what is there before a build. Takes as long as transactions last that may know it.
    pub(super) async fn clean_first(&self, watcher: &Connection) -> Result<Step, Error> {
        Ok(match self.clean(true).await? {
            Cleaned::Gone => Step::Again,
            Cleaned::Taken => self.busy(watcher, "another connector builds it").await,
            Cleaned::ByHand => self.busy(watcher, "it is being built by hand").await,
            Cleaned::Failed(error) => Step::Unclean(error),
        })
    }

    /// Drops what the build that has just failed has left, which was told already. Tries until nothing is left, or the
    /// stop: the server may have to recover first, or to notice that the session is gone.
    pub(super) async fn clean_up(&self) {
        // Where all is one transaction, nothing is left.
        if !self.options.prepared {
            return;
        }
        let mut pauses = Pauses::to(LONGEST_PAUSE);
        while !self.stop.is_cancelled() {
            match self.clean(false).await {
                Ok(Cleaned::Gone) => return,
                Ok(Cleaned::Taken | Cleaned::ByHand) => {}
                Ok(Cleaned::Failed(error)) | Err(error)
                    if error.class() == Class::Transient && !is_cancelled(&error) =>
                {
                    tracing::debug!(index = self.name(), %error, "what is left of the build is not dropped yet");
                }
                Ok(Cleaned::Failed(_)) | Err(_) if self.stop.is_cancelled() => return,
                Ok(Cleaned::Failed(error)) | Err(error) => {
                    tracing::warn!(
                        index = self.name(), %error,
                        "what is left of the build stays until the next start, and costs with every write"
                    );
                    return;
                }
            }
            self.pause(pauses.next()).await;
        }
    }

    async fn clean(&self, first: bool) -> Result<Cleaned, Error> {
        let begin = async {
            let Some(build) = IndexBuild::begin(&self.options, &self.index).await? else { return Ok(None) };
            let found = build.find().await?;
            Ok::<_, Error>(Some((build, found)))
        };
        let Some(begun) = self.unless_stopped(begin).await else { return Ok(Cleaned::Taken) };
        let Some((build, found)) = begun? else { return Ok(Cleaned::Taken) };
        if found != IndexFound::Invalid {
            build.end().await;
            return Ok(Cleaned::Gone);
        }
        tracing::info!(index = self.name(), "dropping what a build that was broken off has left");
        if first {
            self.wait_for("what a build that was broken off has left to be dropped");
        }
        let cleaned = match self.unless_broken_off(&build, build.drop_invalid()).await {
            None => Cleaned::Taken,
            Some(Ok(true)) => Cleaned::Gone,
            Some(Ok(false)) => Cleaned::ByHand,
            Some(Err(error)) => Cleaned::Failed(error),
        };
        build.end().await;
        Ok(cleaned)
    }
}
