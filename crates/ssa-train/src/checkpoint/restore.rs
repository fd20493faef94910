//! Reading a checkpoint back.

use std::path::Path;

use ssa_kernels::{DType, Device};
use ssa_model::checkpoint::TensorFile;
use ssa_model::{ModelConfig, Parameters};

use super::{Checkpoint, MODEL, OPTIMIZER};
use crate::Result;
use crate::plan::TrainPlan;

/// The tensors of a checkpoint.
pub(crate) struct Restored {
    pub(crate) parameters: Parameters,
    pub(crate) m: Parameters,
    pub(crate) v: Parameters,
}

impl Checkpoint {
    /// Reads the weights of the model of a plan, and the moments of those that it trains.
    ///
    /// # Errors
    /// [`TrainError::Model`](crate::TrainError::Model) names the file and the tensor that is
    /// missing or has a different shape.
    pub(crate) fn restore(&self, plan: &TrainPlan) -> Result<Restored> {
        let [weights, optimizer] = [MODEL, OPTIMIZER].map(|file| self.path.join(file));
        let is_trained = |name: &str| plan.trainable().contains(name);
        Ok(Restored {
            parameters: read(&weights, "", plan.model(), |_| true)?,
            m: read(&optimizer, "m.", plan.model(), is_trained)?,
            v: read(&optimizer, "v.", plan.model(), is_trained)?,
        })
    }
}

/// Reads the tensors of the parameters whose name is `kept`.
fn read(
    path: &Path,
    prefix: &str,
    model: &ModelConfig,
    kept: impl Fn(&str) -> bool,
) -> Result<Parameters> {
    let file = TensorFile::open(path)?;
    let mut parameters = Parameters::zeros_for(model, &Device::Cpu, DType::F32, &kept)?;
    let tensors = parameters.named_mut().into_iter().filter(|(name, _)| kept(name));
    for (name, tensor) in tensors {
        let name = format!("{prefix}{name}");
        file.check(&name, tensor.shape())?;
        *tensor = file.read(&name)?;
    }
    Ok(parameters)
}
