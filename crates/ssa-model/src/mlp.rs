//! The SwiGLU feed-forward half of a layer.

use ssa_kernels::Tensor;
use ssa_kernels::ops::linear::{linear_bwd_input, linear_fwd};
use ssa_kernels::ops::swiglu::{SwigluGrads, swiglu_bwd_with_out, swiglu_fwd};

use crate::gradients::add_weight_gradient;
use crate::{LayerParameters, Result};

/// What the backward pass needs besides the input.
pub(crate) struct MlpSaved {
    /// `x W_gateᵀ`, `[B, T, F]`.
    gate: Tensor,
    /// `x W_upᵀ`, `[B, T, F]`.
    up: Tensor,
}

/// `(silu(x W_gateᵀ) * x W_upᵀ) W_downᵀ` for normed input `x` `[B, T, hidden]`.
pub(crate) fn forward(x: &Tensor, weights: &LayerParameters) -> Result<(Tensor, MlpSaved)> {
    let saved =
        MlpSaved { gate: linear_fwd(x, &weights.gate_proj)?, up: linear_fwd(x, &weights.up_proj)? };
    let out = linear_fwd(&swiglu_fwd(&saved.gate, &saved.up)?, &weights.down_proj)?;
    Ok((out, saved))
}

/// Adds to the weight gradients and returns the gradient of `x`.
///
/// The product of gate and up is recomputed: this costs one pass over `[B, T, F]` and saves the
/// memory of one such tensor.
pub(crate) fn backward(
    dout: &Tensor,
    x: &Tensor,
    saved: &MlpSaved,
    weights: &LayerParameters,
    grads: &mut LayerParameters,
) -> Result<Tensor> {
    let mut dhidden = Tensor::zeros_like(&saved.gate)?;
    linear_bwd_input(dout, &weights.down_proj, &mut dhidden)?;
    let SwigluGrads { dgate, dup, out: hidden } =
        swiglu_bwd_with_out(dhidden, &saved.gate, &saved.up)?;
    add_weight_gradient(dout, &hidden, &mut grads.down_proj)?;
    add_weight_gradient(&dgate, x, &mut grads.gate_proj)?;
    add_weight_gradient(&dup, x, &mut grads.up_proj)?;

    let mut dx = Tensor::zeros_like(x)?;
    linear_bwd_input(&dgate, &weights.gate_proj, &mut dx)?;
    linear_bwd_input(&dup, &weights.up_proj, &mut dx)?;
    Ok(dx)
}
