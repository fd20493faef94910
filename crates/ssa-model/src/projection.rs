//! From the normed input of a layer to its queries, keys and values: linear maps, their biases, the
//! RMS norm of every head and RoPE, each as far as the architecture has it.

use ssa_kernels::ops::attention::AttentionGrads;
use ssa_kernels::ops::bias::bias_fwd;
use ssa_kernels::ops::linear::{linear_bwd_input, linear_fwd};
use ssa_kernels::ops::rms_norm::{RmsNormOutput, rms_norm_bwd, rms_norm_fwd};
use ssa_kernels::ops::rope::{RopeTable, rope_bwd, rope_fwd};
use ssa_kernels::{Documents, Tensor};

use crate::gradients::{add_bias_gradient, add_weight_gradient, with_gradient_of};
use crate::{LayerParameters, Result};

/// The inputs of every attention of a layer, after RoPE.
pub(crate) struct QueryKeyValue {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

/// Queries, keys and values with what their backward needs in addition to the normed input.
pub(crate) struct Projection {
    pub(crate) qkv: QueryKeyValue,
    q_norm: Option<NormedHeads>,
    k_norm: Option<NormedHeads>,
}

/// What the backward of the norm of heads needs.
struct NormedHeads {
    /// The heads before the norm.
    x: Tensor,
    rstd: Tensor,
}

/// Projects the normed input `x` `[B, T, hidden]` to q, k and v of heads of `rope.head_dim()`, and
/// rotates q and k by their positions in the documents.
pub(crate) fn project(
    x: &Tensor,
    weights: &LayerParameters,
    documents: &Documents,
    rope: &RopeTable,
    rms_norm_eps: f32,
) -> Result<Projection> {
    let head_dim = rope.head_dim();
    let heads = |weight: &Tensor, bias: Option<&Tensor>| -> Result<Tensor> {
        let shape = [x.shape()[0], x.shape()[1], weight.shape()[0] / head_dim, head_dim];
        let out = linear_fwd(x, weight)?;
        let out = if let Some(bias) = bias { bias_fwd(out, bias)? } else { out };
        Ok(out.reshape(shape)?)
    };
    let q = heads(&weights.q_proj, weights.q_bias.as_ref())?;
    let k = heads(&weights.k_proj, weights.k_bias.as_ref())?;
    let v = heads(&weights.v_proj, weights.v_bias.as_ref())?;
    let (mut q, q_norm) = norm_heads(q, weights.q_norm.as_ref(), rms_norm_eps)?;
    let (mut k, k_norm) = norm_heads(k, weights.k_norm.as_ref(), rms_norm_eps)?;
    rope_fwd(&mut q, documents, rope)?;
    rope_fwd(&mut k, documents, rope)?;
    Ok(Projection { qkv: QueryKeyValue { q, k, v }, q_norm, k_norm })
}

/// Normalizes every head, if the architecture does.
fn norm_heads(
    x: Tensor,
    weight: Option<&Tensor>,
    eps: f32,
) -> Result<(Tensor, Option<NormedHeads>)> {
    let Some(weight) = weight else { return Ok((x, None)) };
    let RmsNormOutput { out, rstd } = rms_norm_fwd(&x, weight, eps)?;
    Ok((out, Some(NormedHeads { x, rstd })))
}

impl Projection {
    /// Adds to the weight gradients, and to `dx`, the gradient of the normed input `x`.
    pub(crate) fn backward(
        &self,
        grads_of_heads: AttentionGrads,
        x: &Tensor,
        weights: &LayerParameters,
        (documents, rope): (&Documents, &RopeTable),
        dx: &mut Tensor,
        grads: &mut LayerParameters,
    ) -> Result<()> {
        let AttentionGrads { mut dq, mut dk, dv } = grads_of_heads;
        rope_bwd(&mut dq, documents, rope)?;
        rope_bwd(&mut dk, documents, rope)?;
        let (q_norm, dq_norm) = (weights.q_norm.as_ref(), grads.q_norm.as_mut());
        let (k_norm, dk_norm) = (weights.k_norm.as_ref(), grads.k_norm.as_mut());
        let dq = unnorm_heads(dq, self.q_norm.as_ref(), q_norm, dq_norm)?;
        let dk = unnorm_heads(dk, self.k_norm.as_ref(), k_norm, dk_norm)?;
        for (dhead, weight, dweight, dbias) in [
            (dq, &weights.q_proj, &mut grads.q_proj, &mut grads.q_bias),
            (dk, &weights.k_proj, &mut grads.k_proj, &mut grads.k_bias),
            (dv, &weights.v_proj, &mut grads.v_proj, &mut grads.v_bias),
        ] {
            let dhead = dhead.reshape([x.shape()[0], x.shape()[1], weight.shape()[0]])?;
            add_weight_gradient(&dhead, x, dweight)?;
            add_bias_gradient(&dhead, dbias.as_mut())?;
            linear_bwd_input(&dhead, weight, dx)?;
        }
        Ok(())
    }
}

/// The gradient of the heads before their norm, if they have one.
fn unnorm_heads(
    dout: Tensor,
    saved: Option<&NormedHeads>,
    weight: Option<&Tensor>,
    dweight: Option<&mut Tensor>,
) -> Result<Tensor> {
    let (Some(saved), Some(weight), Some(dweight)) = (saved, weight, dweight) else {
        return Ok(dout);
    };
    let mut dx = Tensor::zeros_like(&dout)?;
    with_gradient_of(weight, dweight, |dweight| {
        Ok(rms_norm_bwd(&dout, &saved.x, weight, &saved.rstd, &mut dx, dweight)?)
    })?;
    Ok(dx)
}
