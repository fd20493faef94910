//! The model of `--model`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_data::TOKENIZER_FILES;
use ssa_files::{FileError, Operation};
use ssa_kernels::Device;
use ssa_model::Model;
use ssa_train::ModelSource;

use super::device;
use crate::args::DeviceChoice;
use crate::display::note;

/// A model and its checkpoint directory.
pub(super) struct LoadedModel {
    pub(super) model: Model,
    pub(super) directory: PathBuf,
}

/// Loads a model to the device: a checkpoint, the newest one of a run, or a model of the Hub.
pub(super) fn load(name: &Path, choice: DeviceChoice) -> Result<LoadedModel> {
    let LoadedModel { model, directory } = read(name)?;
    let model = match device::open(choice)? {
        Device::Cpu => model,
        device => model.to_device(&device)?,
    };
    Ok(LoadedModel { model, directory })
}

/// Reads a model, and warns of weights that are not finite.
pub(super) fn read(name: &Path) -> Result<LoadedModel> {
    let ModelSource { directory, of_run } = ModelSource::find(name)?;
    if of_run {
        note(&format!("{} is a run: using {}", name.display(), directory.display()));
    }
    ssa_train::verify_model(&directory)?;
    let model = Model::load(&directory)?;
    if let Some(tensor) = model.parameters().first_not_finite()? {
        note(&format!("warning: {}: `{tensor}` holds NaN or infinities", directory.display()));
    }
    Ok(LoadedModel { model, directory })
}

/// Sampling defaults of a model, as transformers keeps them.
const GENERATION_CONFIG: &str = "generation_config.json";

/// Copies the other files of a model, if they exist: tokenizer and sampling defaults.
pub(super) fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES.iter().chain(&[GENERATION_CONFIG]) {
        let path = from.join(name);
        if path.is_file() {
            let bytes = fs::read(&path).map_err(FileError::at(Operation::Read, &path))?;
            ssa_files::write(&to.join(name), bytes)?;
        }
    }
    Ok(())
}
