//! Attention over the tokens of selected blocks. The README of this folder explains the algorithm.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::selection::BlockIndices;
use super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::checks::{check_positive, check_shape, same_device};
use crate::{Device, Documents, KernelError, Result, Tensor};

/// `out = sum_j p_j v_j`, `p = softmax_j(softmax_scale * q . k_j)` over the tokens j of the
/// selected blocks that are not behind the query.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`, `block_indices` `[B, T, H, K]`; returns out
/// `[B, T, HQ, D]` and lse `[B, T, HQ]`. The G query heads of a key/value head share its selection.
///
/// # Dtypes
/// `f32`; scores accumulate over D, outputs over the K * block_size keys of a query, both in `f32`.
/// Exponentials are taken relative to the largest score. On a GPU q, k, v and out are `bf16` and
/// lse is `f32`; weights are rounded to `bf16` for the product with v.
///
/// # Edge cases
/// With every block selected ([`BlockIndices::all`]) this is full attention. A query always sees
/// itself, so lse is finite. No tokens: an empty result.
///
/// # Errors
/// [`KernelError::Shape`] if q, k and v do not fit each other, [`KernelError::Value`] if HQ is no
/// multiple of H, D is zero, or `block_indices` was made for other documents or another number of
/// key/value heads; on a GPU also if D is above 256.
///
/// # Determinism
/// Bitwise reproducible: every query is computed by one thread, on a GPU by one warp.
///
/// # Source
/// Section 3 of the SSA paper (arXiv 2511.20102), the sparse stream.
pub fn sparse_attention_fwd(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    block_indices: &BlockIndices,
    documents: &Documents,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let shape = check_inputs("sparse_attention_fwd", [q, k, v], block_indices, documents)?;
    let mut output = AttentionOutput::for_output(q, shape);
    match q.device() {
        Device::Cuda(gpu) => {
            let inputs = cuda::Inputs { q, k, v, block_indices, shape, softmax_scale };
            cuda::forward("sparse_attention_fwd", &gpu, &inputs, &mut output)?;
        }
        Device::Cpu => cpu::forward(
            [q, k, v].map(Tensor::as_slice),
            shape,
            &*block_indices.to_host()?,
            softmax_scale,
            output.out.as_mut_slice(),
            output.lse.as_mut_slice(),
        ),
    }
    Ok(output)
}

/// Gradients of [`sparse_attention_fwd`]; none passes through the selection. With `ds_j = p_j (dout
/// . v_j - dout . out)`: `dq += scale sum_j ds_j k_j`, `dk_j += scale sum_q ds_j q`, `dv_j += sum_q
/// p_j dout`.
///
/// # Shapes
/// `dout` and `grads.dq` `[B, T, HQ, D]`, `grads.dk` and `grads.dv` `[B, T, H, D]`; the rest as in
/// the forward, whose result is `output`.
///
/// # Dtypes
/// `f32`. A key's gradient is summed in `f32` over the queries of a chunk of tokens, then over
/// chunks. Extra memory: three padded copies of k or v, and a chunk of scores that is bounded
/// whatever the number of tokens. On a GPU all but lse is `bf16`, with sums in `f32`; p and ds are
/// rounded to `bf16` for their products. Extra memory there: the inverse of the selection, 16 bytes
/// a slot, pieces of lists that were cut (2 D bytes a slot at 16 keys a block, less with more
/// tokens) and one `f32` a query head.
///
/// # Errors
/// As the forward; [`KernelError::Shape`] if `dout`, `output` or a gradient has another shape than
/// stated.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: a key's gradient is summed by one thread in the
/// order of the queries. On a GPU too: there partial sums of fixed ranges of queries are added in
/// order, without atomics.
pub fn sparse_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: &AttentionOutput,
    block_indices: &BlockIndices,
    documents: &Documents,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    const OP: &str = "sparse_attention_bwd";
    let shape = check_inputs(OP, [q, k, v], block_indices, documents)?;
    check_shape(OP, "dout", dout, &shape.q_shape())?;
    check_shape(OP, "output.out", &output.out, &shape.q_shape())?;
    check_shape(OP, "output.lse", &output.lse, &shape.lse_shape())?;
    check_shape(OP, "grads.dq", &grads.dq, q.shape())?;
    check_shape(OP, "grads.dk", &grads.dk, k.shape())?;
    check_shape(OP, "grads.dv", &grads.dv, v.shape())?;
    let AttentionGrads { dq, dk, dv } = &*grads;
    let AttentionOutput { out, lse } = output;
    let others = [("dout", dout), ("output.out", out), ("output.lse", lse)];
    same_device(OP, q, &others)?;
    same_device(OP, q, &[("grads.dq", dq), ("grads.dk", dk), ("grads.dv", dv)])?;
    match q.device() {
        Device::Cuda(gpu) => {
            let inputs = cuda::Inputs { q, k, v, block_indices, shape, softmax_scale };
            cuda::backward(OP, &gpu, dout, &inputs, output, grads)?;
        }
        Device::Cpu => cpu::backward(
            dout.as_slice(),
            [q, k, v].map(Tensor::as_slice),
            output,
            shape,
            &*block_indices.to_host()?,
            softmax_scale,
            grads,
        ),
    }
    Ok(())
}

fn check_inputs(
    op: &'static str,
    [q, k, v]: [&Tensor; 3],
    block_indices: &BlockIndices,
    documents: &Documents,
) -> Result<AttentionShape> {
    let shape = AttentionShape::new(op, q, k, v, documents)?;
    check_positive(op, "head_dim", shape.head_dim)?;
    same_device(op, q, &[("k", k), ("v", v)])?;
    if block_indices.documents() != documents {
        let expected = "indices of the same documents";
        return Err(KernelError::value(
            op,
            "block_indices",
            expected,
            "indices of other documents",
        ));
    }
    if block_indices.kv_heads() != shape.kv_heads {
        let expected = format!("indices for {} key/value heads", shape.kv_heads);
        return Err(KernelError::value(op, "block_indices", expected, block_indices.kv_heads()));
    }
    Ok(shape)
}
