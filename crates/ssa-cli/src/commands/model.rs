//! The model of `--model`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_kernels::Device;
use ssa_model::Model;
use ssa_train::{Checkpoints, RunDir};

use super::device;
use crate::args::DeviceChoice;
use crate::display::note;
use crate::exit::FileError;

/// A model and the checkpoint directory that it was read from.
pub(super) struct LoadedModel {
    pub(super) model: Model,
    pub(super) directory: PathBuf,
}

/// Reads a checkpoint, or the newest one of a run, onto the device.
pub(super) fn load(path: &Path, choice: DeviceChoice) -> Result<LoadedModel> {
    let directory = checkpoint_of(path)?;
    ssa_train::verify_model(&directory)?;
    let model = Model::load(&directory)?;
    let model = match device::open(choice)? {
        Device::Cpu => model,
        device => model.to_device(&device)?,
    };
    Ok(LoadedModel { model, directory })
}

/// The directory itself unless it is that of a run: then that of the trained model, or while the
/// run is not finished its last checkpoint.
pub(super) fn checkpoint_of(path: &Path) -> Result<PathBuf> {
    if path.join("config.json").exists() || RunDir::config_path_of(path).is_err() {
        return Ok(path.to_owned());
    }
    let checkpoints = Checkpoints::of_run(path);
    let trained = path.join("checkpoint");
    let directory = if trained.join("config.json").exists() {
        trained
    } else if let Some(step) = checkpoints.steps()?.last() {
        checkpoints.path(*step)
    } else {
        let message = format!(
            "{}: this run has no checkpoint yet\nhint: train it further, or name another model",
            path.display()
        );
        return Err(FileError(message).into());
    };
    note(&format!("{} is a run: using {}", path.display(), directory.display()));
    Ok(directory)
}
