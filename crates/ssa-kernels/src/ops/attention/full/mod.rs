//! Causal softmax attention over whole documents.
//!
//! The kernel behind it takes a window as well: [`window`](super::window) attention is the same computation with a
//! shorter range of keys.

mod cpu;
pub mod reference;
#[cfg(test)]
pub(super) mod tests;

use super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::checks::{check_positive, check_shape};
use crate::{Device, Documents, Result, Tensor};

/// Causal attention within each document.
///
/// For query head `h * G + g` at token `t`, over the keys `j <= t` of its document:
///
/// `s_j = softmax_scale q_t . k_j`, `lse_t = ln sum_j e^(s_j)`, `out_t = sum_j e^(s_j - lse_t) v_j`.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`; returns `out` `[B, T, HQ, D]` and `lse` `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`. Products, softmax sums and the output accumulate in `f32`, tile by tile of keys.
///
/// # Edge cases
/// No tokens: an empty result. The first token of a document returns its own value.
///
/// # Errors
/// [`KernelError`](crate::KernelError) if the shapes disagree, HQ is no multiple of H, D is 0, or the documents do
/// not cover the tokens.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// The full stream of the paper. `README.md` in this folder derives the tiled form.
pub fn full_attention_fwd(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Documents,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let shape = check_inputs("full_attention_fwd", q, k, v, documents)?;
    Ok(causal_fwd(&CausalCall { q, k, v, documents, window_size: usize::MAX, softmax_scale, shape }))
}

/// Adds the gradients of [`full_attention_fwd`] to `grads`.
///
/// With `p_j = e^(s_j - lse_t)` and `ds_j = p_j (dout_t . v_j - dout_t . out_t)`, summed over everything that
/// shares an input: `dv_j += p_j dout_t`, `dq_t += softmax_scale ds_j k_j`, `dk_j += softmax_scale ds_j q_t`.
///
/// # Shapes
/// `dout` `[B, T, HQ, D]`; `q`, `k`, `v` as in the forward; `output` is what the forward returned; `grads` has
/// the shapes of `q`, `k` and `v`.
///
/// # Dtypes
/// `f32`, accumulated in `f32`. The probabilities are computed again from `lse`; extra memory is linear in T.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`full_attention_fwd`], and if `dout`, `output` or `grads` do not have these shapes.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads: query tiles are dealt to a number of tasks that depends
/// on the documents alone, and their key gradients are added in order.
///
/// # Source
/// As the forward.
#[allow(clippy::too_many_arguments)]
pub fn full_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: &AttentionOutput,
    documents: &Documents,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = "full_attention_bwd";
    let shape = check_inputs(op, q, k, v, documents)?;
    check_gradients(op, &shape, dout, output, grads)?;
    let call = CausalCall { q, k, v, documents, window_size: usize::MAX, softmax_scale, shape };
    causal_bwd(&call, dout, output, grads);
    Ok(())
}

/// A checked call of causal attention over the last `window_size` tokens of the document.
pub(super) struct CausalCall<'a> {
    pub(super) q: &'a Tensor,
    pub(super) k: &'a Tensor,
    pub(super) v: &'a Tensor,
    pub(super) documents: &'a Documents,
    /// At least 1; the query's own token counts.
    pub(super) window_size: usize,
    pub(super) softmax_scale: f32,
    pub(super) shape: AttentionShape,
}

/// Checks the inputs of full and window attention.
pub(super) fn check_inputs(
    op: &'static str,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Documents,
) -> Result<AttentionShape> {
    let shape = AttentionShape::new(op, q, k, v, documents)?;
    check_positive(op, "head_dim", shape.head_dim)?;
    Ok(shape)
}

/// Checks what the backwards of full and window attention take beside the inputs.
pub(super) fn check_gradients(
    op: &'static str,
    shape: &AttentionShape,
    dout: &Tensor,
    output: &AttentionOutput,
    grads: &AttentionGrads,
) -> Result<()> {
    check_shape(op, "dout", dout, &shape.q_shape())?;
    check_shape(op, "output.out", &output.out, &shape.q_shape())?;
    check_shape(op, "output.lse", &output.lse, &shape.lse_shape())?;
    check_shape(op, "grads.dq", &grads.dq, &shape.q_shape())?;
    let kv_shape = [shape.batch, shape.tokens, shape.kv_heads, shape.head_dim];
    check_shape(op, "grads.dk", &grads.dk, &kv_shape)?;
    check_shape(op, "grads.dv", &grads.dv, &kv_shape)
}

/// The forward of full and window attention.
pub(super) fn causal_fwd(call: &CausalCall<'_>) -> AttentionOutput {
    let mut output = AttentionOutput {
        out: Tensor::for_output(call.shape.q_shape()),
        lse: Tensor::for_output(call.shape.lse_shape()),
    };
    match call.q.device() {
        Device::Cpu => cpu::forward(call, &mut output),
    }
    output
}

/// The backward of full and window attention.
pub(super) fn causal_bwd(
    call: &CausalCall<'_>,
    dout: &Tensor,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) {
    match call.q.device() {
        Device::Cpu => cpu::backward(call, dout, output, grads),
    }
}
