//! The writing half of a lane: does its jobs in their order, and reports what became of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Job, LaneOutput, Tray};
use crate::attempt::{Gate, Settled, take_until_settled, write_until_settled};
use crate::batch::Batch;
use crate::error::ConnectorError;
use crate::monitoring::{LaneMonitor, Monitor};
use crate::write::Writer;

/// A target to which nothing is written is tended so often.
const CALM: Duration = Duration::from_secs(30);

/// The writing half.
pub(crate) struct Scribe<W> {
    pub(crate) lane: usize,
    pub(crate) writer: W,
    pub(crate) gate: Gate,
    pub(crate) outputs: mpsc::UnboundedSender<LaneOutput>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) stop: CancellationToken,
}

impl<W: Writer> Scribe<W> {
    /// Does the jobs of its lane, in order, until there are no more.
    ///
    /// # Errors
    /// When a write fails in a way that trying again does not mend.
    pub(crate) async fn run(mut self, mut tray: Tray) -> Result<(), ConnectorError> {
        let monitor = Arc::clone(&self.monitor);
        let listener = LaneMonitor { monitor: &monitor, lane: self.lane };
        loop {
            let job = tokio::select! {
                biased;
                job = tray.jobs.recv() => job,
                () = sleep(CALM) => {
                    self.writer.tend().await;
                    continue;
                }
            };
            let Some(job) = job else { return Ok(()) };
            match job {
                Job::Take { partition, first } => {
                    tokio::select! {
                        biased;
                        // Nothing has been read of it yet, so nothing is left to finish.
                        () = self.stop.cancelled() => {}
                        taken = take_until_settled(&mut self.writer, &partition, first, &listener) => {
                            self.report(LaneOutput::Taken { partition, taken: taken? });
                        }
                    }
                }
                Job::Write(batch) => {
                    let begun = Instant::now();
                    self.write(batch, &listener).await?;
                    tray.progress.send_modify(|progress| progress.took = begun.elapsed());
                    self.writer.tend().await;
                }
                Job::Release(done) => drop(done),
            }
            tray.progress.send_modify(|progress| progress.done += 1);
        }
    }

    async fn write(&mut self, mut batch: Batch, listener: &LaneMonitor<'_>) -> Result<(), ConnectorError> {
        let mut fenced = Vec::new();
        let settled =
            write_until_settled(&mut self.writer, &mut batch, &self.gate, &mut fenced, listener).await?;
        if let Some(Settled { receipt, took }) = settled {
            let point = batch.settle(&receipt);
            self.monitor.written(&batch, &receipt, &point, took);
            self.report(LaneOutput::Settled(point));
        }
        if !fenced.is_empty() {
            self.report(LaneOutput::Fenced(fenced));
        }
        Ok(())
    }

    fn report(&self, output: LaneOutput) {
        // A report that nobody takes any more is of a connector that is being torn down.
        drop(self.outputs.send(output));
    }
}
