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

pub use predictions::compare_predictions;

use crate::contract::{Args, Checked, HIDDEN, LEADING, V};
use crate::{Device, DeviceKind, KernelError, Result, Scalar, Tensor};

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

/// What [`compare_predictions`] returns for a prediction: sums over targets.
#[derive(Debug)]
pub struct PredictionScore {
    /// Negative log-likelihood, in nats.
    pub loss_sum: Scalar,
    /// `KL(p_0 || p)`, in nats: the divergence of this prediction `p` from the first.
    pub divergence_sum: Scalar,
}

/// `loss_sum = sum over targets n of lse[n] - z[n, labels[n]]` and `lse_square_sum = sum over
/// targets n of lse[n]^2` with `z = x Wᵀ` and `lse[n] = log(sum_v exp(z[n, v]))`.
///
/// # Shapes
/// `x` `[.., hidden]` with N rows, `weight` `[V, hidden]`, `labels` N entries: what each token
/// should predict, or [`IGNORE_INDEX`].
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU. Logits are `f32`, accumulated in `f32` by the matrix product; sums of
/// exponentials accumulate in `f32` over 4096 entries (on a GPU, over those of a thread) and in
/// `f64` over those; losses are `f64`.
///
/// # Edge cases
/// No targets: zero. A logit that is NaN or positive infinity makes the loss of its token NaN,
/// whatever its label.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type or is on another
/// device, or if a label is neither below V nor [`IGNORE_INDEX`]; the message names its position.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: shapes alone decide the chunks of tokens, which
/// are added in order, and the matrix products are those of
/// [`linear_fwd`](crate::ops::linear::linear_fwd). On a GPU as `linear_fwd`.
///
/// # Source
/// The first term of the training loss; the released code calls a fused linear cross-entropy of the
/// same meaning.
pub fn linear_cross_entropy_fwd(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
) -> Result<CrossEntropy> {
    const OP: &str = "linear_cross_entropy_fwd";
    let call = args(OP, x, weight, labels).check()?;
    check_labels(OP, call.sizes([V])?, labels)?;
    match call.device() {
        Device::Cuda(gpu) => cuda::losses(gpu, x, weight, labels, None)?.summary(targets(labels)),
        Device::Cpu => {
            let losses = cpu::losses(x.as_slice()?, &head(&call, weight)?, labels, None)?;
            Ok(summary(&losses, labels))
        }
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
/// # Edge cases
/// As [`linear_cross_entropy_fwd`].
///
/// # Errors
/// As [`linear_cross_entropy_fwd`].
///
/// # Determinism
/// As [`linear_cross_entropy_fwd`].
///
/// # Source
/// As [`linear_cross_entropy_fwd`].
pub fn linear_cross_entropy_losses(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
) -> Result<Vec<f32>> {
    const OP: &str = "linear_cross_entropy_losses";
    let call = args(OP, x, weight, labels).check()?;
    check_labels(OP, call.sizes([V])?, labels)?;
    match call.device() {
        Device::Cuda(gpu) => cuda::losses(gpu, x, weight, labels, None)?.to_vec(),
        Device::Cpu => {
            let losses = cpu::losses(x.as_slice()?, &head(&call, weight)?, labels, None)?;
            Ok(losses.into_iter().map(|token| token.loss as f32).collect())
        }
    }
}

/// The loss, and the gradients of `grad_scale * (loss_sum + z_loss * lse_square_sum)` in the same
/// pass: `dz = grad_scale ((1 + 2 z_loss lse) softmax(z) - onehot(label))`, zero rows where the
/// label is [`IGNORE_INDEX`]; `dx += dz W`, `dweight += dzᵀ x`.
///
/// `z_loss` holds the normalizer near 1 (`lse` near 0), which the cross-entropy alone lets drift.
///
/// `grad_scale` is the gradient of the loss sum, such as the reciprocal of the number of targets.
/// The caller has to know it in advance, and in training it does: the targets of a step are counted
/// before its forward pass.
///
/// # Shapes
/// As [`linear_cross_entropy_fwd`]; `dx` `[.., hidden]`, `dweight` `[V, hidden]`.
///
/// # Dtypes
/// As [`linear_cross_entropy_fwd`]; gradients are `f32`, added to the buffers once per chunk of
/// tokens. On a GPU the logits, their gradient and `dx` are `bf16`, and `dweight` is `f32`.
///
/// # Edge cases
/// No targets: zero, and the gradients stay as they are. `z_loss` 0: bitwise the gradients of the
/// cross-entropy alone.
///
/// # Errors
/// As [`linear_cross_entropy_fwd`].
///
/// # Determinism
/// As [`linear_cross_entropy_fwd`].
///
/// # Source
/// As [`linear_cross_entropy_fwd`]; z-loss: PaLM (arXiv 2204.02311), section 5.
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
    let call = args(OP, x, weight, labels)
        .act("dx", dx, [LEADING, HIDDEN])
        .f32("dweight", dweight, [V, HIDDEN])
        .check()?;
    check_labels(OP, call.sizes([V])?, labels)?;
    match call.device() {
        Device::Cuda(gpu) => {
            let gradients = cuda::Gradients { scale: grad_scale, z_loss, dx, dweight };
            cuda::losses(gpu, x, weight, labels, Some(gradients))?.summary(targets(labels))
        }
        Device::Cpu => {
            let (dx, dweight) = (dx.as_mut_slice()?, dweight.as_mut_slice()?);
            let gradients = cpu::Gradients { scale: grad_scale, z_loss, dx, dweight };
            let head = head(&call, weight)?;
            let losses = cpu::losses(x.as_slice()?, &head, labels, Some(gradients))?;
            Ok(summary(&losses, labels))
        }
    }
}

/// Bytes that [`linear_cross_entropy_fwd_bwd`] takes on a device in addition to its arguments: the
/// logits of a chunk, and what it keeps of every token. `usize::MAX` if they are more than that.
pub fn workspace_bytes(device: DeviceKind, tokens: usize, vocab: usize) -> usize {
    let vocab = vocab.max(1);
    match device {
        DeviceKind::Cuda => cuda::workspace_bytes(tokens, vocab),
        DeviceKind::Cpu => {
            let logits = cpu::chunk_tokens(vocab).min(tokens).saturating_mul(vocab);
            let losses = tokens.saturating_mul(size_of::<cpu::TokenLoss>());
            logits.saturating_mul(size_of::<f32>()).saturating_add(losses)
        }
    }
}

/// The rows of the table that all functions of this module share.
fn args<'a>(op: &'static str, x: &'a Tensor, weight: &'a Tensor, labels: &[i32]) -> Args<'a> {
    Args::new(op).act("x", x, [LEADING, HIDDEN]).act("weight", weight, [V, HIDDEN]).entries(
        "labels",
        labels.len(),
        "labels",
        [LEADING],
    )
}

/// Every label is below V or [`IGNORE_INDEX`].
fn check_labels(op: &'static str, [vocab]: [usize; 1], labels: &[i32]) -> Result<()> {
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

/// The weight of the output layer on the CPU.
fn head<'a>(call: &Checked, weight: &'a Tensor) -> Result<cpu::Head<'a>> {
    let [vocab, hidden] = call.sizes([V, HIDDEN])?;
    Ok(cpu::Head { weight: weight.as_slice()?, vocab, hidden })
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
