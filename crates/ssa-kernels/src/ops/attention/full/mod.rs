//! Causal softmax attention over whole documents.
//!
//! It runs on the kernel that [`window`](super::window) and [`compression`](super::compression)
//! attention share (`tiled/` next to this folder).

pub mod reference;
#[cfg(test)]
pub(super) mod tests;

use super::shape::{AttentionCall, AttentionGrads, AttentionOutput};
use super::tiled::{Visibility, tiled_bwd, tiled_fwd};
use crate::{Result, Tensor};

/// A window over every document.
const VISIBILITY: Visibility = Visibility::Tokens { window_size: usize::MAX };

/// Causal attention within each document.
///
/// For query head `h * G + g` at token `t`, over the keys `j <= t` of its document:
///
/// `s_j = softmax_scale q_t . k_j`, `lse_t = ln sum_j e^(s_j)`, `out_t = sum_j e^(s_j - lse_t)
/// v_j`.
///
/// # Shapes
/// `call.q` `[B, T, HQ, D]`, `call.k` and `call.v` `[B, T, H, D]`, H a divisor of HQ;
/// `call.documents` over N = B * T tokens. Returns `out` `[B, T, HQ, D]` and `lse` `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`; on a GPU `q`, `k`, `v` and `out` are `bf16`, and `lse` is `f32`. Products, softmax sums
/// and the output accumulate in `f32`, tile by tile of keys; a GPU rounds the probabilities to
/// `bf16` for their product with `v`.
///
/// # Edge cases
/// No tokens: an empty result. The first token of a document returns its own value.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type or is on another device; on a GPU also if D is above 256 or `softmax_scale` is not
/// positive and finite.
/// [`KernelError::Unsupported`](crate::KernelError::Unsupported) if a GPU has too little shared
/// memory for heads of this size.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: every tile of queries is one task. On a GPU
/// bitwise reproducible: every tile of queries is one block.
///
/// # Source
/// The full stream of the SSA paper (arXiv 2511.20102), which is causal attention.
/// `tiled/README.md` next to this folder derives the tiled form.
pub fn full_attention_fwd(call: &AttentionCall<'_>) -> Result<AttentionOutput> {
    tiled_fwd("full_attention_fwd", call, VISIBILITY)
}

/// Adds the gradients of [`full_attention_fwd`] to `grads`.
///
/// With `p_j = e^(s_j - lse_t)` and `ds_j = p_j (dout_t . v_j - dout_t . out_t)`, summed over
/// everything that shares an input: `dv_j += p_j dout_t`, `dq_t += softmax_scale ds_j k_j`, `dk_j
/// += softmax_scale ds_j q_t`.
///
/// # Shapes
/// `dout` and `grads.dq` `[B, T, HQ, D]`, `grads.dk` and `grads.dv` `[B, T, H, D]`; `call` as in
/// [`full_attention_fwd`], which returned `output`.
///
/// # Dtypes
/// `f32`; on a GPU all but `output.lse` are `bf16`, and probabilities and score gradients are
/// rounded to `bf16` for their products. Accumulated in `f32`. The probabilities are recomputed
/// from `lse`, so that extra memory is linear in T.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`full_attention_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads: the documents alone decide how many tasks share
/// the query tiles, and the key gradients of the tasks are added in order. On a GPU bitwise
/// reproducible: partial sums of fixed ranges of queries are added in order, without atomics.
///
/// # Source
/// As [`full_attention_fwd`].
pub fn full_attention_bwd(
    dout: &Tensor,
    call: &AttentionCall<'_>,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    tiled_bwd("full_attention_bwd", dout, call, VISIBILITY, output, grads)
}
