//! Errors of a training run.

use std::io;
use std::path::{Path, PathBuf};

use ssa_data::DataError;
use ssa_kernels::KernelError;
use ssa_model::ModelError;

/// Why a run could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A loss or the gradient is no longer a number. The weights are those before the step.
    #[error(
        "step {step}: {what} is {value}; training stopped and the weights of the step before are kept. Lower \
         optimizer.learning_rate or lengthen the warm-up"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// What was not finite.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The checkpoint to start from has another architecture than the configuration.
    #[error(
        "{}: the checkpoint and the configuration differ: {}; set these keys of [model] to the values of the \
         checkpoint, or leave out model.init_from",
        directory.display(),
        differences.join(", ")
    )]
    InitFrom {
        /// The checkpoint.
        directory: PathBuf,
        /// Key, configured value and checkpoint value of each difference.
        differences: Vec<String>,
    },
    /// The named run directory exists.
    #[error("{} exists; name another run directory, or pass --overwrite to replace the run in it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to overwrite was not written by a run.
    #[error("{} is not a run directory and is not overwritten: {reason}; name another directory", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// What shows it.
        reason: &'static str,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}; {remedy}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The model refused its input, or a checkpoint could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training text could not be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An op refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl TrainError {
    /// For `map_err`: names the file and what to do about the usual reasons.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let remedy = match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space or name a run directory on another disk"
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "name a run directory that you may write to"
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    "name a run directory whose parents are directories"
                }
                _ => "check the disk, or name another run directory",
            };
            Self::Io { action, path: path.to_owned(), remedy, source }
        }
    }
}
