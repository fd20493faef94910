//! Attention over block means: the compression branch of NSA.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::shape::{AttentionOutput, AttentionShape};
use crate::checks::{check_positive, check_shape};
use crate::{Device, Documents, Result, Tensor};

/// Gradients of the inputs of compression attention. The backward adds to them; those of the means go on to k and v
/// through [`mean_pool_bwd`](super::pooling::mean_pool_bwd).
#[derive(Clone, Debug)]
pub struct CompressionGrads {
    /// `[B, T, HQ, D]`.
    pub dq: Tensor,
    /// `[C, H, D]`.
    pub dk_pooled: Tensor,
    /// `[C, H, D]`.
    pub dv_pooled: Tensor,
}

impl CompressionGrads {
    /// Zero gradients for the given inputs.
    pub fn zeros_like(q: &Tensor, k_pooled: &Tensor, v_pooled: &Tensor) -> Self {
        Self {
            dq: Tensor::zeros_like(q),
            dk_pooled: Tensor::zeros_like(k_pooled),
            dv_pooled: Tensor::zeros_like(v_pooled),
        }
    }
}

/// `out = sum_c p_c v_pooled_c`, `p = softmax_c(softmax_scale * q . k_pooled_c)` over the complete blocks of the
/// document, c < floor((t + 1) / block_size).
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k_pooled` and `v_pooled` `[C, H, D]` from [`mean_pool_fwd`](super::pooling::mean_pool_fwd);
/// returns out `[B, T, HQ, D]` and lse `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`, accumulated in `f32` by the matrix products. Exponentials are taken relative to the largest score.
///
/// # Edge cases
/// Before the end of its document's first block a token sees nothing: its output is zero and its lse negative
/// infinity. A partial last block is never seen.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the tensors do not fit each other and the documents,
/// [`KernelError::Value`](crate::KernelError::Value) if `block_size` or D is zero, HQ is no multiple of H, or the
/// documents do not cover the tokens of `q`.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: every query is computed by one thread.
///
/// # Source
/// The compression branch of NSA (arXiv 2502.11089), as the baseline of the SSA paper (arXiv 2511.20102).
pub fn compression_attention_fwd(
    q: &Tensor,
    k_pooled: &Tensor,
    v_pooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let shape = check_inputs("compression_attention_fwd", [q, k_pooled, v_pooled], documents, block_size)?;
    let mut out = Tensor::for_output(shape.q_shape());
    let mut lse = Tensor::for_output(shape.lse_shape());
    match q.device() {
        Device::Cpu => cpu::forward(
            [q, k_pooled, v_pooled].map(Tensor::as_slice),
            shape,
            documents,
            block_size,
            softmax_scale,
            out.as_mut_slice(),
            lse.as_mut_slice(),
        ),
    }
    Ok(AttentionOutput { out, lse })
}

/// Gradients of [`compression_attention_fwd`]. With `ds_c = p_c (dout . v_pooled_c - dout . out)`:
/// `dq += scale sum_c ds_c k_pooled_c`, `dk_pooled_c += scale sum_q ds_c q`, `dv_pooled_c += sum_q p_c dout`.
///
/// # Shapes
/// `dout` and `grads.dq` `[B, T, HQ, D]`, `grads.dk_pooled` and `grads.dv_pooled` `[C, H, D]`; the rest as in the
/// forward, whose result is `output`.
///
/// # Dtypes
/// `f32`, accumulated in `f32`; the gradients of the means are summed over parts of the tokens, then over parts.
///
/// # Edge cases
/// A token that sees nothing contributes nothing.
///
/// # Errors
/// As the forward; [`KernelError::Shape`](crate::KernelError::Shape) if `dout`, `output` or a gradient has another shape
/// than stated.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: the parts are cut by shape and added in the order of the tokens.
#[expect(clippy::too_many_arguments, reason = "the inputs and results of the forward, by their names")]
pub fn compression_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k_pooled: &Tensor,
    v_pooled: &Tensor,
    output: &AttentionOutput,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
    grads: &mut CompressionGrads,
) -> Result<()> {
    const OP: &str = "compression_attention_bwd";
    let shape = check_inputs(OP, [q, k_pooled, v_pooled], documents, block_size)?;
    check_shape(OP, "dout", dout, &shape.q_shape())?;
    check_shape(OP, "output.out", &output.out, &shape.q_shape())?;
    check_shape(OP, "output.lse", &output.lse, &shape.lse_shape())?;
    check_shape(OP, "grads.dq", &grads.dq, q.shape())?;
    check_shape(OP, "grads.dk_pooled", &grads.dk_pooled, k_pooled.shape())?;
    check_shape(OP, "grads.dv_pooled", &grads.dv_pooled, v_pooled.shape())?;
    match q.device() {
        Device::Cpu => cpu::backward(
            dout.as_slice(),
            [q, k_pooled, v_pooled].map(Tensor::as_slice),
            output,
            shape,
            documents,
            block_size,
            softmax_scale,
            grads,
        ),
    }
    Ok(())
}

fn check_inputs(
    op: &'static str,
    [q, k_pooled, v_pooled]: [&Tensor; 3],
    documents: &Documents,
    block_size: usize,
) -> Result<AttentionShape> {
    let shape = AttentionShape::of_query_and_pooled(op, q, k_pooled, documents, block_size)?;
    check_positive(op, "head_dim", shape.head_dim)?;
    check_shape(op, "v_pooled", v_pooled, k_pooled.shape())?;
    Ok(shape)
}
