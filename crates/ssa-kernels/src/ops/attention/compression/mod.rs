//! Attention to the means of complete blocks: the coarse branch of NSA.

pub mod reference;
#[cfg(test)]
mod tests;

use super::shape::{AttentionCall, AttentionGrads, AttentionOutput};
use super::tiled::{Visibility, tiled_bwd, tiled_fwd};
use crate::{Result, Tensor};

/// Attention of every token to the blocks of its document that are complete at that token.
///
/// At position t of a document, over the blocks `c < floor((t + 1) / block_size)`:
///
/// `s_c = softmax_scale q_t . k_c`, `lse_t = ln sum_c e^(s_c)`, `out_t = sum_c e^(s_c - lse_t)
/// v_c`.
///
/// # Shapes
/// As [`full_attention_fwd`](super::full::full_attention_fwd), but `call.k` and `call.v` are `[C,
/// H, D]` as [`mean_pool_fwd`](super::pooling::mean_pool_fwd) returns them.
///
/// # Dtypes
/// As [`full_attention_fwd`](super::full::full_attention_fwd).
///
/// # Edge cases
/// A token before the end of the first block of its document has zero output and an `lse` of
/// negative infinity. No token sees a partial last block.
///
/// # Errors
/// As [`full_attention_fwd`](super::full::full_attention_fwd), and if `block_size` is 0.
///
/// # Determinism
/// As [`full_attention_fwd`](super::full::full_attention_fwd).
///
/// # Source
/// The compression branch of NSA (arXiv 2502.11089); `tiled/README.md` next to this folder derives
/// the tiled form.
pub fn compression_attention_fwd(
    call: &AttentionCall<'_>,
    block_size: usize,
) -> Result<AttentionOutput> {
    tiled_fwd("compression_attention_fwd", call, Visibility::Blocks { block_size })
}

/// Adds the gradients of [`compression_attention_fwd`] to `grads`, whose `dk` and `dv` are those of
/// the pooled keys and values.
///
/// The formula is that of [`full_attention_bwd`](super::full::full_attention_bwd) over blocks.
///
/// # Shapes
/// As [`full_attention_bwd`](super::full::full_attention_bwd), with `call`, `grads.dk` and
/// `grads.dv` as in the forward.
///
/// # Dtypes
/// As [`full_attention_bwd`](super::full::full_attention_bwd).
///
/// # Edge cases
/// Tokens without a complete block add nothing.
///
/// # Errors
/// As [`compression_attention_fwd`].
///
/// # Determinism
/// As [`full_attention_bwd`](super::full::full_attention_bwd).
///
/// # Source
/// As [`compression_attention_fwd`].
pub fn compression_attention_bwd(
    dout: &Tensor,
    call: &AttentionCall<'_>,
    block_size: usize,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let visibility = Visibility::Blocks { block_size };
    tiled_bwd("compression_attention_bwd", dout, call, visibility, output, grads)
}
