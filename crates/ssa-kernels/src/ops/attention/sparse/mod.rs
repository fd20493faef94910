//! Attention over the tokens of selected blocks. The README of this folder explains the algorithm.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::selection::BlockIndices;
use super::shape::{
    AttentionCall, AttentionGrads, AttentionOutput, AttentionShape, TOKEN_KEYS, backward_args,
};
use crate::{Device, Result, Tensor};

/// A checked call of attention over selected blocks.
pub(super) struct SparseAttention<'a> {
    /// `[B, T, HQ, D]`.
    pub(super) q: &'a Tensor,
    /// `[B, T, H, D]`.
    pub(super) k: &'a Tensor,
    /// `[B, T, H, D]`.
    pub(super) v: &'a Tensor,
    pub(super) block_indices: &'a BlockIndices,
    pub(super) shape: AttentionShape,
    pub(super) softmax_scale: f32,
}

/// `out = sum_j p_j v_j`, `p = softmax_j(softmax_scale * q . k_j)` over the tokens j of the
/// selected blocks up to the token of the query.
///
/// # Shapes
/// As [`full_attention_fwd`](super::full::full_attention_fwd), with `block_indices` `[B, T, H, K]`.
/// The G query heads of a key/value head share its selection.
///
/// # Dtypes
/// `f32`; scores accumulate over D, outputs over the K * block_size keys of a query, both in `f32`.
/// Exponentials are taken relative to the largest score. On a GPU `q`, `k`, `v` and `out` are
/// `bf16` and `lse` is `f32`; weights are rounded to `bf16` for the product with `v`.
///
/// # Edge cases
/// With every block selected ([`BlockIndices::all`]) this is full attention. A query always sees
/// itself, so `lse` is finite. No tokens: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type or is on another device, or if `block_indices` is a selection for other documents or
/// another number of key/value heads; on a GPU also if D is above 256. A selection in host memory
/// is copied to the GPU of the call, and one on a GPU to the CPU of the call.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: one thread computes every query. On a GPU
/// bitwise reproducible: one warp computes every query.
///
/// # Source
/// Section 3 of the SSA paper (arXiv 2511.20102), the sparse stream.
pub fn sparse_attention_fwd(
    call: &AttentionCall<'_>,
    block_indices: &BlockIndices,
) -> Result<AttentionOutput> {
    const OP: &str = "sparse_attention_fwd";
    let checked = call.args(OP).check()?;
    let shape = AttentionShape::of(&checked)?;
    block_indices.check_fits(OP, call.documents, shape.kv_heads)?;
    let &AttentionCall { q, k, v, softmax_scale, .. } = call;
    let mut output = AttentionOutput::for_output(q, shape)?;
    match checked.device() {
        Device::Cuda(gpu) => {
            let call = SparseAttention { q, k, v, block_indices, shape, softmax_scale };
            cuda::forward(OP, gpu, &call, &mut output)?;
        }
        Device::Cpu => cpu::forward(
            &cpu::SparseContext::new(OP, shape, &block_indices.to_host()?, softmax_scale)?,
            [q.as_slice()?, k.as_slice()?, v.as_slice()?],
            output.out.as_mut_slice()?,
            output.lse.as_mut_slice()?,
        )?,
    }
    Ok(output)
}

/// Gradients of [`sparse_attention_fwd`]; none passes through the selection. With `ds_j = p_j (dout
/// . v_j - dout . out)`: `dq += scale sum_j ds_j k_j`, `dk_j += scale sum_q ds_j q`, `dv_j += sum_q
/// p_j dout`.
///
/// # Shapes
/// `dout` and `grads.dq` `[B, T, HQ, D]`, `grads.dk` and `grads.dv` `[B, T, H, D]`; the rest as in
/// [`sparse_attention_fwd`], which returned `output`.
///
/// # Dtypes
/// `f32`. A key's gradient accumulates in `f32` over the queries of a chunk of tokens, then over
/// chunks. Extra memory: three padded copies of k or v, and the scores of a chunk, bounded for any
/// number of tokens. On a GPU all but `output.lse` is `bf16`, with sums in `f32`; p and ds are
/// rounded to `bf16` for their products. Extra memory there: the inverse of the selection, 16 bytes
/// a slot, partial sums of long lists (2 D bytes a slot at 16 keys a block, less with more tokens)
/// and one `f32` a query head.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`sparse_attention_fwd`]; on a GPU also if B * T * H * K is 2^31 or more.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: one thread sums a key's gradient in the order of
/// the queries. On a GPU bitwise reproducible: partial sums of fixed ranges of queries are added in
/// order, without atomics.
///
/// # Source
/// As [`sparse_attention_fwd`].
pub fn sparse_attention_bwd(
    dout: &Tensor,
    call: &AttentionCall<'_>,
    block_indices: &BlockIndices,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    const OP: &str = "sparse_attention_bwd";
    let args = call.args(OP);
    let checked = backward_args(args, TOKEN_KEYS, dout, output, grads).check()?;
    let shape = AttentionShape::of(&checked)?;
    block_indices.check_fits(OP, call.documents, shape.kv_heads)?;
    let &AttentionCall { q, k, v, softmax_scale, .. } = call;
    match checked.device() {
        Device::Cuda(gpu) => {
            let call = SparseAttention { q, k, v, block_indices, shape, softmax_scale };
            cuda::backward(OP, gpu, dout, &call, output, grads)
        }
        Device::Cpu => {
            let queries = cpu::Queries {
                q: q.as_slice()?,
                out: output.out.as_slice()?,
                lse: output.lse.as_slice()?,
                dout: dout.as_slice()?,
            };
            let AttentionGrads { dq, dk, dv } = grads;
            cpu::backward(
                &cpu::SparseContext::new(OP, shape, &block_indices.to_host()?, softmax_scale)?,
                queries,
                [k.as_slice()?, v.as_slice()?],
                [dq.as_mut_slice()?, dk.as_mut_slice()?, dv.as_mut_slice()?],
            )
        }
    }
}
