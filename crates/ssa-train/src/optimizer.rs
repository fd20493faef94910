//! The optimizer over all weights of a model.

use std::ops::Range;

use ssa_kernels::ops::adamw::{AdamwOptions, Moments, adamw_step, join_master, split_master};
use ssa_kernels::ops::grad_norm::{GradScale, clipped_grad_norm, norm_of_squares};
use ssa_kernels::{DType, Device, Scalar, Scalars, Tensor};
use ssa_model::{ModelConfig, Parameters};
use ssa_ranks::ShardMap;

use crate::Result;
use crate::trainable::Trainable;

/// The weights with weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecayedWeights {
    /// Every tensor with more than one axis: all except norm weights. Decay pulls towards 0, but
    /// the neutral value of a norm weight is 1.
    Matrices,
    /// The matrices in the layers: no norms, embedding or output layer.
    Layers,
    /// Every tensor.
    All,
}

ssa_names::names!(DecayedWeights: "set of decayed weights" {
    Matrices = "matrices",
    Layers = "layers",
    All = "all",
});

/// Hyperparameters of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the denominator of the update for numerical stability.
    pub eps: f32,
    /// Decoupled weight decay of the weights in `decayed`.
    pub weight_decay: f32,
    /// The weights with weight decay.
    pub decayed: DecayedWeights,
    /// Maximum global L2 norm of the gradient.
    pub max_grad_norm: f64,
}

/// AdamW with its moments.
///
/// It updates `f32` master weights on every device. On a GPU the model computes with their upper
/// halves (`bf16`), and the optimizer keeps the lower halves, the residues.
///
/// Among ranks it keeps the moments of the pieces of the weights that its rank owns, each with one
/// axis, and updates these pieces.
#[derive(Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    /// The owners of the weights and this rank; `None` if all weights are its own.
    shards: Option<(ShardMap, usize)>,
    residues: Option<Parameters>,
    m: Parameters,
    v: Parameters,
    steps: u64,
}

impl Optimizer {
    /// Creates an optimizer of the trainable parameters with zero moments.
    ///
    /// # Errors
    /// Same as [`Parameters::zeros`].
    pub fn new(
        options: OptimizerOptions,
        config: &ModelConfig,
        trainable: &Trainable,
    ) -> Result<Self> {
        let zeros = || {
            let is_kept = |name: &str| trainable.contains(name);
            Parameters::zeros_for(config, &Device::Cpu, DType::F32, is_kept)
        };
        Ok(Self::restored(options, zeros()?, zeros()?, 0))
    }

    /// Creates an optimizer that continues after `steps` steps with the given moments.
    pub(crate) fn restored(
        options: OptimizerOptions,
        m: Parameters,
        v: Parameters,
        steps: u64,
    ) -> Self {
        Self { options, shards: None, residues: None, m, v, steps }
    }

    /// The optimizer of the pieces that `rank` owns; its moments are those of these pieces.
    pub(crate) fn of_pieces(self, map: ShardMap, rank: usize) -> Self {
        Self { shards: Some((map, rank)), ..self }
    }

    /// The owners of the weights; `None` if all are those of this optimizer.
    pub(crate) fn shards(&self) -> Option<&ShardMap> {
        self.shards.as_ref().map(|(map, _)| map)
    }

