//! Errors of a training run.

use std::path::PathBuf;

use ssa_data::{DataError, TextError};
use ssa_files::FileError;
use ssa_kernels::KernelError;
use ssa_model::ModelError;
use ssa_ranks::RanksError;

use crate::checkpoint::CheckpointError;
use crate::config::{ConfigError, Difference};
use crate::diagnosis::Diagnosis;

/// Why a run could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A loss or the gradient is not finite. The weights are those before the step.
    #[error(
        "step {step}: {what} is {value}; training stopped, and the weights of the step before are \
         kept\nhint: lower optimizer.learning_rate, or lengthen the warm-up"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// What was not finite.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A step was abandoned on request ([`Trainer::stop_on`](crate::Trainer::stop_on)). Nothing has
    /// changed.
    #[error("the step was abandoned on request")]
    Stopped,
    /// Skipping rows and rolling back to a checkpoint did not end the bad steps.
    #[error(
        "{diagnosis}\nhint: lower optimizer.learning_rate, lengthen the warm-up, or inspect the \
         text of these rows{}",
        earlier(.0),
        diagnosis = .0
    )]
    Diverged(Box<Diagnosis>),
    /// The initial checkpoint and the configuration have different architectures.
    #[error(
        "{}: the checkpoint and the configuration differ: {}\nhint: set these keys of [model] to \
         the values of the checkpoint, or remove model.init_from",
        directory.display(),
        differences.join(", ")
    )]
    InitFrom {
        /// The checkpoint.
        directory: PathBuf,
        /// Key, configured value and checkpoint value of each difference.
        differences: Vec<String>,
    },
    /// Something else was given as a model.
    #[error(
        "{}: not a model: it has no config.json\nhint: name the directory of a model or of a run",
        path.display()
    )]
    NoModel {
        /// The path.
        path: PathBuf,
    },
    /// A run was given as a model, but has no checkpoint yet.
    #[error(
        "{}: this run has no checkpoint yet\nhint: train it longer, or name another model",
        path.display()
    )]
    NoCheckpoint {
        /// The directory of the run.
        path: PathBuf,
    },
    /// Another process uses the run directory.
    #[error(
        "{} is in use by process {holder}, which holds the lock {}\nhint: wait for it or stop it, \
         or name another run directory",
        directory.display(),
        file.display()
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The lock file.
        file: PathBuf,
        /// Process ID in the lock file.
        holder: String,
    },
    /// The run directory or its lock has been removed or replaced while the run used it.
    #[error(
        "{} was removed or replaced while the run held it, so another process may write to {}\n\
         hint: if the directory is still there, stop other processes and resume the run",
        file.display(),
        directory.display()
    )]
    LockLost {
        /// The directory.
        directory: PathBuf,
        /// The lock file.
        file: PathBuf,
    },
    /// There is no run in the directory.
    #[error("{}: no run to resume: {reason}\nhint: name the directory of a run", path.display())]
    NoRun {
        /// The directory.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// A run was to be resumed with different settings.
    #[error(
        "{}: the configuration has changed: {}\nhint: resume with the settings of the run, start \
         another run, or allow the change with {}",
        place.display(),
        list(differences),
        flags(differences)
    )]
    ConfigChanged {
        /// The configuration or checkpoint of the run.
        place: PathBuf,
        /// The keys.
        differences: Vec<Difference>,
    },
    /// A run was to be resumed with fewer steps than it has.
    #[error(
        "{}: training.steps is {steps}, but the run already has {done} steps\nhint: set \
         training.steps to {done} or more, or start another run",
        path.display()
    )]
    FewerSteps {
        /// The directory of the run.
        path: PathBuf,
        /// `training.steps`.
        steps: usize,
        /// The steps of its newest checkpoint.
        done: usize,
    },
    /// A line of the metrics cannot be parsed.
    #[error(
        "{}, line {line}: {reason}\nhint: correct the line, or remove the file to resume without \
         the earlier steps",
        path.display()
    )]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint is unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be saved.
    #[error("the checkpoint of step {step} could not be saved: {source}\nhint: {}", kept(*older))]
    CheckpointNotSaved {
        /// The step.
        step: usize,
        /// The step of the newest checkpoint, if there is one.
        older: Option<usize>,
        /// The reason.
        source: Box<TrainError>,
    },
    /// The vocabulary of the initial checkpoint is smaller than that of the data.
    #[error(
        "{}: the checkpoint has a vocabulary of {vocab_size}, but the tokenizer of the data has \
         one of {needed}\nhint: prepare the data with the tokenizer of the checkpoint, or leave \
         out model.init_from",
        directory.display()
    )]
    Vocabulary {
        /// The checkpoint.
        directory: PathBuf,
        /// Its vocabulary size.
        vocab_size: usize,
        /// Vocabulary size of the data.
        needed: usize,
    },
    /// The run directory already exists.
    #[error(
        "{} exists\nhint: name another run directory, or pass --overwrite to replace the run in it",
        path.display()
    )]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The run directory already has a finished run.
    #[error(
        "{path} holds a finished run\nhint: name another run directory, pass --overwrite to \
         replace the run, or train it longer: ssa train --resume {path} --set training.steps=N \
         --allow-change training.steps",
        path = path.display()
    )]
    Finished {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to overwrite is not a run directory.
    #[error(
        "{} is not a run directory and is not overwritten: {reason}\nhint: name another directory",
        path.display()
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// A file or directory could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model refused its input, or a checkpoint could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The configuration of a run cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The training text could not be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An op refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The number of ranks does not fit the configuration.
    #[error("{ranks} ranks: training.groups is {groups}, which {ranks} does not divide\nhint: {}",
        fitting_ranks(*ranks, *groups)
    )]
    RankCount {
        /// Number of ranks.
        ranks: usize,
        /// Groups of micro-batches.
        groups: usize,
    },
    /// A rank failed or was lost, or ranks differ.
    #[error(transparent)]
    Ranks(#[from] RanksError),
}

impl From<TextError> for TrainError {
    fn from(error: TextError) -> Self {
        Self::Data(error.into())
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

fn flags(differences: &[Difference]) -> String {
    let flags = differences.iter().map(|difference| format!("--allow-change {}", difference.key));
    flags.collect::<Vec<_>>().join(" ")
}

/// Numbers of ranks and groups that would work.
fn fitting_ranks(ranks: usize, groups: usize) -> String {
    let fitting = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n <= groups);
    let fitting: Vec<String> = fitting.map(|ranks: usize| ranks.to_string()).collect();
    let fitting = format!("start {} ranks", fitting.join(" or "));
    match ranks.is_power_of_two() {
        true => format!("{fitting}, or set training.groups={ranks} or a larger power of two"),
        false => fitting,
    }
}

/// How a run can be resumed after a failed save.
fn earlier(diagnosis: &Diagnosis) -> &'static str {
    match diagnosis.rolled_back_to {
        Some(_) => "\nhint: to resume from an earlier checkpoint, delete the newer ones",
        None => "",
    }
}

fn kept(older: Option<usize>) -> String {
    match older {
        Some(step) => {
            format!("the checkpoint of step {step} is complete, and the run can be resumed from it")
        }
        None => "the run can be resumed from the beginning".to_owned(),
    }
}
