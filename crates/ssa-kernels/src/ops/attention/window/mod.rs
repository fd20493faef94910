//! Causal softmax attention over the last tokens of the document.

pub mod reference;
#[cfg(test)]
mod tests;

use super::shape::{AttentionCall, AttentionGrads, AttentionOutput};
use super::tiled::{Visibility, tiled_bwd, tiled_fwd};
use crate::{Result, Tensor};

/// Causal attention over the last `window_size` tokens of each query's document, including the
/// token of the query.
///
/// [`full_attention_fwd`](super::full::full_attention_fwd) with the keys `t - window_size < j <=
/// t`, by the same kernel; keys outside all windows of a tile cost nothing.
///
/// # Shapes
/// As [`full_attention_fwd`](super::full::full_attention_fwd).
///
/// # Dtypes
/// As [`full_attention_fwd`](super::full::full_attention_fwd).
///
/// # Edge cases
/// No tokens: an empty result. A window of one token returns the values; a window as long as the
/// document is full attention.
///
/// # Errors
/// As [`full_attention_fwd`](super::full::full_attention_fwd), and if `window_size` is 0.
///
/// # Determinism
/// As [`full_attention_fwd`](super::full::full_attention_fwd).
///
/// # Source
/// The sliding window branch of NSA (arXiv 2502.11089).
pub fn window_attention_fwd(
    call: &AttentionCall<'_>,
    window_size: usize,
) -> Result<AttentionOutput> {
    tiled_fwd("window_attention_fwd", call, Visibility::Tokens { window_size })
}

/// Adds the gradients of [`window_attention_fwd`] to `grads`.
///
/// The formula is that of [`full_attention_bwd`](super::full::full_attention_bwd) over the keys of
/// the window.
///
/// # Shapes
/// As [`full_attention_bwd`](super::full::full_attention_bwd).
///
/// # Dtypes
/// As [`full_attention_bwd`](super::full::full_attention_bwd).
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`window_attention_fwd`].
///
/// # Determinism
/// As [`full_attention_bwd`](super::full::full_attention_bwd).
///
/// # Source
/// As [`window_attention_fwd`].
pub fn window_attention_bwd(
    dout: &Tensor,
    call: &AttentionCall<'_>,
    window_size: usize,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let visibility = Visibility::Tokens { window_size };
    tiled_bwd("window_attention_bwd", dout, call, visibility, output, grads)
}
