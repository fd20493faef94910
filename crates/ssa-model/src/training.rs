//! One micro-batch of training: the objective, forward and backward.
//!
//! ```text
//! loss = cross_entropy + alpha * alignment + z_loss_weight * z_loss
//! alignment = mean over layers, valid tokens, heads and head_dim of the terms between full and sparse outputs
//! z_loss = mean over targets of the squared logarithm of the softmax's normaliser
//! ```
//!
//! All are means over the valid tokens of the whole optimiser step: [`StepScale`] carries the
//! denominators, so that the gradients of micro-batches simply add up.

use ssa_kernels::ops::attention::alignment::AlignmentOptions;
use ssa_kernels::ops::attention::gated_pair::PairAlignment;
use ssa_kernels::ops::cross_entropy::{CrossEntropy, linear_cross_entropy_fwd_bwd};
use ssa_kernels::ops::embedding::embedding_bwd;
use ssa_kernels::ops::rms_norm::{rms_norm_bwd, rms_norm_fwd};
use ssa_kernels::{Documents, Scalar, Tensor};

use crate::attention::plan::{self, PlannedAttention};
use crate::layer::{self, LayerContext, LayerSaved};
use crate::{AttentionMode, AttentionOptions, Model, ModelError, Parameters, Result, TrainBatch};

/// What a training step minimises.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Method, selection, window and masking; its mode is not used: each step is told its streams.
    pub attention: AttentionOptions,
    /// Weight of the alignment loss (ssa only).
    pub alpha: f32,
    /// Kind and direction of the alignment loss.
    pub alignment: AlignmentOptions,
    /// Compare gated outputs (as released) or the bare ones.
    pub gated_alignment: bool,
    /// Weight of z-loss; 0 switches it off without changing a bit of the gradients.
    pub z_loss: f32,
    /// Keep only the input of each layer and compute the rest again in the backward: a third more
    /// work for a small fraction of the memory.
    pub recompute: bool,
}

/// The denominators of the means, over all micro-batches of an optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepScale {
    /// Labels that count in the cross-entropy.
    pub target_tokens: usize,
    /// Tokens that are not padding: they count in the alignment loss.
    pub valid_tokens: usize,
}

/// This micro-batch's share of the step's losses: the shares of all micro-batches add up to the
/// means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepLosses {
    /// Share of the mean cross-entropy, nats per target.
    pub cross_entropy: f64,
    /// Share of the mean squared log-normaliser of the softmax, before the weight of z-loss.
    pub z_loss: f64,
    /// Share of the mean alignment loss, before the factor alpha; 0 for methods without one.
    pub alignment: f64,
    /// The alignment loss layer by layer (their mean is `alignment`).
    pub alignment_per_layer: Vec<f64>,
}

/// A layer between forward and backward.
enum Kept {
    Everything(Box<LayerSaved>),
    Input(Tensor),
}

