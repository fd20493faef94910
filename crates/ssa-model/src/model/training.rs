//! One micro-batch of training: the objective, forward and backward.
//!
//! ```text
//! loss = cross_entropy + alpha * alignment + z_loss_weight * z_loss
//! alignment = mean over layers, valid tokens, heads and head_dim of the terms between full and
//!             sparse outputs
//! z_loss = mean over targets of the squared log-partition function of the softmax
//! ```
//!
//! All means are over the whole optimizer step: [`StepLosses`] has the denominators, so sums and
//! gradients of micro-batches simply add up.

use ssa_kernels::ops::attention::alignment::AlignmentOptions;
use ssa_kernels::ops::attention::gated_pair::PairAlignment;
use ssa_kernels::ops::cross_entropy::{CrossEntropy, linear_cross_entropy_fwd_bwd};
use ssa_kernels::ops::embedding::embedding_bwd;
use ssa_kernels::ops::rms_norm::{rms_norm_bwd, rms_norm_fwd};
use ssa_kernels::{Documents, Scalar, Tensor};

use super::Model;
use crate::error::OptionsError;
use crate::gradients::with_gradient_of;
use crate::layer::{self, LayerContext, LayerSaved};
use crate::losses::{LossDenominators, StepLosses};
use crate::method::LayerPlan;
use crate::{AttentionMode, AttentionOptions, Parameters, Result, TrainBatch};

/// What a training step minimizes.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Method, selection, window and masking. Its mode is not used: each step names its streams.
    pub attention: AttentionOptions,
    /// Weight of the alignment loss (ssa only).
    pub alpha: f32,
    /// Kind and direction of the alignment loss.
    pub alignment: AlignmentOptions,
    /// Whether to align gated outputs (as in the released code) or those before the gate.
    pub gated_alignment: bool,
    /// Weight of z-loss; 0 disables it.
    pub z_loss: f32,
    /// Whether to save only the input of each layer and recompute the rest in the backward pass
    /// (activation checkpointing): a third more work for a small fraction of the memory.
    pub recompute: bool,
}

/// What is saved of a layer between its forward and its backward pass.
enum SavedLayer {
    Everything(Box<LayerSaved>),
    Input(Tensor),
}

impl Model {
    /// Returns the losses of an optimizer step before its first micro-batch.
    pub fn step_losses(&self, objective: &Objective, denominators: LossDenominators) -> StepLosses {
        let config = self.config();
        let layers = config.num_hidden_layers;
        let aligned_layers = if objective.attention.method.is_aligned() { layers } else { 0 };
        let width = config.num_attention_heads * config.head_dim;
        StepLosses::new(&self.device(), [layers, aligned_layers, width], denominators)
    }

    /// Runs the forward and backward pass of one micro-batch. Adds its loss sums to `losses` and
    /// its gradients to `grads`. On a GPU this queues work without waiting.
    ///
    /// `streams` gives the mode that feeds the next layer, for each layer: the same for all layers,
    /// except in an ablation.
    ///
    /// # Errors
    /// Same as [`Model::forward`]; also if labels are outside the vocabulary, `streams` does not
    /// have one entry per layer, or the gradients do not have the shapes of the parameters. After
    /// an error, losses and gradients may include a part of the micro-batch.
    pub fn train_step(
        &self,
        batch: &TrainBatch,
        objective: &Objective,
        streams: &[AttentionMode],
        losses: &mut StepLosses,
        grads: &mut Parameters,
    ) -> Result<()> {
        let plans = self.plans(objective, streams)?;
        let rows = Documents::rows(batch.input().batch(), batch.input().tokens())?;
        let rope = self.rope_for(batch.input())?;
        let context = self.context(batch.input(), &objective.attention, &rows, &rope);
        let alignment = PairAlignment {
            options: &objective.alignment,
            gated: objective.gated_alignment,
            valid: batch.valid(),
        };

        let (x, saved, alignment_sums) =
            self.forward_layers(batch, objective, &plans, &context, &alignment)?;
        let grad_scale = losses.cross_entropy_scale();
        let (loss, mut dx) =
            self.head_step(&x, batch, grad_scale, objective.z_loss, &context, grads)?;
        losses.add(&loss.loss_sum, &loss.lse_square_sum, &alignment_sums)?;

        let alignment = (&alignment, losses.alignment_scale(objective.alpha));
        let parts =
            saved.into_iter().zip(&self.parameters().layers).zip(&plans).zip(&mut grads.layers);
        for (((saved, weights), plan), grads) in parts.rev() {
            let saved = match saved {
                SavedLayer::Everything(saved) => saved,
                SavedLayer::Input(x) => {
                    Box::new(layer::forward(x, weights, plan, &context, None, |_| Ok(()))?.1)
                }
            };
            layer::backward(&mut dx, &saved, weights, &context, alignment, grads)?;
        }
        if !grads.embed_tokens.is_empty() {
            embedding_bwd(&dx, batch.input().ids(), &mut grads.embed_tokens)?;
        }
        Ok(())
    }

    fn plans(&self, objective: &Objective, streams: &[AttentionMode]) -> Result<Vec<LayerPlan>> {
        let layers = self.parameters().layers.len();
        if streams.len() != layers {
            return Err(OptionsError::StreamCount { streams: streams.len(), layers }.into());
        }
        let method = objective.attention.method;
        self.check_gates(method)?;
        streams.iter().map(|&stream| method.training_plan(stream)).collect()
    }

    /// Runs all layers; returns the residual stream, what each layer saved, and the alignment sums
    /// of the layers that have one.
    fn forward_layers(
        &self,
        batch: &TrainBatch,
        objective: &Objective,
        plans: &[LayerPlan],
        context: &LayerContext<'_>,
        alignment: &PairAlignment<'_>,
    ) -> Result<(Tensor, Vec<SavedLayer>, Vec<Scalar>)> {
        let mut x = self.embed(batch.input())?;
        let mut kept = Vec::with_capacity(plans.len());
        let mut sums = Vec::with_capacity(plans.len());
        for (weights, plan) in self.parameters().layers.iter().zip(plans) {
            let (out, mut saved) =
                layer::forward(x, weights, plan, context, Some(alignment), |_| Ok(()))?;
            sums.extend(saved.take_alignment_sum());
            kept.push(if objective.recompute {
                SavedLayer::Input(saved.into_input())
            } else {
                SavedLayer::Everything(Box::new(saved))
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
        let mut dnorm = Tensor::zeros_like(x)?;
        let head = weights.head();
        let labels = batch.labels();
        let loss = with_gradient_of(head, grads.head_mut(), |dhead| {
            Ok(linear_cross_entropy_fwd_bwd(
                &norm.out, head, labels, grad_scale, z_loss, &mut dnorm, dhead,
            )?)
        })?;
        let mut dx = Tensor::zeros_like(x)?;
        with_gradient_of(&weights.norm, &mut grads.norm, |dweight| {
            Ok(rms_norm_bwd(&dnorm, x, &weights.norm, &norm.rstd, &mut dx, dweight)?)
        })?;
        Ok((loss, dx))
    }
}
