//! `f64` definition of the alignment loss.

use super::{AlignmentDirection, AlignmentKind, AlignmentOptions};
use crate::Result;
use crate::contract::{Args, HIDDEN, N};

/// Sum of the distances between valid tokens of `width` elements, once per direction.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    full: &[f64],
    sparse: &[f64],
    valid: &[bool],
    width: usize,
    options: &AlignmentOptions,
) -> Result<f64> {
    check("alignment::reference::forward", full, sparse, valid, width)?;
    let terms = if options.direction == AlignmentDirection::Both { 2.0 } else { 1.0 };
    let distance = |i: usize| {
        let d = full[i] - sparse[i];
        match options.kind {
            AlignmentKind::SmoothL1 if d.abs() < 1.0 => 0.5 * d * d,
            AlignmentKind::SmoothL1 => d.abs() - 0.5,
            AlignmentKind::Mse => d * d,
        }
    };
    Ok(terms * (0..full.len()).filter(|i| valid[i / width]).map(distance).sum::<f64>())
}

/// Gradients `(dfull, dsparse)` of `scale` times the sum.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    full: &[f64],
    sparse: &[f64],
    valid: &[bool],
    width: usize,
    options: &AlignmentOptions,
    scale: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    check("alignment::reference::backward", full, sparse, valid, width)?;
    let derivative = |i: usize| {
        let d = full[i] - sparse[i];
        match options.kind {
            _ if !valid[i / width] => 0.0,
            AlignmentKind::SmoothL1 if d.abs() < 1.0 => scale * d,
            AlignmentKind::SmoothL1 => scale * d.signum(),
            AlignmentKind::Mse => scale * 2.0 * d,
        }
    };
    let pulled = |factor: f64| (0..full.len()).map(|i| factor * derivative(i)).collect();
    Ok(match options.direction {
        AlignmentDirection::Both => (pulled(1.0), pulled(-1.0)),
        AlignmentDirection::FullToSparse => (pulled(1.0), vec![0.0; full.len()]),
        AlignmentDirection::SparseToFull => (vec![0.0; full.len()], pulled(-1.0)),
    })
}

fn check(
    op: &'static str,
    full: &[f64],
    sparse: &[f64],
    valid: &[bool],
    width: usize,
) -> Result<()> {
    Args::new(op)
        .size("width", HIDDEN, width)
        .entries("valid", valid.len(), "tokens", [N])
        .numbers("full", full, [N, HIDDEN])
        .numbers("sparse", sparse, [N, HIDDEN])
        .check()
        .map(drop)
}
