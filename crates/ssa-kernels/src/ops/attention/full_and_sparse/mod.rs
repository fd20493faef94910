//! Full and sparse attention of the same queries, keys and values: what training with both streams computes.
//!
//! Both are softmax averages of the same scores. Where one pass over the keys is the faster way (a GPU, 16 query heads a
//! key/value head), it is one; elsewhere this is the two ops one after the other, with the same results.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use super::full::{full_attention_bwd, full_attention_fwd};
use super::selection::BlockIndices;
use super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use super::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use crate::checks::check_shape;
use crate::{Device, Documents, KernelError, Result, Tensor};

/// What [`full_and_sparse_attention_fwd`] returns and its backward needs.
#[derive(Clone, Debug)]
pub struct FullAndSparse<T> {
    /// Over all tokens that are not behind the query.
    pub full: T,
    /// Over those of the selected blocks.
    pub sparse: T,
}

/// A checked call.
struct Call<'a> {
    op: &'static str,
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    block_indices: &'a BlockIndices,
    documents: &'a Documents,
    softmax_scale: f32,
    shape: AttentionShape,
}

/// [`full_attention_fwd`] and [`sparse_attention_fwd`] of the same inputs.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`, `block_indices` `[B, T, H, K]`; returns out `[B, T, HQ, D]` and lse
/// `[B, T, HQ]` of both.
///
/// # Dtypes
/// As the two ops: `f32` on the CPU, `bf16` with `f32` scores, sums and lse on a GPU. Each stream has its own largest score, so
/// neither loses precision where the other's scores are far larger. Extra memory in one pass: a bit for every token,
/// key/value head and block.
///
/// # Edge cases
/// As the two ops.
///
/// # Errors
/// As the two ops.
///
/// # Determinism
/// As the two ops.
///
/// # Source
/// Section 3 of the SSA paper (arXiv 2511.20102): in training both streams of a layer are computed.
pub fn full_and_sparse_attention_fwd(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    block_indices: &BlockIndices,
    documents: &Documents,
    softmax_scale: f32,
) -> Result<FullAndSparse<AttentionOutput>> {
    let op = "full_and_sparse_attention_fwd";
    let shape = check_inputs(op, [q, k, v], block_indices, documents)?;
    if let Device::Cuda(gpu) = q.device()
        && let Some(kernels) = cuda::Kernels::new(&gpu, &shape, block_indices.block_size())
    {
        let call = Call { op, q, k, v, block_indices, documents, softmax_scale, shape };
        let mut full = AttentionOutput::for_output(q, shape);
        let mut sparse = AttentionOutput::for_output(q, shape);
        kernels.forward(&gpu, &call, &mut full, &mut sparse)?;
        return Ok(FullAndSparse { full, sparse });
    }
    Ok(FullAndSparse {
        full: full_attention_fwd(q, k, v, documents, softmax_scale)?,
        sparse: sparse_attention_fwd(q, k, v, block_indices, documents, softmax_scale)?,
    })
}

/// Adds the gradients of [`full_and_sparse_attention_fwd`], of both streams, to `grads`.
///
/// # Shapes
/// Both of `dout` and `grads.dq` `[B, T, HQ, D]`, `grads.dk` and `grads.dv` `[B, T, H, D]`; `output` is what the forward returned.
///
/// # Dtypes
/// As the two ops. In one pass the gradients of scores are added in `f32` before they are rounded for the products with q and k.
///
/// # Edge cases
/// As the two ops.
///
/// # Errors
/// As the two ops.
///
/// # Determinism
/// As the two ops.
///
/// # Source
/// As the forward.
pub fn full_and_sparse_attention_bwd(
    dout: FullAndSparse<&Tensor>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: FullAndSparse<&AttentionOutput>,
    block_indices: &BlockIndices,
    documents: &Documents,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = "full_and_sparse_attention_bwd";
    let shape = check_inputs(op, [q, k, v], block_indices, documents)?;
    let FullAndSparse { full, sparse } = output;
    if let Device::Cuda(gpu) = q.device()
        && let Some(kernels) = cuda::Kernels::new(&gpu, &shape, block_indices.block_size())
    {
        for (argument, tensor, expected) in [
            ("dout.full", dout.full, &shape.q_shape()[..]),
            ("dout.sparse", dout.sparse, &shape.q_shape()),
            ("output.full.out", &full.out, &shape.q_shape()),
            ("output.full.lse", &full.lse, &shape.lse_shape()),
            ("output.sparse.out", &sparse.out, &shape.q_shape()),
            ("output.sparse.lse", &sparse.lse, &shape.lse_shape()),
            ("grads.dq", &grads.dq, q.shape()),
            ("grads.dk", &grads.dk, k.shape()),
            ("grads.dv", &grads.dv, v.shape()),
        ] {
            check_shape(op, argument, tensor, expected)?;
        }
        let call = Call { op, q, k, v, block_indices, documents, softmax_scale, shape };
        return kernels.backward(&gpu, &call, [dout.full, dout.sparse], [full, sparse], grads);
    }
    full_attention_bwd(dout.full, q, k, v, full, documents, softmax_scale, grads)?;
    sparse_attention_bwd(dout.sparse, q, k, v, sparse, block_indices, documents, softmax_scale, grads)
}

fn check_inputs(
    op: &'static str,
    [q, k, v]: [&Tensor; 3],
    block_indices: &BlockIndices,
    documents: &Documents,
) -> Result<AttentionShape> {
    let shape = AttentionShape::new(op, q, k, v, documents)?;
    if block_indices.documents() != documents {
        let expected = "indices of the same documents";
        return Err(KernelError::value(op, "block_indices", expected, "indices of other documents"));
    }
    if block_indices.kv_heads() != shape.kv_heads {
        let expected = format!("indices for {} key/value heads", shape.kv_heads);
        return Err(KernelError::value(op, "block_indices", expected, block_indices.kv_heads()));
    }
    Ok(shape)
}
