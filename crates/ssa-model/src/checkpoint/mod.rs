//! Models on disk: Hugging Face folders with `config.json`, safetensors weights and the model in
//! Python.

mod python;
mod tensor_file;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;

use crate::{ModelConfig, Parameters, Result};

pub use tensor_file::{TensorFile, write_tensors};

use weights::Weights;

/// The configuration of a model.
pub const CONFIG: &str = "config.json";
/// Its weights, if they are in one file.
const WEIGHTS: &str = "model.safetensors";
/// Which file has which tensor, if there are several.
const INDEX: &str = "model.safetensors.index.json";

/// The files that [`save`] writes of a model with gates, in this order.
pub const FILES: [&str; 4] = [WEIGHTS, python::CONFIGURATION, python::MODELING, CONFIG];

/// The files that [`save`] writes of a model: transformers knows those without gates.
pub fn files(config: &ModelConfig) -> &'static [&'static str] {
    if config.gated { &FILES } else { &[WEIGHTS, CONFIG] }
}

/// Writes the [`files`] of a model into a folder, which is created if it is missing: weights
/// (`f32`), the Python code of a model with gates, and the configuration. Each file is replaced
/// atomically.
///
/// # Errors
/// [`ModelError::File`](crate::ModelError::File), for example if the disk is full;
/// [`ModelError::Parameters`](crate::ModelError::Parameters) if the parameters do not match the
/// configuration.
pub fn save(dir: &Path, config: &ModelConfig, parameters: &Parameters) -> Result<()> {
    parameters.check(config)?;
    ssa_files::create_directories(dir)?;
    // transformers requires this entry: the tensors have PyTorch's layout.
    write_tensors(&dir.join(WEIGHTS), &parameters.named(), &[("format", "pt")])?;
    let mut json = config.to_json();
    if config.gated {
        python::write(dir)?;
        json["auto_map"] = python::auto_map();
    }
    Ok(ssa_files::write(&dir.join(CONFIG), format!("{json:#}\n"))?)
}

/// Reads a folder: `config.json` and `model.safetensors`, or if that is missing, the shards named
/// in `model.safetensors.index.json`. `F32`, `BF16` and `F16` weights become `f32`.
///
/// All names and shapes are checked before the first tensor is read. `lm_head.weight` is ignored if
/// the configuration ties it to the embedding, as are the `rotary_emb.inv_freq` tables of old
/// checkpoints.
///
/// # Errors
/// [`ModelError`](crate::ModelError) names the file and what is wrong: a missing or corrupt file, a
/// different architecture, or a tensor that is missing, unexpected, or has the wrong shape or
/// dtype.
pub fn load(dir: &Path) -> Result<(ModelConfig, Parameters)> {
    let config = ModelConfig::read(&dir.join(CONFIG))?;
    let weights = Weights::open(dir)?;
    weights.check(&config)?;
    let parameters = Parameters::build(&config, |name, _| weights.read(name))?;
    Ok((config, parameters))
}
