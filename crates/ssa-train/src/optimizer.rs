//! The optimiser over all weights of a model.

use ssa_kernels::ops::adamw::{AdamwOptions, Moments, adamw_step, join_master, split_master};
use ssa_kernels::ops::grad_norm::{GradScale, clip_factor, grad_norm};
use ssa_kernels::{DType, Device, Tensor};
use ssa_model::{ModelConfig, Parameters};

use crate::Result;

/// Which weights are decayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecayedWeights {
    /// Every tensor of more than one axis: all but the weights of the norms. Decay pulls towards 0,
    /// and their neutral value is 1.
    Matrices,
    /// The matrices of the layers: neither norms nor embedding and head.
    Layers,
    /// Every tensor.
    All,
}

/// Constants of the optimiser over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Decay of the mean of the gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay of the weights named by `decayed`.
    pub weight_decay: f32,
    /// The weights that decay.
    pub decayed: DecayedWeights,
    /// Largest L2 norm of the gradient of all weights together.
    pub max_grad_norm: f64,
}

/// AdamW with its moments.
///
/// It works on `f32` master weights everywhere. On a GPU a model computes with their upper halves,
/// and the lower ones, the residues, lie here.
#[derive(Clone, Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    residues: Option<Parameters>,
    m: Parameters,
    v: Parameters,
    steps: u64,
}

impl Optimizer {
    /// An optimiser with zero moments.
    ///
    /// # Errors
    /// As [`Parameters::zeros`].
    pub fn new(options: OptimizerOptions, config: &ModelConfig) -> Result<Self> {
        Ok(Self::restored(options, Parameters::zeros(config)?, Parameters::zeros(config)?, 0))
    }

    /// An optimiser that goes on after `steps` steps with the moments it had then.
    pub(crate) fn restored(
        options: OptimizerOptions,
        m: Parameters,
        v: Parameters,
        steps: u64,
    ) -> Self {
        Self { options, residues: None, m, v, steps }
    }

    /// Moves the moments to a device and splits `f32` master weights for it; returns the weights to
    /// compute with.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if the device has no place for them.
    pub(crate) fn move_to(&mut self, masters: &Parameters, device: &Device) -> Result<Parameters> {
        let moved = |moments: &Parameters| {
            moments.try_map(|_, tensor| -> Result<Tensor> {
                // Zeros need not travel.
                if self.steps == 0 {
                    return Ok(Tensor::zeros_on(device, DType::F32, tensor.shape())?);
                }
                Ok(tensor.to_device(device, DType::F32)?)
            })
        };
        (self.m, self.v) = (moved(&self.m)?, moved(&self.v)?);
        let mut residues = Vec::new();
        let weights = masters.try_map(|_, master| -> Result<Tensor> {
            let (weight, residue) = split_master(&master.to_device(device, DType::F32)?)?;
            residues.extend(residue);
            Ok(weight)
        })?;
        let mut residues = residues.into_iter();
        self.residues = match device {
            Device::Cpu => None,
            _ => Some(weights.try_map(|_, weight| -> Result<Tensor> {
                match residues.next() {
                    Some(residue) => Ok(residue),
                    None => Ok(Tensor::zeros_on(device, DType::I16, weight.shape())?),
                }
            })?),
        };
        Ok(weights)
    }

    /// The master weights of the weights that are computed with, on the CPU.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if the device fails.
    pub(crate) fn masters(&self, weights: &Parameters) -> Result<Parameters> {
        let mut residues = self.residues.iter().flat_map(|residues| residues.named());
        weights.try_map(|_, weight| {
            let residue = residues.next().map(|(_, residue)| residue);
            Ok(join_master(weight, residue)?.into_host()?)
        })
    }

    /// Decayed means of the gradients and of their squares.
    pub(crate) fn moments(&self) -> (&Parameters, &Parameters) {
        (&self.m, &self.v)
    }

    /// Steps done.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// L2 norm of a gradient over all tensors.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if a GPU fails.
    pub fn norm(grads: &Parameters) -> Result<f64> {
        Ok(grad_norm(grads.named().into_iter().map(|(_, tensor)| tensor))?.value()?)
    }

