//! The backward pass, in two parallel phases per chunk of tokens.
//!
//! A token gives gradients to the keys it selected, so tasks over tokens would collide on them.
//! Phase 1 therefore runs over tokens, adds to dq and keeps the probabilities and score gradients;
//! phase 2 runs over blocks of keys and adds up what the tokens that selected each block left for
//! it, in the order of the tokens. That needs no private copies of dk and dv, no atomics and no
//! second computation of the scores, and the result does not depend on the number of threads:
//! chunks are cut by size alone.

use super::Call;
use super::packed::Packed;
use crate::ops::attention::selection::BlockIndices;
use crate::ops::attention::shape::{AttentionGrads, AttentionOutput, AttentionShape};

/// Probabilities that a chunk keeps (and as many gradients): 1 MiB each, so that phase 2 finds them
/// in the caches. Eight times as many cost a third of the speed; 60 tokens, at the sizes of the
/// paper, still feed many threads.
const SCORES_PER_CHUNK: usize = 1 << 18;

/// The keys and values in the layouts that phase 1 needs.
pub(super) struct Keys {
    pub(super) k: Packed,
    pub(super) k_transposed: Packed,
    pub(super) v_transposed: Packed,
}

/// The rows of a chunk that phase 1 reads.
pub(super) struct Queries<'a> {
    pub(super) q: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
    pub(super) dout: &'a [f32],
}

/// What phase 1 leaves for phase 2, for every token of a chunk.
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

pub(in super::super) fn backward(
    dout: &[f32],
    [q, k, v]: [&[f32]; 3],
    output: &AttentionOutput,
    shape: AttentionShape,
    block_indices: &BlockIndices,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) {
    let call = Call::new(shape, block_indices, softmax_scale);
    let (heads, dim) = (shape.kv_heads, shape.head_dim);
    let keys = Keys {
        k: Packed::blocks(k, &call.blocks, call.block_size, heads, dim),
        k_transposed: Packed::transposed(k, &call.blocks, call.block_size, heads, dim),
        v_transposed: Packed::transposed(v, &call.blocks, call.block_size, heads, dim),
    };
    let scores_per_token = shape.q_heads * call.scores_stride();
    let tokens = (SCORES_PER_CHUNK / scores_per_token).min(shape.total_tokens()).max(1);
    let mut chunk = Chunk {
        start: 0,
        q: vec![0.0; tokens * shape.q_heads * call.dim()],
        dout: vec![0.0; tokens * shape.q_heads * call.dim()],
        p: vec![0.0; tokens * scores_per_token],
        ds: vec![0.0; tokens * scores_per_token],
    };
    let AttentionGrads { dq, dk, dv } = grads;
    for start in (0..shape.total_tokens()).step_by(tokens) {
        let end = shape.total_tokens().min(start + tokens);
        let rows = start * shape.q_heads..end * shape.q_heads;
        let elements = rows.start * dim..rows.end * dim;
        let queries = Queries {
            q: &q[elements.clone()],
            out: &output.out.as_slice()[elements.clone()],
            lse: &output.lse.as_slice()[rows],
            dout: &dout[elements.clone()],
        };
        chunk.start = start;
        super::queries::run_phase(
            &call,
            &keys,
            queries,
            &mut chunk,
            &mut dq.as_mut_slice()[elements],
        );
        super::keys::run_phase(&call, &chunk, end - start, dk.as_mut_slice(), dv.as_mut_slice());
    }
}
