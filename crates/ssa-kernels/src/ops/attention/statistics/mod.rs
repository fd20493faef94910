//! Measurements of how full and sparse attention differ, for analysis.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::selection::BlockIndices;
use super::shape::AttentionShape;
use crate::{DType, Device, Documents, KernelError, Result, Tensor};

/// One number per token and query head, each `[N * HQ]`.
///
/// `p` is the full-attention distribution of a query, a key is dropped if it lies in no selected block, `h_full` and
/// `h_sparse` are the outputs of full and sparse attention, and `|.|` is the Euclidean norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionStatistics {
    /// Attention sparsity: the sum of `p` over the selected blocks.
    pub sparsity: Vec<f32>,
    /// Entropy of `p` in bits.
    pub entropy_bits: Vec<f32>,
    /// `delta`: the sum of `p` over dropped keys, summed as such because `1 - sparsity` would cancel.
    pub dropped_mass: Vec<f32>,
    /// The largest `|v_j|` of a dropped key, 0 if none is dropped.
    pub max_dropped_value_norm: Vec<f32>,
    /// `|h_full - h_sparse|`.
    pub distance: Vec<f32>,
    /// The bound on `distance`: `delta (max_dropped_value_norm + |h_sparse|)`.
    pub bound: Vec<f32>,
    /// `|h_full - h_sparse - delta (mu_tail - h_sparse)|` with `mu_tail` the mean of dropped values under `p`; zero
    /// but for rounding.
    pub identity_error: Vec<f32>,
}

/// Compares full attention with sparse attention over `block_indices`, token by token and head by head.
///
/// The formulas are those of the fields of [`AttentionStatistics`]. Both softmax are computed from the scores, each
/// with its own maximum: neither output is derived from the other.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`; the documents are those of `block_indices`. Each field of the
/// result has N * HQ entries, token by token.
///
/// # Dtypes
/// `f32` inputs and results; everything between is `f64`. Tensors on a GPU are copied to the host and compared there: this
/// measures now and then, and wants `f64` more than speed.
///
/// # Edge cases
/// No tokens: empty lists. Every key selected: mass 1, and zeros where something is dropped otherwise.
///
/// # Errors
/// [`KernelError`] if the shapes disagree, or `block_indices` was made for other documents or key/value heads.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
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
    if block_indices.documents() != documents {
        let (expected, actual) = ("a selection for the same documents", block_indices.documents().len());
        return Err(KernelError::value(op, "block_indices", expected, format!("one for {actual} documents")));
    }
    if block_indices.kv_heads() != shape.kv_heads {
        let expected = format!("a selection for {} key/value heads", shape.kv_heads);
        return Err(KernelError::value(op, "block_indices", expected, block_indices.kv_heads()));
    }
    let block_indices = &*block_indices.to_host()?;
    Ok(match q.device() {
        Device::Cuda(_) => {
            let host = |x: &Tensor| x.to_device(&Device::Cpu, DType::F32);
            let (q, k, v) = (&host(q)?, &host(k)?, &host(v)?);
            cpu::Comparison { q, k, v, block_indices, documents, softmax_scale, shape }.run()
        }
        Device::Cpu => cpu::Comparison { q, k, v, block_indices, documents, softmax_scale, shape }.run(),
    })
}
