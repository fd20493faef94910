//! The alignment loss between the outputs of full and sparse attention.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{axes, check_shape, same_device};
use crate::cuda::Gpu;
use crate::{Device, KernelError, Result, Scalar, Tensor};

/// The distance between two elements that differ by `d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentKind {
    /// `d² / 2` where `|d| < 1`, else `|d| - 1/2`.
    #[default]
    SmoothL1,
    /// `d²`.
    Mse,
}

/// Which output is pulled towards the other, whose gradient is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentDirection {
    /// Each towards the other: the sum of both one-sided terms.
    #[default]
    Both,
    /// Only the full output receives a gradient.
    FullToSparse,
    /// Only the sparse output receives a gradient.
    SparseToFull,
}

/// The form of the alignment loss. The paper's is smooth L1 in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlignmentOptions {
    /// Distance between elements.
    pub kind: AlignmentKind,
    /// Who is pulled.
    pub direction: AlignmentDirection,
}

impl AlignmentOptions {
    /// One-sided terms of the loss.
    pub(super) fn terms(&self) -> f64 {
        match self.direction {
            AlignmentDirection::Both => 2.0,
            AlignmentDirection::FullToSparse | AlignmentDirection::SparseToFull => 1.0,
        }
    }

    /// What the derivative of the distance at `full - sparse` is multiplied by in the gradients of
    /// the full and the sparse output; None for the one that is not pulled.
    pub(super) fn factors(&self, scale: f32) -> [Option<f32>; 2] {
        match self.direction {
            AlignmentDirection::Both => [Some(scale), Some(-scale)],
            AlignmentDirection::FullToSparse => [Some(scale), None],
            AlignmentDirection::SparseToFull => [None, Some(-scale)],
        }
    }
}

/// The sum over valid tokens, heads and dimensions of `distance(full - sparse)`, once per
/// direction.
///
/// [`AlignmentDirection::Both`] has two terms of equal value: `distance(full - sg(sparse))` and
/// `distance(sparse - sg(full))`. The caller divides by the elements of the whole step to obtain a
/// mean.
///
/// # Shapes
/// `full` and `sparse` `[B, T, HQ, D]`; `valid`, if given, has one entry for each of the N tokens.
///
/// # Dtypes
/// `f32` inputs; differences and their sum are `f64`.
///
/// # Edge cases
/// No valid token: 0. Elements of other tokens are not read.
///
/// # Errors
/// [`KernelError`] if the shapes differ, have not four axes, or `valid` has another length;
/// [`KernelError::Unsupported`] on a GPU, where [`gated_pair`](super::gated_pair) computes it.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads: partial sums are cut by shape and added in
/// order.
///
/// # Source
/// The paper's alignment loss. Padding counts in the released code; here `valid` excludes it.
pub fn alignment_fwd(
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    options: &AlignmentOptions,
) -> Result<Scalar> {
    let width = check_pair("alignment_fwd", full, sparse, valid)?;
    match full.device() {
        Device::Cuda(gpu) => Err(not_on_a_gpu("alignment_fwd", &gpu)),
        Device::Cpu => {
            let one_sided =
                cpu::forward(full.as_slice(), sparse.as_slice(), valid, width, options.kind);
            Ok(Scalar::new(options.terms() * one_sided))
        }
    }
}

/// Adds `scale` times the gradients of [`alignment_fwd`] to `dfull` and `dsparse`.
///
/// With `g` the derivative of the distance at `full - sparse`: `dfull += scale g` unless the
/// direction is [`AlignmentDirection::SparseToFull`], `dsparse -= scale g` unless it is
/// [`AlignmentDirection::FullToSparse`].
///
/// # Shapes
/// `full`, `sparse`, `dfull` and `dsparse` `[B, T, HQ, D]`; `valid` as in the forward.
///
/// # Dtypes
/// `f32`.
///
/// # Edge cases
/// Nothing is added where a token is not valid.
///
/// # Errors
/// As [`alignment_fwd`], and if a gradient has another shape.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads.
///
/// # Source
/// As the forward.
pub fn alignment_bwd(
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    options: &AlignmentOptions,
    scale: f32,
    dfull: &mut Tensor,
    dsparse: &mut Tensor,
) -> Result<()> {
    let op = "alignment_bwd";
    let width = check_pair(op, full, sparse, valid)?;
    check_shape(op, "dfull", dfull, full.shape())?;
    check_shape(op, "dsparse", dsparse, full.shape())?;
    same_device(op, full, &[("dfull", dfull), ("dsparse", dsparse)])?;
    match full.device() {
        Device::Cuda(gpu) => Err(not_on_a_gpu(op, &gpu)),
        Device::Cpu => {
            let [full, sparse] = [full.as_slice(), sparse.as_slice()];
            for (gradient, factor) in [dfull, dsparse].into_iter().zip(options.factors(scale)) {
                if let Some(factor) = factor {
                    let gradient = gradient.as_mut_slice();
                    cpu::backward(full, sparse, valid, width, options.kind, factor, gradient);
                }
            }
            Ok(())
        }
    }
}

/// A GPU computes the loss together with the gate, in a quarter of the passes over memory.
fn not_on_a_gpu(op: &'static str, gpu: &Gpu) -> KernelError {
    KernelError::Unsupported {
        op,
        what: "the alignment loss without a gate".to_owned(),
        device: gpu.to_string(),
        remedy: "use gated_pair",
    }
}

/// Checks the inputs and returns the elements of a token, HQ * D (1 if there are none: chunks need
/// a size).
fn check_pair(
    op: &'static str,
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
) -> Result<usize> {
    let [batch, tokens, q_heads, head_dim] = axes(op, "full", full, "[B, T, HQ, D]")?;
    check_shape(op, "sparse", sparse, full.shape())?;
    same_device(op, full, &[("sparse", sparse)])?;
    check_valid(op, valid, batch * tokens)?;
    Ok((q_heads * head_dim).max(1))
}

/// `valid`, if given, has an entry for every token.
pub(super) fn check_valid(op: &'static str, valid: Option<&[bool]>, tokens: usize) -> Result<()> {
    match valid {
        Some(valid) if valid.len() != tokens => {
            let expected = format!("one entry for each of {tokens} tokens");
            Err(KernelError::value(op, "valid", expected, format!("{} entries", valid.len())))
        }
        _ => Ok(()),
    }
}
