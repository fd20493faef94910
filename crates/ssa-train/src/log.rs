//! Where the numbers of a run go: `metrics.jsonl` and, if wanted, TensorBoard event files.

use serde::Serialize;

use crate::tensorboard::EventWriter;
use crate::{Measurements, MetricsWriter, Result, StepMetrics};

/// Writes every step to all logs of a run.
#[derive(Debug)]
pub struct RunLog {
    metrics: MetricsWriter,
    events: Option<EventWriter>,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    metrics: &'a StepMetrics,
    #[serde(flatten)]
    measured: &'a Measurements,
}

impl RunLog {
    /// A log to these files.
    pub fn new(metrics: MetricsWriter, events: Option<EventWriter>) -> Self {
        Self { metrics, events }
    }

    /// Writes what one step reported and what was measured after it.
    ///
    /// # Errors
    /// [`TrainError::Io`](crate::TrainError::Io) names the file, for example on a full disk.
    pub fn write(&mut self, metrics: &StepMetrics, measured: &Measurements) -> Result<()> {
        self.metrics.write(&Line { metrics, measured })?;
        match &mut self.events {
            Some(events) => events.write(metrics, measured),
            None => Ok(()),
        }
    }
}
