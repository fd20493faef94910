//! Where the numbers of a run go: `metrics.jsonl` and, if wanted, TensorBoard event files.

use crate::metrics::{KeptSteps, LoggedStep, MetricsWriter};
use crate::tensorboard::EventWriter;
use crate::{Result, RunDir, TrainPlan};

/// Writes every step to all logs of a run.
#[derive(Debug)]
pub(crate) struct RunLog {
    metrics: MetricsWriter,
    events: Option<EventWriter>,
}

impl RunLog {
    /// The logs of a run that has done `done` steps, and what they hold of these.
    pub(crate) fn open(
        run_dir: &RunDir,
        plan: &TrainPlan,
        done: usize,
    ) -> Result<(Self, KeptSteps)> {
        let (metrics, kept) = run_dir.metrics(done)?;
        let events = if plan.config().monitoring.tensorboard {
            Some(run_dir.events(done + 1)?)
        } else {
            None
        };
        Ok((Self { metrics, events }, kept))
    }

    /// Writes what one step reported and what was measured after it.
    pub(crate) fn write(&mut self, step: &LoggedStep) -> Result<()> {
        self.metrics.write(step)?;
        match &mut self.events {
            Some(events) => events.write(&step.metrics, &step.measured),
            None => Ok(()),
        }
    }

    /// Waits until the logs are on disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.events.as_ref().map_or(Ok(()), EventWriter::sync)
    }
}
