//! Attention to the means of complete blocks: the coarse branch of NSA.

pub mod reference;
#[cfg(test)]
mod tests;

use super::shape::{AttentionGrads, AttentionOutput};
use super::tiled::{TiledCall, Visibility, tiled_bwd, tiled_fwd};
use crate::{Documents, Result, Tensor};

/// Attention of every token to the blocks of its document that are complete at that token.
///
/// At position t of a document, over the blocks `c < floor((t + 1) / block_size)`:
///
/// `s_c = softmax_scale q_t . k_pooled_c`, `lse_t = ln sum_c e^(s_c)`, `out_t = sum_c e^(s_c -
/// lse_t) v_pooled_c`.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`; `k_pooled` and `v_pooled` `[C, H, D]` as
/// [`mean_pool_fwd`](super::pooling::mean_pool_fwd) returns them; returns `out` `[B, T, HQ, D]` and
/// `lse` `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`. Products, softmax sums and the output accumulate in `f32`, tile by tile of blocks.
///
/// # Edge cases
/// A token that has no complete block yet has zero output and an `lse` of negative infinity. A
/// partial last block is never seen.
///
/// # Errors
/// [`KernelError`](crate::KernelError) if the shapes disagree, HQ is no multiple of H, D or
/// `block_size` is 0, C is not the number of blocks, or the documents do not cover the tokens.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// The compression branch of NSA; `tiled/README.md` beside this folder derives the tiled form.
pub fn compression_attention_fwd(
    q: &Tensor,
    k_pooled: &Tensor,
    v_pooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let op = "compression_attention_fwd";
    let visibility = Visibility::Blocks { block_size };
    tiled_fwd(&TiledCall::new(op, q, k_pooled, v_pooled, documents, visibility, softmax_scale)?)
}

/// Adds the gradients of [`compression_attention_fwd`] to `grads`, whose `dk` and `dv` are those of
/// the pooled keys and values.
///
/// The formula is that of [`full_attention_bwd`](super::full::full_attention_bwd) over blocks.
///
/// # Shapes
/// `dout` `[B, T, HQ, D]`; `q`, `k_pooled`, `v_pooled` as in the forward; `output` is what the
/// forward returned; `grads` has the shapes of `q`, `k_pooled` and `v_pooled`.
///
/// # Dtypes
/// `f32`, accumulated in `f32`.
///
/// # Edge cases
/// Tokens without a complete block add nothing.
///
/// # Errors
/// As [`compression_attention_fwd`], and if `dout`, `output` or `grads` do not have these shapes.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// As the forward.
pub fn compression_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k_pooled: &Tensor,
    v_pooled: &Tensor,
    output: &AttentionOutput,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = "compression_attention_bwd";
    let visibility = Visibility::Blocks { block_size };
    let call = TiledCall::new(op, q, k_pooled, v_pooled, documents, visibility, softmax_scale)?;
    tiled_bwd(&call, dout, output, grads)
}
