//! The backward pass, in two parallel phases per chunk of tokens.
//!
//! A token gives gradients to the keys it selected, so tasks over tokens would collide on them.
//! Phase 1 therefore runs over tokens, adds to dq and keeps the probabilities and score gradients;
//! phase 2 runs over blocks of keys and adds up what the tokens that selected each block left for
//! it, in the order of the tokens. That needs no private copies of dk and dv, no atomics and no
//! second computation of the scores, and the result does not depend on the number of threads:
//! chunks are cut by size alone.

use super::chunk::{Chunk, Keys, Queries};
use super::packed::Packed;
use super::{SparseContext, keys, queries};
use crate::Result;
use crate::host_memory::zeros;

/// Probabilities that a chunk keeps (and as many gradients): 1 MiB each, so that phase 2 finds them
/// in the caches. Eight times as many are a third slower; at the sizes of the paper a chunk is 60
/// tokens, enough for many threads.
const SCORES_PER_CHUNK: usize = 1 << 18;

/// Adds to the gradients of q, k and v.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(crate) fn backward(
    context: &SparseContext<'_>,
    queries: Queries<'_>,
    [k, v]: [&[f32]; 2],
    [dq, dk, dv]: [&mut [f32]; 3],
) -> Result<()> {
    let shape = context.shape;
    if shape.total_tokens() == 0 {
        return Ok(());
    }
    let (heads, dim, block_size) = (shape.kv_heads, shape.head_dim, context.block_size);
    let keys = Keys {
        k: Packed::blocks(k, &context.blocks, block_size, heads, dim)?,
        k_transposed: Packed::transposed(k, &context.blocks, block_size, heads, dim)?,
        v_transposed: Packed::transposed(v, &context.blocks, block_size, heads, dim)?,
    };
    let scores_per_token = shape.q_heads * context.scores_stride();
    let tokens = (SCORES_PER_CHUNK / scores_per_token).min(shape.total_tokens()).max(1);
    let mut chunk = Chunk {
        start: 0,
        q: zeros(tokens * shape.q_heads * context.dim())?,
        dout: zeros(tokens * shape.q_heads * context.dim())?,
        p: zeros(tokens * scores_per_token)?,
        ds: zeros(tokens * scores_per_token)?,
    };
    for start in (0..shape.total_tokens()).step_by(tokens) {
        let end = shape.total_tokens().min(start + tokens);
        let rows = start * shape.q_heads..end * shape.q_heads;
        let elements = rows.start * dim..rows.end * dim;
        let queries = Queries {
            q: &queries.q[elements.clone()],
            out: &queries.out[elements.clone()],
            lse: &queries.lse[rows],
            dout: &queries.dout[elements.clone()],
        };
        chunk.start = start;
        queries::run_phase(context, &keys, queries, &mut chunk, &mut dq[elements]);
        keys::run_phase(context, &chunk, end - start, dk, dv);
    }
    Ok(())
}
