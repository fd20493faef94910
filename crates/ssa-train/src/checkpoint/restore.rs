//! Reading a checkpoint back.

use std::path::Path;

use ssa_model::checkpoint::TensorFile;
use ssa_model::{ModelConfig, Parameters};

use super::{Checkpoint, MODEL, OPTIMIZER};
use crate::Result;

/// The tensors of a checkpoint.
pub(crate) struct Restored {
    pub(crate) parameters: Parameters,
    pub(crate) m: Parameters,
    pub(crate) v: Parameters,
}

impl Checkpoint {
    /// Reads weights and moments of a model of this configuration.
    ///
    /// # Errors
    /// [`TrainError::Model`](crate::TrainError::Model) names the file and the tensor that is
    /// missing or has a different shape.
    pub(crate) fn restore(&self, model: &ModelConfig) -> Result<Restored> {
        let [weights, optimizer] = [MODEL, OPTIMIZER].map(|file| self.path.join(file));
        Ok(Restored {
            parameters: read(&weights, "", model)?,
            m: read(&optimizer, "m.", model)?,
            v: read(&optimizer, "v.", model)?,
        })
    }
}

fn read(path: &Path, prefix: &str, model: &ModelConfig) -> Result<Parameters> {
    let file = TensorFile::open(path)?;
    let mut parameters = Parameters::zeros(model)?;
    for (name, tensor) in parameters.named_mut() {
        let name = format!("{prefix}{name}");
        file.check(&name, tensor.shape())?;
        *tensor = file.read(&name)?;
    }
    Ok(parameters)
}
