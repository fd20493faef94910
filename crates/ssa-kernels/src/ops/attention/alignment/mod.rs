//! The alignment loss between the outputs of full and sparse attention.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::contract::{Args, Axis, B, Checked, Sizes, T};
use crate::{Device, Result, Scalar, Tensor};

/// Query heads, of which there may be none.
const HEADS: Axis = Axis::Named("HQ", Sizes::Any);
/// Elements of a head, of which there may be none.
const ELEMENTS: Axis = Axis::Named("D", Sizes::Any);
/// The axes of every tensor of the loss.
const OUTPUTS: [Axis; 4] = [B, T, HEADS, ELEMENTS];

/// The distance between two elements that differ by `d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentKind {
    /// `d² / 2` where `|d| < 1`, else `|d| - 1/2`.
    #[default]
    SmoothL1,
    /// `d²`.
    Mse,
}

/// Which output receives a gradient towards the other, whose gradient is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentDirection {
    /// Both: the sum of the two one-sided terms.
    #[default]
    Both,
    /// Only the full output receives a gradient.
    FullToSparse,
    /// Only the sparse output receives a gradient.
    SparseToFull,
}

ssa_names::names!(AlignmentKind: "alignment loss" { SmoothL1 = "smooth_l1", Mse = "mse" });

ssa_names::names!(AlignmentDirection: "alignment direction" {
    Both = "both",
    FullToSparse = "full_to_sparse",
    SparseToFull = "sparse_to_full",
});

/// The form of the alignment loss. The paper's is smooth L1 in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlignmentOptions {
    /// Distance between elements.
    pub kind: AlignmentKind,
    /// Which output receives a gradient.
    pub direction: AlignmentDirection,
}

impl AlignmentOptions {
    /// Number of one-sided terms of the loss.
    pub(super) fn terms(&self) -> f64 {
        match self.direction {
            AlignmentDirection::Both => 2.0,
            AlignmentDirection::FullToSparse | AlignmentDirection::SparseToFull => 1.0,
        }
    }

    /// Factors of the derivative of the distance at `full - sparse` in the gradients of the full
    /// and the sparse output; `None` for an output without a gradient.
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
/// `f32` inputs; differences and their sum are `f64`. On a GPU inputs are `bf16`, differences and
/// sums of eight of them are `f32`, and the sum over those is `f64`.
///
/// # Edge cases
/// No valid token, or no elements at all: 0. Elements of other tokens are not read.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: shapes alone decide the partial
/// sums, which are added in order.
///
/// # Source
/// The alignment loss of the SSA paper (arXiv 2511.20102). Padding counts in the released code;
/// here `valid` excludes it.
pub fn alignment_fwd(
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    options: &AlignmentOptions,
) -> Result<Scalar> {
    let call = args("alignment_fwd", full, sparse, valid).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, full, sparse, valid, options.kind, options.terms()),
        Device::Cpu => {
            let (full, sparse) = (full.as_slice()?, sparse.as_slice()?);
            let one_sided = cpu::forward(full, sparse, valid, width(&call)?, options.kind);
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
/// `f32`, or `bf16` on a GPU.
///
/// # Edge cases
/// Nothing is added for a token that is not valid.
///
/// # Errors
/// As [`alignment_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: elements are independent.
///
/// # Source
/// As [`alignment_fwd`].
pub fn alignment_bwd(
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    options: &AlignmentOptions,
    scale: f32,
    dfull: &mut Tensor,
    dsparse: &mut Tensor,
) -> Result<()> {
    let call = args("alignment_bwd", full, sparse, valid)
        .act("dfull", dfull, OUTPUTS)
        .act("dsparse", dsparse, OUTPUTS)
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => {
            let [full_factor, sparse_factor] = options.factors(scale);
            let pulls = Pulls {
                dfull: full_factor.map(|_| dfull),
                dsparse: sparse_factor.map(|_| dsparse),
            };
            cuda::backward(gpu, full, sparse, valid, options.kind, scale, pulls)
        }
        Device::Cpu => {
            let (full, sparse) = (full.as_slice()?, sparse.as_slice()?);
            for (gradient, factor) in [dfull, dsparse].into_iter().zip(options.factors(scale)) {
                if let Some(factor) = factor {
                    let gradient = gradient.as_mut_slice()?;
                    let width = width(&call)?;
                    cpu::backward(full, sparse, valid, width, options.kind, factor, gradient);
                }
            }
            Ok(())
        }
    }
}

/// The gradients that receive something.
struct Pulls<'a> {
    dfull: Option<&'a mut Tensor>,
    dsparse: Option<&'a mut Tensor>,
}

/// The rows of the table that both directions share.
fn args<'a>(
    op: &'static str,
    full: &'a Tensor,
    sparse: &'a Tensor,
    valid: Option<&[bool]>,
) -> Args<'a> {
    valid_args(Args::new(op).act("full", full, OUTPUTS).act("sparse", sparse, OUTPUTS), valid)
}

/// Adds a list of valid tokens to a table.
pub(super) fn valid_args<'a>(args: Args<'a>, valid: Option<&[bool]>) -> Args<'a> {
    match valid {
        Some(valid) => args.entries("valid", valid.len(), "entries", [B, T]),
        None => args,
    }
}

/// The elements of a token, HQ * D (1 if there are none: chunks need a size).
fn width(call: &Checked) -> Result<usize> {
    let [heads, elements] = call.sizes([HEADS, ELEMENTS])?;
    Ok((heads * elements).max(1))
}
