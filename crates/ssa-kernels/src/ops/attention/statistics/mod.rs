//! Measurements of how full and sparse attention differ, for analysis.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::selection::BlockIndices;
use super::shape::AttentionShape;
use crate::checks::same_device;
use crate::{Device, Documents, KernelError, Result, Tensor};

/// One number per token and query head, each `[N * HQ]`.
///
/// `p` is the full-attention distribution of a query, a key is dropped if it lies in no selected
/// block, `h_full` and `h_sparse` are the outputs of full and sparse attention, and `|.|` is the
/// Euclidean norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionStatistics {
    /// Attention sparsity: the sum of `p` over the selected blocks.
    pub sparsity: Vec<f32>,
    /// Entropy of `p` in bits.
    pub entropy_bits: Vec<f32>,
    /// `delta`: the sum of `p` over dropped keys, summed as such because `1 - sparsity` would
    /// cancel.
    pub dropped_mass: Vec<f32>,
    /// The largest `|v_j|` of a dropped key, 0 if none is dropped.
    pub max_dropped_value_norm: Vec<f32>,
    /// `|h_full - h_sparse|`.
    pub distance: Vec<f32>,
    /// The bound on `distance`: `delta (max_dropped_value_norm + |h_sparse|)`.
    pub bound: Vec<f32>,
    /// `|h_full - h_sparse - delta (mu_tail - h_sparse)|` with `mu_tail` the mean of dropped values
    /// under `p`; zero but for rounding.
    pub identity_error: Vec<f32>,
}

/// A checked call.
struct Comparison<'a> {
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
    block_indices: &'a BlockIndices,
    documents: &'a Documents,
    softmax_scale: f32,
    shape: AttentionShape,
}

/// Compares full attention with sparse attention over `block_indices`, token by token and head by
/// head.
///
/// The formulas are those of the fields of [`AttentionStatistics`]. Both softmax are computed from
/// the scores, each with its own maximum: neither output is derived from the other.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`; the documents are those of `block_indices`.
/// Each field of the result has N * HQ entries, token by token.
///
/// # Dtypes
/// `f32` inputs, on a GPU `bf16`; results in host memory in `f32`. Everything between is `f64` on
/// both: distances and dropped masses are differences of nearly equal numbers. The CPU takes the
/// maximum of a softmax before it sums, a GPU raises it on the way. Extra memory on a GPU: 28 bytes
/// a query head and 8 a value; waits for it.
///
/// # Edge cases
/// No tokens: empty lists. Every key selected: mass 1, and zeros where something is dropped
/// otherwise.
///
/// # Errors
/// [`KernelError`] if the shapes disagree, tensors lie on different devices, or `block_indices` was
/// made for other documents or key/value heads; on a GPU for heads of more than 256 elements.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads, and on any card: sums have a fixed order.
///
/// # Source
/// Attention sparsity, attention entropy and Theorem 1 of the paper.
pub fn attention_statistics(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    block_indices: &BlockIndices,
    documents: &Documents,
    softmax_scale: f32,
) -> Result<AttentionStatistics> {
    let op = "attention_statistics";
    let shape = AttentionShape::new(op, q, k, v, documents)?;
    same_device(op, q, &[("k", k), ("v", v)])?;
    if block_indices.documents() != documents {
        let (expected, actual) =
            ("a selection for the same documents", block_indices.documents().len());
        return Err(KernelError::value(
            op,
            "block_indices",
            expected,
            format!("one for {actual} documents"),
        ));
    }
    if block_indices.kv_heads() != shape.kv_heads {
        let expected = format!("a selection for {} key/value heads", shape.kv_heads);
        return Err(KernelError::value(op, "block_indices", expected, block_indices.kv_heads()));
    }
    match q.device() {
        Device::Cuda(gpu) => {
            let comparison = Comparison { q, k, v, block_indices, documents, softmax_scale, shape };
            cuda::compare(op, &gpu, &comparison)
        }
        Device::Cpu => {
            let block_indices = &*block_indices.to_host()?;
            Ok(Comparison { q, k, v, block_indices, documents, softmax_scale, shape }.run())
        }
    }
}
