//! The losses of an optimizer step: sums on the device during the step, means after it.

use ssa_kernels::{Device, PendingScalars, Scalar, Scalars};

use crate::Result;

/// The denominators of the means, over all micro-batches of an optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossDenominators {
    /// Labels that are not ignored.
    pub target_tokens: usize,
    /// Tokens that are not padding, for the alignment loss.
    pub valid_tokens: usize,
}

/// The loss sums of the micro-batches of an optimizer step, on the device of the model.
///
/// [`Model::train_step`](crate::Model::train_step) adds to them. Reading them waits for
/// the device, so they are read once, at the end of the step.
#[derive(Debug)]
pub struct StepLosses {
    /// For each micro-batch the sums of the cross-entropy, of z-loss, and of the alignment loss of
    /// each layer that has one.
    sums: Scalars,
    means: Means,
}

/// The factors that turn sums into means.
#[derive(Debug)]
struct Means {
    layers: usize,
    /// Layers with an alignment loss: all, or none.
    aligned_layers: usize,
    /// One over the targets of the step.
    per_target: f64,
    /// One over the valid tokens of the step, times heads and head_dim.
    per_output: f64,
}

/// The losses of an optimizer step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean cross-entropy, nats per target.
    pub cross_entropy: f64,
    /// Mean squared log-partition function of the softmax, before the z-loss weight.
    pub z_loss: f64,
    /// Mean alignment loss, before the weight alpha; 0 for methods without one.
    pub alignment: f64,
    /// The alignment loss layer by layer; their mean is `alignment`.
    pub alignment_per_layer: Vec<f64>,
}

impl StepLosses {
    /// The losses of a step before its first micro-batch. The attention output has `width` elements
    /// per token, and `aligned_layers` of the `layers` have an alignment loss.
    pub(crate) fn new(
        device: &Device,
        [layers, aligned_layers, width]: [usize; 3],
        denominators: LossDenominators,
    ) -> Self {
        let LossDenominators { target_tokens, valid_tokens } = denominators;
        let per_target = 1.0 / target_tokens.max(1) as f64;
        let per_output = 1.0 / (valid_tokens.max(1) * width) as f64;
        let means = Means { layers, aligned_layers, per_target, per_output };
        Self { sums: Scalars::new(device), means }
    }

    /// The sums so far. [`clipped_grad_norm`](ssa_kernels::ops::grad_norm::clipped_grad_norm) uses
    /// them to decide whether to apply the step.
    pub fn sums(&self) -> &Scalars {
        &self.sums
    }

    /// Replaces the sums of some of the micro-batches of a step by those of all, in their order.
    pub fn set_sums(&mut self, sums: Scalars) {
        self.sums = sums;
    }

    /// Starts to read the losses and other scalars of the step. Work queued afterwards overlaps
    /// with [`PendingLosses::wait`].
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if a scalar is on a different device or
    /// the device fails.
    pub fn start_read<const N: usize>(mut self, others: [&Scalar; N]) -> Result<PendingLosses<N>> {
        for other in others {
            self.sums.push(other)?;
        }
        Ok(PendingLosses { numbers: self.sums.start_read()?, means: self.means })
    }

    /// Reads the losses, which waits for the device.
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if the device fails.
    pub fn read(self) -> Result<Losses> {
        Ok(self.start_read([])?.wait()?.0)
    }

    /// Adds the sums of a micro-batch; `alignment` has one for each layer with an alignment loss.
    pub(crate) fn add(
        &mut self,
        cross_entropy: &Scalar,
        z_loss: &Scalar,
        alignment: &[Scalar],
    ) -> Result<()> {
        let sums = [cross_entropy, z_loss].into_iter().chain(alignment);
        sums.into_iter().try_for_each(|sum| Ok(self.sums.push(sum)?))
    }

    /// The gradient of the loss with respect to the sum of the cross-entropy.
    pub(crate) fn cross_entropy_scale(&self) -> f32 {
        self.means.per_target as f32
    }

    /// The gradient of the loss with respect to a layer's sum of the alignment loss.
    pub(crate) fn alignment_scale(&self, alpha: f32) -> f32 {
        (f64::from(alpha) * self.means.per_output / self.means.layers as f64) as f32
    }
}

/// Losses and `N` other scalars of the step, being copied to the host.
#[derive(Debug)]
#[must_use = "the losses come from `wait`"]
pub struct PendingLosses<const N: usize> {
    numbers: PendingScalars,
    means: Means,
}

impl<const N: usize> PendingLosses<N> {
    /// Returns the losses and the other scalars. On a GPU this waits for the work queued before
    /// [`StepLosses::start_read`].
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if that work failed.
    pub fn wait(self) -> Result<(Losses, [f64; N])> {
        let numbers = self.numbers.wait()?;
        let (sums, others) = numbers.split_at(numbers.len().saturating_sub(N));
        let others = std::array::from_fn(|index| others.get(index).copied().unwrap_or(f64::NAN));
        Ok((self.means.losses(sums), others))
    }
}

impl Means {
    /// The means of the sums of all micro-batches.
    fn losses(&self, sums: &[f64]) -> Losses {
        let mut losses =
            Losses { alignment_per_layer: vec![0.0; self.layers], ..Losses::default() };
        for sums in sums.chunks_exact(2 + self.aligned_layers) {
            let (head, alignment) = sums.split_at(2);
            losses.cross_entropy += head[0] * self.per_target;
            losses.z_loss += head[1] * self.per_target;
            let shares: Vec<f64> = alignment.iter().map(|sum| sum * self.per_output).collect();
            losses.alignment += shares.iter().sum::<f64>() / self.layers as f64;
            let layers = losses.alignment_per_layer.iter_mut().zip(&shares);
            layers.for_each(|(total, share)| *total += share);
        }
        losses
    }
}
