//! The language-model head and its loss in one op: linear map, softmax and cross-entropy.
//!
//! Logits exist for one chunk of tokens at a time, never as `[N, V]`; the folder's `README.md` says
//! how the gradient comes out of the same pass.

mod cpu;
pub(crate) mod cuda;
mod predictions;
pub mod reference;
#[cfg(test)]
mod tests;

pub use predictions::{PredictionScore, compare_predictions};

use crate::checks::{axes, check_last, check_positive, check_shape, dtypes, same_device};
use crate::{DType, Device, KernelError, Result, Scalar, Tensor};

/// The label of a token that is not a target.
pub const IGNORE_INDEX: i32 = -100;

/// What [`linear_cross_entropy_fwd`] returns.
#[derive(Debug)]
pub struct CrossEntropy {
    /// Sum of the negative log-likelihoods of all targets, in nats.
    pub loss_sum: Scalar,
    /// Sum of `logsumexp(z)^2` over all targets: what z-loss keeps small.
    pub lse_square_sum: Scalar,
    /// Number of labels that are not [`IGNORE_INDEX`].
    pub targets: usize,
}

/// `loss_sum = sum over targets n of lse[n] - z[n, labels[n]]` and `lse_square_sum = sum over
/// targets n of lse[n]^2` with `z = x Wᵀ` and `lse[n] = log(sum_v exp(z[n, v]))`.
///
/// # Shapes
/// `x` `[B, T, hidden]` (any leading axes, N rows), `weight` `[V, hidden]`, `labels` N entries:
/// what each token should predict, or [`IGNORE_INDEX`].
///
/// # Dtypes
/// `f32` logits, accumulated in `f32` by the matrix product; sums of exponentials in `f32` over
/// 4096 entries (on a GPU, over those of a thread) and in `f64` over those; losses in `f64`. On a
/// GPU `x` and `weight` are `bf16`.
///
/// # Edge cases
/// No targets: zero. A logit that is NaN or positive infinity makes the loss of its token NaN,
/// whatever its label.
///
/// # Errors
/// [`KernelError::Shape`] if `weight` is not a matrix or its rows are not as long as those of `x`.
/// [`KernelError::Value`] if it is empty, if the number of labels is not N, or if a label is
/// neither below V nor [`IGNORE_INDEX`]; the message names its position.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: the chunks of tokens are cut by shape alone and
/// added in order, and no product splits its sums. On a GPU as its matrix products are: see
/// [`linear_fwd`](crate::ops::linear::linear_fwd).
///
/// # Source
/// The first term of the training loss; the released code calls a fused linear cross-entropy of the
/// same meaning.
pub fn linear_cross_entropy_fwd(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
) -> Result<CrossEntropy> {
    check("linear_cross_entropy_fwd", x, weight, labels)?;
    match x.device() {
        Device::Cuda(gpu) => cuda::losses(&gpu, x, weight, labels, None)?.summary(targets(labels)),
        Device::Cpu => Ok(summary(&cpu::losses(x, weight, labels, None), labels)),
    }
}

/// The loss of every token in nats, zero where the label is [`IGNORE_INDEX`].
///
/// # Shapes
/// As [`linear_cross_entropy_fwd`]; returns N entries.
///
/// # Dtypes
/// As [`linear_cross_entropy_fwd`], rounded to `f32` at the end.
///
/// # Errors
/// As [`linear_cross_entropy_fwd`].
///
/// # Determinism
/// As [`linear_cross_entropy_fwd`].
pub fn linear_cross_entropy_losses(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
) -> Result<Vec<f32>> {
    check("linear_cross_entropy_losses", x, weight, labels)?;
    match x.device() {
        Device::Cuda(gpu) => cuda::losses(&gpu, x, weight, labels, None)?.to_vec(),
        Device::Cpu => {
            let losses = cpu::losses(x, weight, labels, None);
            Ok(losses.into_iter().map(|token| token.loss as f32).collect())
        }
    }
}

