//! What a step reports, and the file it is kept in.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Result, TrainError};

/// The measurements of one optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: usize,
    /// What was minimised: cross-entropy + alpha * alignment.
    pub loss: f64,
    /// Mean over the targets of the step, in nats.
    pub cross_entropy: f64,
    /// Mean over layers, tokens, heads and dimensions, before the factor alpha; 0 for methods without it.
    pub alignment: f64,
    /// The factor by which the mean alignment loss really entered the gradient. It equals the configured alpha
    /// whatever the number of micro-batches; 0 for methods without alignment.
    pub effective_alpha: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// L2 norm of the gradient of all weights, before clipping.
    pub grad_norm: f64,
    /// Share of micro-batches and layers that ran on full attention: 0 or 1 unless the draw is finer than a step.
    pub full_streams: f64,
    /// Tokens of the step, padding excluded.
    pub tokens: usize,
    /// Wall-clock time of the step in seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Passes over the training text completed after the step.
    pub epoch: f64,
}

/// Appends steps to a file, one JSON object a line, each handed to the system at once so that a reader can follow a
/// run and a crash loses nothing.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Creates the file, which must not exist.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(TrainError::io("create", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one step.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file, for example on a full disk.
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<()> {
        let line = serde_json::to_string(metrics).map_err(std::io::Error::from);
        line.and_then(|line| self.file.write_all((line + "\n").as_bytes()))
            .map_err(TrainError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> StepMetrics {
        StepMetrics {
            step,
            loss: 5.5,
            cross_entropy: 5.0,
            alignment: 0.05,
            effective_alpha: 10.0,
            learning_rate: 1e-3,
            grad_norm: 1.5,
            full_streams: 1.0,
            tokens: 8192,
            seconds: 2.0,
            tokens_per_second: 4096.0,
            epoch: 0.25,
        }
    }

    #[test]
    fn every_step_is_a_line_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut metrics = MetricsWriter::create(&path).unwrap();
        for count in 1..3 {
            metrics.write(&step(count)).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), count);
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!((&last["step"], &last["loss"]), (&count.into(), &5.5.into()));
        }
        let message = MetricsWriter::create(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl"), "{message}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_the_remedy() {
        // A device that refuses every write as a full disk does.
        let path = PathBuf::from("/dev/full");
        let file = File::options().append(true).open(&path).unwrap();
        let message = MetricsWriter { path, file }.write(&step(1)).unwrap_err().to_string();
        assert!(message.starts_with("cannot write /dev/full: "), "{message}");
        assert!(message.ends_with("free some space or name a run directory on another disk"), "{message}");
    }
}
