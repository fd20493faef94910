//! Causal softmax attention over the last tokens of the document.

pub mod reference;
#[cfg(test)]
mod tests;

use super::shape::{AttentionGrads, AttentionOutput};
use super::tiled::{TiledCall, Visibility, tiled_bwd, tiled_fwd};
use crate::checks::check_positive;
use crate::{Documents, Result, Tensor};

/// Causal attention over the last `window_size` tokens of each query's document, its own included.
///
/// [`full_attention_fwd`](super::full::full_attention_fwd) with the keys `t - window_size < j <=
/// t`, by the same kernel; keys outside all windows of a tile cost nothing.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`; returns `out` `[B, T, HQ, D]` and `lse` `[B, T,
/// HQ]`.
///
/// # Dtypes
/// `f32`. Products, softmax sums and the output accumulate in `f32`, tile by tile of keys.
///
/// # Edge cases
/// No tokens: an empty result. A window of one token returns the values, one as long as the
/// document is full attention.
///
/// # Errors
/// [`KernelError`](crate::KernelError) as in full attention, and if `window_size` is 0.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// The sliding window branch of NSA.
pub fn window_attention_fwd(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Documents,
    window_size: usize,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let op = "window_attention_fwd";
    check_positive(op, "window_size", window_size)?;
    let visibility = Visibility::Tokens { window_size };
    tiled_fwd(&TiledCall::new(op, q, k, v, documents, visibility, softmax_scale)?)
}

/// Adds the gradients of [`window_attention_fwd`] to `grads`.
///
/// The formula is that of [`full_attention_bwd`](super::full::full_attention_bwd) over the keys of
/// the window.
///
/// # Shapes
/// `dout` `[B, T, HQ, D]`; `q`, `k`, `v` as in the forward; `output` is what the forward returned;
/// `grads` has the shapes of `q`, `k` and `v`.
///
/// # Dtypes
/// `f32`, accumulated in `f32`.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`window_attention_fwd`], and if `dout`, `output` or `grads` do not have these shapes.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// As the forward.
pub fn window_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: &AttentionOutput,
    documents: &Documents,
    window_size: usize,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = "window_attention_bwd";
    check_positive(op, "window_size", window_size)?;
    let visibility = Visibility::Tokens { window_size };
    let call = TiledCall::new(op, q, k, v, documents, visibility, softmax_scale)?;
    tiled_bwd(&call, dout, output, grads)
}
