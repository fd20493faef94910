//! How far a run is, from its files alone.

use std::path::Path;

use super::{RunDir, is_vacant};
use crate::checkpoint::Checkpoints;
use crate::{Result, TrainError};

/// How far the run in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not started: there is no directory, or an empty one.
    New,
    /// It has steps or its evaluation left to do.
    Unfinished {
        /// The step of its newest checkpoint, 0 without one.
        step: usize,
    },
    /// It is trained and has a summary.
    Finished,
}

impl RunDir {
    /// How far the run in a directory is. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// [`TrainError::NotARun`] if there is something else; [`TrainError::File`].
    pub fn progress_of(path: &Path) -> Result<Progress> {
        if !path.exists() || is_vacant(path)? {
            return Ok(Progress::New);
        }
        Self::config_path_of(path).map_err(|error| match error {
            TrainError::NoRun { path, reason } => TrainError::NotARun { path, reason },
            other => other,
        })?;
        if Self::summary_of(path).exists() {
            return Ok(Progress::Finished);
        }
        let steps = Checkpoints::of_run(path).steps()?;
        Ok(Progress::Unfinished { step: steps.last().copied().unwrap_or(0) })
    }
}
