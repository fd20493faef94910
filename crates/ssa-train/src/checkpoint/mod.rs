//! Checkpoints: everything a run needs to resume as if it had never stopped.
//!
//! ```text
//! checkpoints/
//!   latest -> step-200     the newest one, for users; this crate does not read it
//!   step-200/              a directory with such a name is complete: the rename comes last
//!     config.json            the model in Hugging Face layout
//!     model.safetensors
//!     configuration_ssa.py   the model in Python, for transformers
//!     modeling_ssa.py
//!     optimizer.safetensors  moments of AdamW: `m.<name>` and `v.<name>` of every trained weight
//!     config.toml            the configuration of the run
//!     state.json             the progress of the run
//!     SHA256SUMS             checksums of the other files, as `sha256sum -c` reads them
//! ```
//!
//! Random state needs no file: every draw is a function of the seed and of the step or the rows
//! read.

mod background;
mod error;
mod restore;
mod save;
mod state;
mod sums;
#[cfg(test)]
mod tests;
mod text;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ssa_files::{FileError, Operation, Sha256};

use crate::config::TrainConfig;
use crate::{Result, TrainError};

pub use error::CheckpointError;
pub use state::{BadSteps, RunState};

pub(crate) use background::BackgroundSaver;
pub(crate) use restore::Restored;
pub(crate) use save::{Retention, Snapshot};

const DIRECTORY: &str = "checkpoints";
const LATEST: &str = "latest";
const MODEL_CONFIG: &str = "config.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const RUN_CONFIG: &str = "config.toml";
const STATE: &str = "state.json";
const SUMS: &str = "SHA256SUMS";

/// The files that a run needs to resume.
const FILES: [&str; 5] = [MODEL_CONFIG, MODEL, OPTIMIZER, RUN_CONFIG, STATE];

/// The checkpoints of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    directory: PathBuf,
}

/// A checkpoint whose files exist and match their checksums.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: RunState,
    config: TrainConfig,
}

impl Checkpoints {
    /// The checkpoints of the run in a directory.
    pub fn of_run(run: &Path) -> Self {
        Self { directory: run.join(DIRECTORY) }
    }

    /// The directory of the checkpoints.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a step's checkpoint.
    pub fn path(&self, step: usize) -> PathBuf {
        self.directory.join(format!("step-{step}"))
    }

    /// The steps that have a checkpoint, ascending.
    ///
    /// # Errors
    /// [`TrainError::File`] if the directory cannot be read.
    pub fn steps(&self) -> Result<Vec<usize>> {
        let mut steps: Vec<usize> =
            self.entries()?.iter().filter_map(|name| step_of(name)).collect();
        steps.retain(|step| self.path(*step).is_dir());
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest checkpoint, verified, if one has been saved.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the damaged file and a remedy; [`TrainError::File`].
    pub fn newest(&self) -> Result<Option<Checkpoint>> {
        let steps = self.steps()?;
        let Some((&step, older)) = steps.split_last() else { return Ok(None) };
        let checkpoint = Checkpoint::open(&self.path(step)).map_err(|error| match error {
            TrainError::Checkpoint(CheckpointError::Damaged {
                file, problem, checkpoint, ..
            }) => {
                CheckpointError::Damaged { file, problem, checkpoint, older: older.last().copied() }
                    .into()
            }
            other => other,
        })?;
        Ok(Some(checkpoint))
    }

    /// Removes the remains of an interrupted save or removal.
    pub(crate) fn remove_partial(&self) -> Result<()> {
        for name in self.entries()? {
            if is_partial(&name) {
                ssa_files::remove_tree(&self.directory.join(name))?;
            }
        }
        Ok(ssa_files::remove_leftovers(&self.directory)?)
    }

    /// Removes all checkpoints and nothing else, and the directory if it is empty afterwards.
    pub(crate) fn remove_all(&self) -> Result<()> {
        for step in self.steps()? {
            ssa_files::remove_tree(&self.path(step))?;
        }
        self.remove_partial()?;
        ssa_files::remove_tree(&self.directory.join(LATEST))?;
        Ok(ssa_files::remove_directory_if_empty(&self.directory)?)
    }

    /// Names of all entries; empty if the directory does not exist.
    fn entries(&self) -> Result<Vec<String>> {
        let error = || FileError::at(Operation::Read, &self.directory);
        let entries = match fs::read_dir(&self.directory) {
            Err(reason) if reason.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(error())?,
        };
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().into_string().unwrap_or_default())
        };
        Ok(entries.map(name).collect::<Result<_, _>>().map_err(error())?)
    }
}

impl Checkpoint {
    /// Opens a checkpoint and verifies every file.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let damaged = |file: &str, problem: String| CheckpointError::Damaged {
            file: path.join(file),
            problem,
            checkpoint: path.to_owned(),
            older: None,
        };
        sums::verify(path, &FILES).map_err(|(file, problem)| damaged(&file, problem))?;
        let read = |file: &str| fs::read_to_string(path.join(file));
        let text = read(STATE).map_err(|reason| damaged(STATE, reason.to_string()))?;
        let state = RunState::parse(&text, &path.join(STATE))?;
        let text = read(RUN_CONFIG).map_err(|reason| damaged(RUN_CONFIG, reason.to_string()))?;
        if Sha256::of(&text).to_string() != state.config_sha256 {
            let problem = "it is not the configuration that state.json was written with".to_owned();
            return Err(damaged(RUN_CONFIG, problem).into());
        }
        let origin = path.join(RUN_CONFIG).display().to_string();
        let config = TrainConfig::parse(&text, &origin, &[]).map_err(|reason| {
            damaged(RUN_CONFIG, format!("this program cannot read it: {reason}"))
        })?;
        Ok(Self { path: path.to_owned(), state, config })
    }

    /// The directory of the checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the run.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The configuration of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }
}

/// Verifies the model files in a directory if it has checksums, as checkpoints of runs do. The
/// optimizer moments are not read.
///
/// # Errors
/// [`CheckpointError::DamagedModel`] names the file.
pub fn verify_model(directory: &Path) -> Result<()> {
    if !directory.join(SUMS).exists() {
        return Ok(());
    }
    let damaged = |(file, problem)| CheckpointError::DamagedModel {
        file: directory.join::<String>(file),
        problem,
    };
    Ok(sums::verify_some(directory, &[MODEL_CONFIG, MODEL], |file| file != OPTIMIZER)
        .map_err(damaged)?)
}

/// The step in a directory name, if the name is exactly the one from [`Checkpoints::path`]:
/// `step-040` is not a checkpoint.
fn step_of(name: &str) -> Option<usize> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name == format!("step-{step}")).then_some(step)
}

/// Whether a name is `step-N.tmp`: being written or removed.
fn is_partial(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|stem| step_of(stem).is_some())
}

/// The path of an incomplete checkpoint.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}
