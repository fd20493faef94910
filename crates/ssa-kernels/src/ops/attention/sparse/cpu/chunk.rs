//! What the two phases of the backward pass share.

use super::packed::Packed;

/// What the backward reads of every query, or of those of a chunk.
pub(crate) struct Queries<'a> {
    /// `[tokens, HQ, D]`.
    pub(crate) q: &'a [f32],
    /// `[tokens, HQ, D]`.
    pub(crate) out: &'a [f32],
    /// `[tokens, HQ]`.
    pub(crate) lse: &'a [f32],
    /// `[tokens, HQ, D]`.
    pub(crate) dout: &'a [f32],
}

/// The keys and values in the layouts that phase 1 needs.
pub(super) struct Keys {
    pub(super) k: Packed,
    pub(super) k_transposed: Packed,
    pub(super) v_transposed: Packed,
}

/// What phase 1 computes for phase 2, for every token of a chunk.
pub(super) struct Chunk {
    /// First token of the chunk.
    pub(super) start: usize,
    /// Scaled queries `[tokens, HQ, padded D]`.
    pub(super) q: Vec<f32>,
    /// Gradients of the outputs `[tokens, HQ, padded D]`.
    pub(super) dout: Vec<f32>,
    /// Probabilities `[tokens, HQ, scores_stride]`.
    pub(super) p: Vec<f32>,
    /// Gradients of the scaled scores `[tokens, HQ, scores_stride]`.
    pub(super) ds: Vec<f32>,
}
