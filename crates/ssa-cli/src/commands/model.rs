//! The model of `--model`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_data::TOKENIZER_FILES;
use ssa_files::{FileError, Operation};
use ssa_infer::InferenceModel;
use ssa_kernels::Device;
use ssa_model::{Model, ModelConfig, checkpoint, parameter_count};
use ssa_train::ModelSource;

use super::{device, memory};
use crate::args::DeviceChoice;
use crate::display::note;
use crate::exit;

/// A model and its checkpoint directory.
pub(super) struct LoadedModel {
    pub(super) model: Model,
    pub(super) directory: PathBuf,
}

/// Loads a model to the device: a checkpoint, the newest one of a run, or a model of the Hub.
pub(super) fn load(name: &Path, choice: DeviceChoice) -> Result<LoadedModel> {
    let loaded = read(name)?;
    on_device(loaded, device::open(choice)?)
}

/// As [`load`], and checks first that there is also memory for [`inference`].
pub(super) fn load_for_inference(name: &Path, choice: DeviceChoice) -> Result<LoadedModel> {
    let device = device::open(choice)?;
    let packed = if device == Device::Cpu { PACKED } else { 0 };
    on_device(read_with(name, packed)?, device)
}

fn on_device(loaded: LoadedModel, device: Device) -> Result<LoadedModel> {
    match device {
        Device::Cpu => Ok(loaded),
        device => Ok(LoadedModel { model: loaded.model.to_device(&device)?, ..loaded }),
    }
}

/// Reads a model, and warns of weights that are not finite.
pub(super) fn read(name: &Path) -> Result<LoadedModel> {
    read_with(name, 0)
}

/// Reads a model if there is memory for so many more bytes of each weight.
fn read_with(name: &Path, more_bytes: usize) -> Result<LoadedModel> {
    let ModelSource { directory, of_run } = ModelSource::find(name)?;
    if of_run {
        note(&format!("{} is a run: using {}", name.display(), directory.display()));
    }
    ssa_train::verify_model(&directory)?;
    let config = ModelConfig::read(&directory.join(checkpoint::CONFIG))?;
    let bytes = weights(&config, size_of::<f32>() + more_bytes);
    memory::require(&Device::Cpu, bytes, "reading the weights", more)?;
    let model = Model::load(&directory)?;
    if let Some(tensor) = model.parameters().first_not_finite()? {
        note(&format!("warning: {}: `{tensor}` holds NaN or infinities", directory.display()));
    }
    Ok(LoadedModel { model, directory })
}

/// A model for inference, on the device that it is on.
pub(super) fn inference(model: &Model) -> Result<InferenceModel> {
    if let Device::Cpu = model.device() {
        let packed = weights(model.config(), PACKED);
        memory::require(&Device::Cpu, packed, "packing the weights for inference", more)?;
    }
    Ok(InferenceModel::new(model, model.config().attention_method)?)
}

/// Bytes of a weight that is packed for inference; one that is not exact in `bf16` takes twice as
/// much.
const PACKED: usize = size_of::<u16>();

/// Bytes of all weights.
fn weights(config: &ModelConfig, element: usize) -> usize {
    let elements = usize::try_from(parameter_count(config)).unwrap_or(usize::MAX);
    elements.saturating_mul(element)
}

fn more(_: u64) -> String {
    exit::MORE_MEMORY.to_owned()
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