    /// One step against a gradient of norm `norm`, scaled down if that exceeds the largest norm
    /// allowed.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if weights and gradients differ in shape.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        grads: &Parameters,
        norm: f64,
        learning_rate: f64,
    ) -> Result<()> {
        self.steps += 1;
        let clip = GradScale::new(clip_factor(norm, self.options.max_grad_norm));
        let moments = self.m.named_mut().into_iter().zip(self.v.named_mut());
        let mut residues = self.residues.iter_mut().flat_map(Parameters::named_mut);
        let tensors = parameters.named_mut().into_iter().zip(grads.named()).zip(moments);
        for (((name, parameter), (_, grad)), ((_, m), (_, v))) in tensors {
            let options = AdamwOptions {
                lr: learning_rate as f32,
                beta1: self.options.beta1,
                beta2: self.options.beta2,
                eps: self.options.eps,
                weight_decay: if self.options.decayed.contains(&name, parameter) {
                    self.options.weight_decay
                } else {
                    0.0
                },
            };
            let residue = residues.next().map(|(_, residue)| residue);
            adamw_step(parameter, residue, grad, Moments { m, v }, &options, self.steps, &clip)?;
        }
        Ok(())
    }
}

impl DecayedWeights {
    fn contains(self, name: &str, parameter: &Tensor) -> bool {
        let is_matrix = parameter.shape().len() > 1;
        match self {
            Self::Matrices => is_matrix,
            Self::Layers => is_matrix && name.contains(".layers."),
            Self::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrainConfig, TrainPlan};

    const OPTIONS: OptimizerOptions = OptimizerOptions {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.5,
        decayed: DecayedWeights::Matrices,
        max_grad_norm: 1.0,
    };

    fn config() -> ModelConfig {
        let mut config = TrainConfig::default();
        config.model.hidden_size = 4;
        config.model.intermediate_size = 4;
        config.model.num_hidden_layers = 1;
        TrainPlan::new(config).unwrap().model().clone()
    }

    fn filled(config: &ModelConfig, value: f32) -> Parameters {
        let mut parameters = Parameters::zeros(config).unwrap();
        for (_, tensor) in parameters.named_mut() {
            tensor.as_mut_slice().unwrap().fill(value);
        }
        parameters
    }

    #[test]
    fn the_named_weights_are_decayed() {
        let config = config();
        let expects = |decayed, name: &str| match decayed {
            DecayedWeights::Matrices => !name.contains("norm"),
            DecayedWeights::Layers => name.contains("_proj"),
            DecayedWeights::All => true,
        };
        for decayed in [DecayedWeights::Matrices, DecayedWeights::Layers, DecayedWeights::All] {
            let mut weights = filled(&config, 1.0);
            let zeros = Parameters::zeros(&config).unwrap();
            let options = OptimizerOptions { decayed, ..OPTIONS };
            let mut optimizer = Optimizer::new(options, &config).unwrap();
            optimizer.step(&mut weights, &zeros, 0.0, 0.1).unwrap();
            for (name, tensor) in weights.named() {
                let expected = if expects(decayed, &name) { 0.95 } else { 1.0 };
                let values = tensor.as_slice().unwrap();
                let close = values.iter().all(|value| (value - expected).abs() < 1e-6);
                assert!(close, "{decayed:?} {name}");
            }
        }
    }

    #[test]
    fn the_gradient_is_clipped_as_a_whole() {
        let config = config();
        let grads = filled(&config, 1.0);
        let norm = Optimizer::norm(&grads).unwrap();
        assert!((norm - (grads.count() as f64).sqrt()).abs() < 1e-6 * norm);

        // AdamW's first step hides the length of a gradient; its first moment does not.
        let mut optimizer = Optimizer::new(OPTIONS, &config).unwrap();
        optimizer.step(&mut filled(&config, 1.0), &grads, norm, 0.1).unwrap();
        let length = Optimizer::norm(&optimizer.m).unwrap() / 0.1;
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }
}
