//! Measurements of the difference between full and sparse attention, for analysis.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::selection::BlockIndices;
use super::shape::{AttentionCall, AttentionShape};
use super::sparse::SparseAttention;
use crate::{Device, Result};

/// One number per token and query head, each `[N * HQ]`.
///
/// `p` is the full-attention distribution of a query, a key is dropped if no selected block holds
/// it, `h_full` and `h_sparse` are the outputs of full and sparse attention, and `|.|` is the
/// Euclidean norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionStatistics {
    /// Attention sparsity: the sum of `p` over the selected blocks.
    pub sparsity: Vec<f32>,
    /// Entropy of `p` in bits.
    pub entropy_bits: Vec<f32>,
    /// `delta`: the sum of `p` over dropped keys, summed directly because `1 - sparsity` would
    /// cancel.
    pub dropped_mass: Vec<f32>,
    /// The largest `|v_j|` of a dropped key, 0 if no key is dropped.
    pub max_dropped_value_norm: Vec<f32>,
    /// `|h_full - h_sparse|`.
    pub distance: Vec<f32>,
    /// The bound on `distance`: `delta (max_dropped_value_norm + |h_sparse|)`.
    pub bound: Vec<f32>,
    /// `|h_full - h_sparse - delta (mu_tail - h_sparse)|` with `mu_tail` the mean of dropped values
    /// under `p`; zero up to rounding.
    pub identity_error: Vec<f32>,
}

/// Compares full attention with sparse attention over `block_indices`, token by token and head by
/// head.
///
/// The formulas are those of the fields of [`AttentionStatistics`]. Both softmax are computed from
/// the scores, each with its own maximum, which is found while it sums: neither output is derived
/// from the other.
///
/// # Shapes
/// As [`sparse_attention_fwd`](super::sparse::sparse_attention_fwd). Each field of the result has N
/// * HQ entries, token by token.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; results in host memory in `f32`. Everything between is `f64` on both:
/// distances and dropped masses are differences of nearly equal numbers. Extra memory on a CPU: 56
/// bytes a query head, 8 a value head, and 1 MiB or so a thread; on a GPU 28 bytes a query head and
/// 8 a value head. The op waits for the GPU.
///
/// # Edge cases
/// No tokens: empty lists. Every key selected: `sparsity` is 1, and what depends on dropped keys is
/// 0.
///
/// # Errors
/// As [`sparse_attention_fwd`](super::sparse::sparse_attention_fwd).
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on any GPU: sums have a fixed order.
///
/// # Source
/// Attention sparsity, attention entropy and Theorem 1 of the SSA paper (arXiv 2511.20102).
pub fn attention_statistics(
    call: &AttentionCall<'_>,
    block_indices: &BlockIndices,
) -> Result<AttentionStatistics> {
    const OP: &str = "attention_statistics";
    let checked = call.args(OP).check()?;
    let shape = AttentionShape::of(&checked)?;
    block_indices.check_fits(OP, call.documents, shape.kv_heads)?;
    let &AttentionCall { q, k, v, softmax_scale, .. } = call;
    match checked.device() {
        Device::Cuda(gpu) => {
            let call = SparseAttention { q, k, v, block_indices, shape, softmax_scale };
            cuda::compare(OP, gpu, &call)
        }
        Device::Cpu => cpu::compare(&cpu::SparseSlices {
            q: q.as_slice()?,
            k: k.as_slice()?,
            v: v.as_slice()?,
            block_indices: &block_indices.to_host()?,
            softmax_scale,
            shape,
        }),
    }
}
