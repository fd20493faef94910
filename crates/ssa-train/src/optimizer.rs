//! The optimiser over all weights of a model.

use ssa_kernels::Tensor;
use ssa_kernels::ops::adamw::{AdamwOptions, adamw_step};
use ssa_kernels::ops::grad_norm::{clip_factor, grad_norm};
use ssa_model::{ModelConfig, Parameters};

use crate::Result;

/// Constants of the optimiser over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Decay of the mean of the gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay of tensors with more than one axis.
    pub weight_decay: f32,
    /// Largest L2 norm of the gradient of all weights together.
    pub max_grad_norm: f64,
}

/// AdamW with its moments.
///
/// Tensors of one axis, the weights of the norms, are not decayed: decay pulls towards 0, and 1 is their neutral value.
#[derive(Clone, Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    m: Parameters,
    v: Parameters,
    steps: u64,
}

impl Optimizer {
    /// An optimiser with zero moments.
    pub fn new(options: OptimizerOptions, config: &ModelConfig) -> Self {
        Self { options, m: Parameters::zeros(config), v: Parameters::zeros(config), steps: 0 }
    }

    /// L2 norm of a gradient over all tensors.
    pub fn norm(grads: &Parameters) -> f64 {
        grad_norm(grads.named().into_iter().map(|(_, tensor)| tensor))
    }

    /// One step against a gradient of norm `norm`, scaled down if that exceeds the largest norm allowed.
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
        let clip = clip_factor(norm, self.options.max_grad_norm);
        let moments = self.m.named_mut().into_iter().zip(self.v.named_mut());
        let tensors = parameters.named_mut().into_iter().zip(grads.named()).zip(moments);
        for (((_, parameter), (_, grad)), ((_, m), (_, v))) in tensors {
            let options = AdamwOptions {
                lr: learning_rate as f32,
                beta1: self.options.beta1,
                beta2: self.options.beta2,
                eps: self.options.eps,
                weight_decay: decay(parameter, self.options.weight_decay),
            };
            adamw_step(parameter, grad, m, v, &options, self.steps, clip)?;
        }
        Ok(())
    }
}

fn decay(parameter: &Tensor, weight_decay: f32) -> f32 {
    if parameter.shape().len() > 1 { weight_decay } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrainConfig, TrainPlan};

    const OPTIONS: OptimizerOptions =
        OptimizerOptions { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.5, max_grad_norm: 1.0 };

    fn config() -> ModelConfig {
        let mut config = TrainConfig::default();
        config.model.hidden_size = 4;
        config.model.intermediate_size = 4;
        config.model.num_hidden_layers = 1;
        TrainPlan::new(config).unwrap().model().clone()
    }

    fn filled(config: &ModelConfig, value: f32) -> Parameters {
        let mut parameters = Parameters::zeros(config);
        parameters.named_mut().into_iter().for_each(|(_, tensor)| tensor.fill(value));
        parameters
    }

    #[test]
    fn norms_are_not_decayed() {
        let config = config();
        let mut weights = filled(&config, 1.0);
        let zeros = Parameters::zeros(&config);
        Optimizer::new(OPTIONS, &config).step(&mut weights, &zeros, 0.0, 0.1).unwrap();
        for (name, tensor) in weights.named() {
            let expected = if name.contains("norm") { 1.0 } else { 0.95 };
            assert!(tensor.as_slice().iter().all(|value| (value - expected).abs() < 1e-6), "{name}");
        }
    }

    #[test]
    fn the_gradient_is_clipped_as_a_whole() {
        let config = config();
        let grads = filled(&config, 1.0);
        let norm = Optimizer::norm(&grads);
        assert!((norm - (grads.count() as f64).sqrt()).abs() < 1e-6 * norm);

        // AdamW's first step hides the length of a gradient; its first moment does not.
        let mut optimizer = Optimizer::new(OPTIONS, &config);
        optimizer.step(&mut filled(&config, 1.0), &grads, norm, 0.1).unwrap();
        let length = Optimizer::norm(&optimizer.m) / 0.1;
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }
}