/// The loss, and the gradients of `grad_scale * (loss_sum + z_loss * lse_square_sum)` in the same
/// pass: `dz = grad_scale ((1 + 2 z_loss lse) softmax(z) - onehot(label))`, zero rows where the
/// label is [`IGNORE_INDEX`]; `dx += dz W`, `dweight += dzᵀ x`.
///
/// `z_loss` holds the normaliser near 1 (`lse` near 0), which the cross-entropy alone leaves free
/// to drift.
///
/// `grad_scale` is what a mean over targets, or the weight of the loss, would pass back: it must be
/// known in advance, and in training it is (the targets of a step are counted before its forward).
///
/// # Shapes
/// As [`linear_cross_entropy_fwd`]; `dx` as `x`, `dweight` as `weight`.
///
/// # Dtypes
/// As [`linear_cross_entropy_fwd`]; gradients in `f32`, added to the buffers once per chunk of
/// tokens. On a GPU the logits and their gradient are `bf16`, as is `dx`.
///
/// # Edge cases
/// No targets: zero, and the gradients stay as they are. `z_loss` 0: bitwise the gradients of the
/// cross-entropy alone.
///
/// # Errors
/// As [`linear_cross_entropy_fwd`], and [`KernelError::Shape`] if a gradient does not fit its
/// tensor.
///
/// # Determinism
/// As [`linear_cross_entropy_fwd`].
///
/// # Source
/// z-loss: PaLM (arXiv 2204.02311), section 5.
pub fn linear_cross_entropy_fwd_bwd(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
    grad_scale: f32,
    z_loss: f32,
    dx: &mut Tensor,
    dweight: &mut Tensor,
) -> Result<CrossEntropy> {
    const OP: &str = "linear_cross_entropy_fwd_bwd";
    check(OP, x, weight, labels)?;
    check_shape(OP, "dx", dx, x.shape())?;
    check_shape(OP, "dweight", dweight, weight.shape())?;
    same_device(OP, x, &[("dx", dx), ("dweight", dweight)])?;
    match x.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &[("dx", dx, DType::Bf16), ("dweight", dweight, DType::F32)])?;
            let gradients = cuda::Gradients { scale: grad_scale, z_loss, dx, dweight };
            cuda::losses(&gpu, x, weight, labels, Some(gradients))?.summary(targets(labels))
        }
        Device::Cpu => {
            let (dx, dweight) = (dx.as_mut_slice(), dweight.as_mut_slice());
            let gradients = cpu::Gradients { scale: grad_scale, z_loss, dx, dweight };
            Ok(summary(&cpu::losses(x, weight, labels, Some(gradients)), labels))
        }
    }
}

/// Bytes that [`linear_cross_entropy_fwd_bwd`] takes on a device besides the tensors it is given:
/// the logits of a chunk, and what it keeps of every token.
pub fn workspace_bytes(device: &Device, tokens: usize, vocab: usize) -> usize {
    let vocab = vocab.max(1);
    match device {
        Device::Cuda(_) => cuda::workspace_bytes(tokens, vocab),
        Device::Cpu => {
            let logits = cpu::chunk_tokens(vocab).min(tokens) * vocab;
            logits * size_of::<f32>() + tokens * size_of::<cpu::TokenLoss>()
        }
    }
}

fn check(op: &'static str, x: &Tensor, weight: &Tensor, labels: &[i32]) -> Result<()> {
    let [vocab, hidden] = axes(op, "weight", weight, "[V, hidden]")?;
    check_positive(op, "V", vocab)?;
    check_positive(op, "hidden", hidden)?;
    check_last(op, "x", x, hidden)?;
    same_device(op, x, &[("weight", weight)])?;
    dtypes(op, &[("x", x, x.device().dtype()), ("weight", weight, x.device().dtype())])?;
    if labels.len() != x.rows() {
        let expected = format!("{} labels, one per row of `x`", x.rows());
        return Err(KernelError::value(op, "labels", expected, format!("{} labels", labels.len())));
    }
    let legal = |label: i32| {
        label == IGNORE_INDEX || usize::try_from(label).is_ok_and(|label| label < vocab)
    };
    match labels.iter().position(|&label| !legal(label)) {
        None => Ok(()),
        Some(position) => {
            let expected = format!("labels in 0..{vocab} or {IGNORE_INDEX} for no target");
            let actual = format!("{} at position {position}", labels[position]);
            Err(KernelError::value(op, "labels", expected, actual))
        }
    }
}

fn summary(losses: &[cpu::TokenLoss], labels: &[i32]) -> CrossEntropy {
    CrossEntropy {
        loss_sum: Scalar::new(losses.iter().map(|token| token.loss).sum()),
        lse_square_sum: Scalar::new(losses.iter().map(|token| token.lse_square).sum()),
        targets: targets(labels),
    }
}

fn targets(labels: &[i32]) -> usize {
    labels.iter().filter(|&&label| label != IGNORE_INDEX).count()
}
