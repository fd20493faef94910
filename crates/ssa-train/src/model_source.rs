//! Where a model comes from: a directory, a run, or the Hugging Face Hub.

use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoints;
use crate::run_dir::RunDir;
use crate::{Result, TrainError};

/// A model that a user named, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSource {
    /// The directory of its `config.json`.
    pub directory: PathBuf,
    /// Whether `directory` is within a run that was named.
    pub of_run: bool,
}

impl ModelSource {
    /// Finds a model by the name that a user gave: a directory in Hugging Face layout; that of a
    /// run, which stands for its trained model, or while it is not finished for its last
    /// checkpoint; or a model of the Hub ([`ssa_data::model_directory`]), which is downloaded.
    ///
    /// # Errors
    /// [`TrainError::Data`] if there is no such directory or model; [`TrainError::NoModel`] if
    /// something else is there; [`TrainError::NoCheckpoint`] if a run has none yet.
    pub fn find(name: &Path) -> Result<Self> {
        let path = ssa_data::model_directory(name)?;
        if path.join("config.json").exists() {
            return Ok(Self { directory: path, of_run: false });
        }
        if RunDir::config_path_of(&path).is_err() {
            return Err(TrainError::NoModel { path });
        }
        let checkpoints = Checkpoints::of_run(&path);
        let trained = path.join("checkpoint");
        let directory = if trained.join("config.json").exists() {
            trained
        } else if let Some(step) = checkpoints.steps()?.last() {
            checkpoints.path(*step)
        } else {
            return Err(TrainError::NoCheckpoint { path });
        };
        Ok(Self { directory, of_run: true })
    }
}