    /// Moves the moments to a device and splits `f32` master weights for it; returns the weights in
    /// the compute dtype.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if the device is out of memory.
    pub(crate) fn move_to(&mut self, masters: &Parameters, device: &Device) -> Result<Parameters> {
        let moved = |moments: &Parameters| {
            moments.try_map(|_, tensor| -> Result<Tensor> {
                // Frozen parameters have no moments, and zeros need no copy.
                if tensor.is_empty() {
                    return Ok(Tensor::default());
                }
                if self.steps == 0 {
                    return Ok(Tensor::zeros_on(device, DType::F32, tensor.shape())?);
                }
                Ok(tensor.to_device(device, DType::F32)?)
            })
        };
        (self.m, self.v) = (moved(&self.m)?, moved(&self.v)?);
        let mut residues = Vec::new();
        let mut index = 0..;
        let weights = masters.try_map(|_, master| -> Result<Tensor> {
            let (weight, residue) = split_master(&master.to_device(device, DType::F32)?)?;
            let piece = self.piece(index.next().unwrap_or_default());
            residues.extend(match (residue, piece) {
                (Some(residue), Some(piece)) => Some(residue.elements(piece)?),
                (residue, _) => residue,
            });
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

    /// The elements of a parameter that this optimizer updates; `None` for all, and for a frozen
    /// one among ranks.
    fn piece(&self, parameter: usize) -> Option<Range<usize>> {
        let (map, rank) = self.shards.as_ref()?;
        (map.length(parameter) > 0).then(|| map.piece(parameter, *rank))
    }

    /// Returns the master weights of `weights`, on the CPU. Among ranks on GPUs these are the own
    /// pieces, and all of frozen ones.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if the device fails.
    pub(crate) fn masters(&self, weights: &Parameters) -> Result<Parameters> {
        let mut residues = self.residues.iter().flat_map(|residues| residues.named());
        let mut index = 0..;
        weights.try_map(|_, weight| {
            let residue = residues.next().map(|(_, residue)| residue);
            let piece = self.piece(index.next().unwrap_or_default());
            let joined = match piece.filter(|_| residue.is_some()) {
                Some(piece) => join_master(&weight.elements(piece)?, residue)?,
                None => join_master(weight, residue)?,
            };
            Ok(joined.into_host()?)
        })
    }

    /// The first and second moments.
    pub(crate) fn moments(&self) -> (&Parameters, &Parameters) {
        (&self.m, &self.v)
    }

    /// Steps done.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes over the number of steps done.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Computes the global L2 norm of a gradient, and the factor that clips it to the maximum norm.
    /// The factor is NaN unless the norm and all of `losses` are finite.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if a GPU fails.
    pub fn clipped_norm(
        &self,
        grads: &Parameters,
        losses: &Scalars,
    ) -> Result<(Scalar, GradScale)> {
        let grads = grads.named().into_iter().map(|(_, tensor)| tensor);
        let grads = grads.filter(|tensor| !tensor.is_empty());
        Ok(clipped_grad_norm(grads, self.options.max_grad_norm, losses)?)
    }

    /// [`clipped_norm`](Self::clipped_norm) from the sums of squares of all gradients.
    ///
    /// # Errors
    /// As [`clipped_norm`](Self::clipped_norm).
    pub(crate) fn clip_to(
        &self,
        squares: &Scalars,
        losses: &Scalars,
    ) -> Result<(Scalar, GradScale)> {
        Ok(norm_of_squares(squares, self.options.max_grad_norm, losses)?)
    }

    /// Queues the next step, with the gradient times `scale`. If `scale` is NaN, the step changes
    /// nothing; otherwise [`confirm_step`](Self::confirm_step) must follow.
    ///
    /// # Errors
    /// [`TrainError::Kernel`](crate::TrainError::Kernel) if weights and gradients differ in shape.
    pub fn queue_step(
        &mut self,
        parameters: &mut Parameters,
        grads: &Parameters,
        scale: &GradScale,
        learning_rate: f64,
    ) -> Result<()> {
        self.queue_part(parameters, grads, scale, learning_rate, 0..usize::MAX)
    }

    /// As [`queue_step`](Self::queue_step) for the parameters with these numbers.
    pub(crate) fn queue_part(
        &mut self,
        parameters: &mut Parameters,
        grads: &Parameters,
        scale: &GradScale,
        learning_rate: f64,
        part: Range<usize>,
    ) -> Result<()> {
        let step = self.steps + 1;
        let moments = self.m.named_mut().into_iter().zip(self.v.named_mut());
        let mut residues = self.residues.iter_mut().flat_map(Parameters::named_mut);
        let tensors = parameters.named_mut().into_iter().zip(grads.named()).zip(moments);
        for (index, (((name, parameter), (_, grad)), ((_, m), (_, v)))) in tensors.enumerate() {
            let residue = residues.next().map(|(_, residue)| residue);
            if grad.is_empty() || !part.contains(&index) {
                continue;
            }
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
            let moments = Moments { m, v };
            let Some((map, rank)) = &self.shards else {
                adamw_step(parameter, residue, grad, moments, &options, step, scale)?;
                continue;
            };
            let range = map.piece(index, *rank);
            let mut piece = parameter.elements(range.clone())?;
            adamw_step(&mut piece, residue, grad, moments, &options, step, scale)?;
            parameter.set_elements(range.start, &piece)?;
        }
        Ok(())
    }

    /// Counts the queued step after it has changed the weights.
    pub fn confirm_step(&mut self) {
        self.steps += 1;
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

    fn norm(optimizer: &Optimizer, grads: &Parameters) -> f64 {
        let losses = Scalars::new(&Device::Cpu);
        optimizer.clipped_norm(grads, &losses).unwrap().0.value().unwrap()
    }

    fn step(optimizer: &mut Optimizer, weights: &mut Parameters, grads: &Parameters) {
        let (_, scale) = optimizer.clipped_norm(grads, &Scalars::new(&Device::Cpu)).unwrap();
        optimizer.queue_step(weights, grads, &scale, 0.1).unwrap();
        optimizer.confirm_step();
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
            let mut optimizer = Optimizer::new(options, &config, &Trainable::all(&config)).unwrap();
            step(&mut optimizer, &mut weights, &zeros);
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
        let mut optimizer = Optimizer::new(OPTIONS, &config, &Trainable::all(&config)).unwrap();
        let norm = norm(&optimizer, &grads);
        assert!((norm - (grads.count() as f64).sqrt()).abs() < 1e-6 * norm);

        // The first AdamW update does not depend on the norm of the gradient; the first moment
        // does.
        step(&mut optimizer, &mut filled(&config, 1.0), &grads);
        let length = self::norm(&optimizer, &optimizer.m) / 0.1;
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }

    #[test]
    fn a_step_with_a_loss_that_is_not_finite_changes_nothing() {
        let config = config();
        let (mut weights, grads) = (filled(&config, 1.0), filled(&config, 1.0));
        let mut optimizer = Optimizer::new(OPTIONS, &config, &Trainable::all(&config)).unwrap();
        step(&mut optimizer, &mut weights, &grads);
        let before = [&weights, &optimizer.m, &optimizer.v]
            .map(|parameters| parameters.to_device(&Device::Cpu, DType::F32).unwrap());
        let mut losses = Scalars::new(&Device::Cpu);
        losses.push(&Scalar::new(f64::INFINITY)).unwrap();
        let (norm, scale) = optimizer.clipped_norm(&grads, &losses).unwrap();
        assert!(norm.value().unwrap().is_finite());
        optimizer.queue_step(&mut weights, &grads, &scale, 0.1).unwrap();
        for (now, before) in [&weights, &optimizer.m, &optimizer.v].into_iter().zip(&before) {
            assert!(now.same_elements(before).unwrap());
        }
        assert_eq!(optimizer.steps, 1);
    }
}