impl Model {
    /// Runs one micro-batch forward and backward and adds the gradients of its share of the loss to
    /// `grads`.
    ///
    /// `streams` names the attention that goes on in each layer: the same for all layers, but for
    /// an ablation.
    ///
    /// # Errors
    /// As [`Model::forward`]; labels outside the vocabulary; `streams` without one entry per layer;
    /// gradients that do not have the shapes of the parameters.
    pub fn train_step(
        &self,
        batch: &TrainBatch,
        objective: &Objective,
        streams: &[AttentionMode],
        scale: &StepScale,
        grads: &mut Parameters,
    ) -> Result<StepLosses> {
        let plans = self.plans(objective, streams)?;
        let rows = Documents::rows(batch.input().batch(), batch.input().tokens());
        let rope = self.rope_for(batch.input())?;
        let context = self.context(batch.input(), &objective.attention, &rows, &rope);
        let alignment = PairAlignment {
            options: &objective.alignment,
            gated: objective.gated_alignment,
            valid: batch.valid(),
        };
        // Every layer's sum over tokens, heads and head_dim becomes its share of the mean by this
        // factor.
        let q_width = self.config().num_attention_heads * self.config().head_dim;
        let mean = 1.0 / (scale.valid_tokens.max(1) * q_width) as f64;

        let (x, kept, alignment_sums) =
            self.forward_layers(batch, objective, &plans, &context, &alignment)?;
        let layers = self.parameters().layers.len();
        let cross_entropy_scale = 1.0 / scale.target_tokens.max(1) as f64;
        let grad_scale = cross_entropy_scale as f32;
        let (loss, mut dx) =
            self.head_step(&x, batch, grad_scale, objective.z_loss, &context, grads)?;

        let alignment_scale = (f64::from(objective.alpha) * mean / layers as f64) as f32;
        let parts =
            kept.into_iter().zip(&self.parameters().layers).zip(&plans).zip(&mut grads.layers);
        for (((kept, weights), plan), grads) in parts.rev() {
            let saved = match kept {
                Kept::Everything(saved) => saved,
                Kept::Input(x) => {
                    Box::new(layer::forward(x, weights, plan, &context, None, |_| Ok(()))?.1)
                }
            };
            let alignment = Some((&alignment, alignment_scale));
            layer::backward(&mut dx, &saved, weights, &context, alignment, grads)?;
        }
        embedding_bwd(&dx, batch.input().ids(), &mut grads.embed_tokens)?;
        // Asked for last: a GPU works on without waiting for the host.
        let alignment_per_layer: Vec<f64> =
            alignment_sums.iter().map(|sum| Ok(sum.value()? * mean)).collect::<Result<_>>()?;
        Ok(StepLosses {
            cross_entropy: loss.loss_sum.value()? * cross_entropy_scale,
            z_loss: loss.lse_square_sum.value()? * cross_entropy_scale,
            alignment: alignment_per_layer.iter().sum::<f64>() / layers as f64,
            alignment_per_layer,
        })
    }

    fn plans(
        &self,
        objective: &Objective,
        streams: &[AttentionMode],
    ) -> Result<Vec<Vec<PlannedAttention>>> {
        let layers = self.parameters().layers.len();
        if streams.len() != layers {
            let message = format!("{} streams given for {layers} layers", streams.len());
            return Err(ModelError::Options { message });
        }
        streams.iter().map(|&stream| plan::training(objective.attention.method, stream)).collect()
    }

    /// Runs all layers; returns the residual stream, what each layer keeps and its alignment sum.
    fn forward_layers(
        &self,
        batch: &TrainBatch,
        objective: &Objective,
        plans: &[Vec<PlannedAttention>],
        context: &LayerContext<'_>,
        alignment: &PairAlignment<'_>,
    ) -> Result<(Tensor, Vec<Kept>, Vec<Scalar>)> {
        let mut x = self.embed(batch.input())?;
        let mut kept = Vec::with_capacity(plans.len());
        let mut sums = Vec::with_capacity(plans.len());
        for (weights, plan) in self.parameters().layers.iter().zip(plans) {
            let (out, mut saved) =
                layer::forward(x, weights, plan, context, Some(alignment), |_| Ok(()))?;
            sums.push(saved.take_alignment_sum().unwrap_or_else(|| Scalar::new(0.0)));
            kept.push(if objective.recompute {
                Kept::Input(saved.into_input())
            } else {
                Kept::Everything(Box::new(saved))
            });
            x = out;
        }
        Ok((x, kept, sums))
    }

    /// Final norm, head and cross-entropy, forward and backward: the loss sums and the gradient of
    /// `x`.
    fn head_step(
        &self,
        x: &Tensor,
        batch: &TrainBatch,
        grad_scale: f32,
        z_loss: f32,
        context: &LayerContext<'_>,
        grads: &mut Parameters,
    ) -> Result<(CrossEntropy, Tensor)> {
        let weights = self.parameters();
        let norm = rms_norm_fwd(x, &weights.norm, context.rms_norm_eps)?;
        let mut dnorm = Tensor::zeros_like(x);
        let dhead = grads.head_mut();
        let head = weights.head();
        let labels = batch.labels();
        let loss = linear_cross_entropy_fwd_bwd(
            &norm.out, head, labels, grad_scale, z_loss, &mut dnorm, dhead,
        )?;
        let mut dx = Tensor::zeros_like(x);
        rms_norm_bwd(&dnorm, x, &weights.norm, &norm.rstd, &mut dx, &mut grads.norm)?;
        Ok((loss, dx))
    }
}
