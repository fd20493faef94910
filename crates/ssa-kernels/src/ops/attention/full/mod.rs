//! Causal softmax attention over whole documents.
//!
//! It runs on the kernel that [`window`](super::window) and [`compression`](super::compression)
//! attention share (`tiled/` beside this folder).

pub mod reference;
#[cfg(test)]
pub(super) mod tests;

use super::shape::{AttentionGrads, AttentionOutput};
use super::tiled::{TiledCall, Visibility, tiled_bwd, tiled_fwd};
use crate::{Documents, Result, Tensor};

/// Causal attention within each document.
///
/// For query head `h * G + g` at token `t`, over the keys `j <= t` of its document:
///
/// `s_j = softmax_scale q_t . k_j`, `lse_t = ln sum_j e^(s_j)`, `out_t = sum_j e^(s_j - lse_t)
/// v_j`.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` and `v` `[B, T, H, D]`; returns `out` `[B, T, HQ, D]` and `lse` `[B, T,
/// HQ]`.
///
/// # Dtypes
/// `f32`. Products, softmax sums and the output accumulate in `f32`, tile by tile of keys.
///
/// # Edge cases
/// No tokens: an empty result. The first token of a document returns its own value.
///
/// # Errors
/// [`KernelError`](crate::KernelError) if the shapes disagree, HQ is no multiple of H, D is 0, or
/// the documents do not cover the tokens.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// The full stream of the paper. `tiled/README.md` beside this folder derives the tiled form.
pub fn full_attention_fwd(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Documents,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    let visibility = Visibility::Tokens { window_size: usize::MAX };
    let call = TiledCall::new("full_attention_fwd", q, k, v, documents, visibility, softmax_scale)?;
    tiled_fwd(&call)
}

/// Adds the gradients of [`full_attention_fwd`] to `grads`.
///
/// With `p_j = e^(s_j - lse_t)` and `ds_j = p_j (dout_t . v_j - dout_t . out_t)`, summed over
/// everything that shares an input: `dv_j += p_j dout_t`, `dq_t += softmax_scale ds_j k_j`, `dk_j
/// += softmax_scale ds_j q_t`.
///
/// # Shapes
/// `dout` `[B, T, HQ, D]`; `q`, `k`, `v` as in the forward; `output` is what the forward returned;
/// `grads` has the shapes of `q`, `k` and `v`.
///
/// # Dtypes
/// `f32`, accumulated in `f32`. The probabilities are computed again from `lse`; extra memory is
/// linear in T.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`full_attention_fwd`], and if `dout`, `output` or `grads` do not have these shapes.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads: query tiles are dealt to a number of tasks
/// that depends on the documents alone, and their key gradients are added in order.
///
/// # Source
/// As the forward.
pub fn full_attention_bwd(
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    output: &AttentionOutput,
    documents: &Documents,
    softmax_scale: f32,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = "full_attention_bwd";
    let visibility = Visibility::Tokens { window_size: usize::MAX };
    let call = TiledCall::new(op, q, k, v, documents, visibility, softmax_scale)?;
    tiled_bwd(&call, dout, output, grads)
}
