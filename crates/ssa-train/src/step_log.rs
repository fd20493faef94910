//! The log of the steps of a run: `metrics.jsonl` and, optionally, TensorBoard event files.

use std::path::Path;

use ssa_files::{JsonLines, Lines};

use crate::metrics::LoggedStep;
use crate::tensorboard::EventWriter;
use crate::{Result, TrainError};

/// Name of the metrics file in a run directory.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Writes every step to the logs of a run. Each write reaches the operating system before the call
/// returns, so a reader can follow the run, and a crash of the process loses nothing.
#[derive(Debug)]
pub(crate) struct StepLog {
    metrics: JsonLines,
    events: Option<EventWriter>,
}

/// The contents of `metrics.jsonl` when the run was resumed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeptSteps {
    /// The steps that stay.
    pub(crate) steps: Vec<LoggedStep>,
    /// Number of removed lines.
    pub(crate) cut: usize,
}

impl StepLog {
    /// Opens the logs of a run that has done `done` steps. Lines of later steps are removed,
    /// because those steps are repeated.
    ///
    /// # Errors
    /// [`TrainError::Metrics`] names a line that cannot be parsed; [`TrainError::File`].
    pub(crate) fn open(run: &Path, done: usize, tensorboard: bool) -> Result<(Self, KeptSteps)> {
        let (metrics, kept) = open_metrics(&run.join(METRICS), done)?;
        let events = tensorboard.then(|| EventWriter::create(run, done + 1)).transpose()?;
        Ok((Self { metrics, events }, kept))
    }

    /// Writes the metrics of a step and the measurements after it.
    ///
    /// # Errors
    /// [`TrainError::File`], for example on a full disk.
    pub(crate) fn write(&mut self, step: &LoggedStep) -> Result<()> {
        self.metrics.append(step)?;
        match &mut self.events {
            Some(events) => events.write(&step.metrics, &step.measured),
            None => Ok(()),
        }
    }

    /// Waits until the logs are on disk.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.events.as_ref().map_or(Ok(()), EventWriter::sync)
    }
}

fn open_metrics(path: &Path, done: usize) -> Result<(JsonLines, KeptSteps)> {
    let Lines { text, has_unfinished } = ssa_files::read_lines(path)?;
    let (mut steps, mut bytes) = (Vec::new(), 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let step: LoggedStep = serde_json::from_str(line).map_err(|reason| {
            let reason = reason.to_string();
            TrainError::Metrics { path: path.to_owned(), line: index + 1, reason }
        })?;
        if step.metrics.step > done {
            break;
        }
        steps.push(step);
        bytes += line.len();
    }
    let cut = text.lines().count() + usize::from(has_unfinished) - steps.len();
    Ok((JsonLines::open_cut(path, bytes as u64)?, KeptSteps { steps, cut }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::tempdir;

    use super::*;
    use crate::Measurements;
    use crate::metrics::tests::step;

    fn line(count: usize) -> LoggedStep {
        LoggedStep { metrics: step(count), measured: Measurements::default() }
    }

    fn open(run: &Path, done: usize) -> Result<(StepLog, KeptSteps)> {
        StepLog::open(run, done, false)
    }

    #[test]
    fn every_step_is_a_line_immediately() {
        let directory = tempdir().unwrap();
        let (mut log, _) = open(directory.path(), 0).unwrap();
        for count in 1..3 {
            log.write(&line(count)).unwrap();
            let text = fs::read_to_string(directory.path().join(METRICS)).unwrap();
            assert_eq!(text.lines().count(), count);
            let last: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!((&last["step"], &last["loss"]), (&count.into(), &5.5.into()));
        }
    }

    #[test]
    fn a_continued_file_neither_repeats_nor_loses_a_step() {
        let directory = tempdir().unwrap();
        let path = directory.path().join(METRICS);
        let (mut log, kept) = open(directory.path(), 0).unwrap();
        assert_eq!(kept, KeptSteps { steps: vec![], cut: 0 });
        (1..=5).for_each(|count| log.write(&line(count)).unwrap());
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\":6,\"lo").unwrap();
        let (mut log, kept) = open(directory.path(), 3).unwrap();
        assert_eq!(kept, KeptSteps { steps: [1, 2, 3].map(line).to_vec(), cut: 3 });
        log.write(&line(4)).unwrap();
        log.sync().unwrap();
        assert_eq!(open(directory.path(), 9).unwrap().1.steps, [1, 2, 3, 4].map(line));

        fs::write(&path, "{}\n").unwrap();
        let message = open(directory.path(), 9).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, line 1: missing field"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }

    /// As earlier versions wrote for a step in which no time passed.
    #[test]
    fn null_is_a_number_that_is_not_finite_and_nothing_else() {
        let directory = tempdir().unwrap();
        let path = directory.path().join(METRICS);
        let whole = serde_json::to_string(&line(1)).unwrap();
        let with_null = |entry: &str, null: &str| whole.replace(entry, null) + "\n";
        let speed = with_null("\"tokens_per_second\":4096.0", "\"tokens_per_second\":null");
        let layers = with_null("[0.04,0.06]", "[0.04,null]");
        fs::write(&path, speed + &layers).unwrap();
        let steps = open(directory.path(), 9).unwrap().1.steps;
        assert!(steps[0].metrics.tokens_per_second.is_nan());
        assert!(steps[1].metrics.alignment_per_layer[1].is_nan());
        assert_eq!(steps[1].metrics.tokens_per_second, 4096.0);

        for entry in ["\"step\":1", "\"tokens\":8192", "\"skipped_steps\":0"] {
            let null = format!("{}:null", entry.split(':').next().unwrap());
            let text = whole.clone() + "\n" + &with_null(entry, &null);
            fs::write(&path, text).unwrap();
            let message = open(directory.path(), 9).unwrap_err().to_string();
            assert!(message.contains("metrics.jsonl, line 2: invalid type: null"), "{message}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_the_remedy() {
        // A device on which every write fails like on a full disk.
        let metrics = JsonLines::open(Path::new("/dev/full")).unwrap();
        let mut log = StepLog { metrics, events: None };
        let message = log.write(&line(1)).unwrap_err().to_string();
        assert!(message.starts_with("cannot write /dev/full: "), "{message}");
        assert!(
            message.ends_with("free some space, or use a directory on another disk"),
            "{message}"
        );
    }
}
