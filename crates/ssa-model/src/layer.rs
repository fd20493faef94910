//! One decoder layer: attention and MLP, each on a normed input and added to the residual stream.

use ssa_kernels::ops::attention::gated_pair::PairAlignment;
use ssa_kernels::ops::rms_norm::{RmsNormOutput, add_rms_norm_fwd, rms_norm_bwd, rms_norm_fwd};
use ssa_kernels::{Scalar, Tensor};

use crate::attention::{self, AttentionContext, AttentionSaved};
use crate::gradients::with_gradient_of;
use crate::method::LayerPlan;
use crate::mlp::{self, MlpSaved};
use crate::projection::{QueryKeyValue, project};
use crate::{LayerParameters, Result};

/// What all layers of a call share.
#[derive(Clone, Copy)]
pub(crate) struct LayerContext<'a> {
    pub(crate) attention: AttentionContext<'a>,
    pub(crate) rms_norm_eps: f32,
}

/// Everything the backward pass of a layer needs.
pub(crate) struct LayerSaved {
    /// Input of the layer `[B, T, hidden]`.
    x: Tensor,
    attention_norm: RmsNormOutput,
    attention: AttentionSaved,
    /// Residual stream between attention and MLP.
    middle: Tensor,
    mlp_norm: RmsNormOutput,
    mlp: MlpSaved,
}

impl LayerSaved {
    /// Drops all but the layer's input, from which [`forward`] recomputes the rest.
    pub(crate) fn into_input(self) -> Tensor {
        self.x
    }

    /// Takes the alignment loss sum of this layer; see [`AttentionSaved::take_alignment_sum`].
    pub(crate) fn take_alignment_sum(&mut self) -> Option<Scalar> {
        self.attention.take_alignment_sum()
    }
}

/// Runs the layer on `x`. `observe` sees q, k and v after RoPE; with `alignment`, the alignment
/// loss between the streams is summed.
pub(crate) fn forward(
    x: Tensor,
    weights: &LayerParameters,
    plan: &LayerPlan,
    context: &LayerContext<'_>,
    alignment: Option<&PairAlignment<'_>>,
    observe: impl FnOnce(&QueryKeyValue) -> Result<()>,
) -> Result<(Tensor, LayerSaved)> {
    let (attending, eps) = (&context.attention, context.rms_norm_eps);
    let attention_norm = rms_norm_fwd(&x, &weights.input_layernorm, eps)?;
    let normed = &attention_norm.out;
    let projection = project(normed, weights, attending.documents, attending.rope, eps)?;
    observe(&projection.qkv)?;
    let (attended, attention) =
        attention::forward(normed, projection, weights, plan, attending, alignment)?;
    let weight = &weights.post_attention_layernorm;
    let (middle, mlp_norm) = add_rms_norm_fwd(attended, &x, weight, eps)?;
    let (mut out, mlp) = mlp::forward(&mlp_norm.out, weights)?;
    out.add_assign(&middle)?;
    Ok((out, LayerSaved { x, attention_norm, attention, middle, mlp_norm, mlp }))
}

/// Replaces the output gradient in `dx` by the input gradient and adds to the weight gradients.
pub(crate) fn backward(
    dx: &mut Tensor,
    saved: &LayerSaved,
    weights: &LayerParameters,
    context: &LayerContext<'_>,
    alignment: (&PairAlignment<'_>, f32),
    grads: &mut LayerParameters,
) -> Result<()> {
    let norm = &saved.mlp_norm;
    let dnorm = mlp::backward(dx, &norm.out, &saved.mlp, weights, grads)?;
    let (weight, dweight) =
        (&weights.post_attention_layernorm, &mut grads.post_attention_layernorm);
    with_gradient_of(weight, dweight, |dweight| {
        Ok(rms_norm_bwd(&dnorm, &saved.middle, weight, &norm.rstd, dx, dweight)?)
    })?;

    let norm = &saved.attention_norm;
    let dnorm =
        saved.attention.backward(dx, &norm.out, weights, &context.attention, alignment, grads)?;
    let (weight, dweight) = (&weights.input_layernorm, &mut grads.input_layernorm);
    with_gradient_of(weight, dweight, |dweight| {
        Ok(rms_norm_bwd(&dnorm, &saved.x, weight, &norm.rstd, dx, dweight)?)
    })
}
