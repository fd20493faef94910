//! What a step reports, and the file it is kept in.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Measurements, Result, TrainError};

/// The metrics of one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: usize,
    /// What was minimized: cross-entropy + effective alpha * alignment + weight * z-loss.
    pub loss: f64,
    /// Mean over the targets of the step, in nats.
    pub cross_entropy: f64,
    /// Mean over layers, tokens, heads and dimensions, before the factor alpha; 0 for methods
    /// without it.
    pub alignment: f64,
    /// The alignment of each layer, the first layer first; their mean is `alignment`.
    pub alignment_per_layer: Vec<f64>,
    /// Mean over the targets of the squared logarithm of the softmax's normalizer, before its
    /// weight.
    pub z_loss: f64,
    /// The factor by which the mean alignment loss really entered the gradient. It equals the
    /// configured alpha whatever the number of micro-batches; 0 for methods without alignment.
    pub effective_alpha: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// L2 norm of the gradient of all weights, before clipping.
    pub grad_norm: f64,
    /// Fraction of micro-batches and layers that ran on full attention: 0 or 1 unless the draw is
    /// finer than a step.
    #[serde(rename = "full_streams")]
    pub full_stream_fraction: f64,
    /// Steps so far with a loss or gradient that was not finite. Their rows were skipped, and the
    /// weights stayed as they were.
    pub skipped_steps: u64,
    /// Tokens of the step, padding excluded.
    pub tokens: usize,
    /// Wall-clock time of the step in seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Floating-point operations of the step by its formulas over `seconds`, in 10^12 per second.
    pub tflops: f64,
    /// Model FLOPs utilisation: `tflops` over `monitoring.peak_tflops`, if that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Rows drawn so far over all rows: the passes over the training text if it is one corpus.
    pub epoch: f64,
    /// Passes over each of `data.corpora` completed after the step, in their order; the text of a
    /// run without them counts as one corpus.
    pub corpus_epochs: Vec<f64>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedStep {
    /// What the step reported.
    #[serde(flatten)]
    pub metrics: StepMetrics,
    /// What was measured after it.
    #[serde(flatten)]
    pub measured: Measurements,
}

/// What a file of metrics held when its run was continued.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSteps {
    /// The steps that stay.
    pub steps: Vec<LoggedStep>,
    /// Lines that were cut off.
    pub cut: usize,
}

/// Appends steps to a file, one JSON object a line, each handed to the system at once so that a
/// reader can follow a run and a crash loses nothing.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Opens the file of a run that goes on after step `done`, or starts it. Lines of later steps
    /// are cut off, since those steps are done again.
    ///
    /// # Errors
    /// [`TrainError::Metrics`] names a line that is none; [`TrainError::Io`].
    pub fn resume(path: &Path, done: usize) -> Result<(Self, KeptSteps)> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(TrainError::io("read", path))?,
        };
        let mut steps = Vec::new();
        let mut length = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            // A program that was killed may have left half a line.
            let Some(whole) = line.strip_suffix('\n') else { break };
            let step: LoggedStep =
                serde_json::from_str(whole).map_err(|reason| TrainError::Metrics {
                    path: path.to_owned(),
                    line: index + 1,
                    reason: reason.to_string(),
                })?;
            if step.metrics.step > done {
                break;
            }
            steps.push(step);
            length += line.len();
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        file.set_len(length as u64).map_err(TrainError::io("write", path))?;
        let cut = text.lines().count() - steps.len();
        Ok((Self { path: path.to_owned(), file }, KeptSteps { steps, cut }))
    }

    /// Waits until all lines are on disk.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(TrainError::io("write", &self.path))
    }

    /// Appends one step as a line.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file, for example on a full disk.
    pub fn write(&mut self, step: &LoggedStep) -> Result<()> {
        let line = serde_json::to_string(step).map_err(std::io::Error::from);
        line.and_then(|line| self.file.write_all((line + "\n").as_bytes()))
            .map_err(TrainError::io("write", &self.path))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn step(step: usize) -> StepMetrics {
        StepMetrics {
            step,
            loss: 5.5,
            cross_entropy: 5.0,
            alignment: 0.05,
            alignment_per_layer: vec![0.04, 0.06],
            z_loss: 30.0,
            effective_alpha: 10.0,
            learning_rate: 1e-3,
            grad_norm: 1.5,
            full_stream_fraction: 1.0,
            skipped_steps: 0,
            tokens: 8192,
            seconds: 2.0,
            tokens_per_second: 4096.0,
            tflops: 0.5,
            mfu: Some(0.25),
            epoch: 0.25,
            corpus_epochs: vec![0.25],
        }
    }

    fn line(count: usize) -> LoggedStep {
        LoggedStep { metrics: step(count), measured: Measurements::default() }
    }

    #[test]
    fn every_step_is_a_line_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let (mut metrics, _) = MetricsWriter::resume(&path, 0).unwrap();
        for count in 1..3 {
            metrics.write(&line(count)).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), count);
            let last: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!((&last["step"], &last["loss"]), (&count.into(), &5.5.into()));
        }
    }

    #[test]
    fn a_continued_file_neither_repeats_nor_loses_a_step() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let (mut metrics, kept) = MetricsWriter::resume(&path, 0).unwrap();
        assert_eq!(kept, KeptSteps { steps: vec![], cut: 0 });
        (1..=5).for_each(|count| metrics.write(&line(count)).unwrap());
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"step\":6,\"lo")
            .unwrap();
        let (mut metrics, kept) = MetricsWriter::resume(&path, 3).unwrap();
        assert_eq!(kept, KeptSteps { steps: [1, 2, 3].map(line).to_vec(), cut: 3 });
        metrics.write(&line(4)).unwrap();
        metrics.sync().unwrap();
        assert_eq!(MetricsWriter::resume(&path, 9).unwrap().1.steps, [1, 2, 3, 4].map(line));

        std::fs::write(&path, "{}\n").unwrap();
        let message = MetricsWriter::resume(&path, 9).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, line 1: missing field"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_the_remedy() {
        // A device that refuses every write as a full disk does.
        let path = PathBuf::from("/dev/full");
        let file = File::options().append(true).open(&path).unwrap();
        let message = MetricsWriter { path, file }.write(&line(1)).unwrap_err().to_string();
        assert!(message.starts_with("cannot write /dev/full: "), "{message}");
        assert!(
            message.ends_with("free some space or name a run directory on another disk"),
            "{message}"
        );
    }
}
