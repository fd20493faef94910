//! `f64` definition of compression attention.

use super::super::reference::{self, AttentionInputs};
use crate::contract::Args;
use crate::{Documents, Result};

/// Returns `(out, lse)`; k and v of the inputs are pooled, `[C, H, D]`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    check("compression::reference::forward", inputs, documents, block_size)?;
    reference::forward(inputs, visible(documents, block_size))
}

/// Gradients `(dq, dk_pooled, dv_pooled)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    check("compression::reference::backward", inputs, documents, block_size)?;
    reference::backward(dout, inputs, visible(documents, block_size))
}

fn check(
    op: &'static str,
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> Result<()> {
    inputs.check(op, documents)?;
    Args::new(op).positive("block_size", block_size).check().map(drop)
}

/// The blocks of the document that are complete at the token.
fn visible(documents: &Documents, block_size: usize) -> impl Fn(usize, usize) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut first = 0;
    for range in documents.ranges() {
        blocks.extend((0..range.len()).map(|position| first..first + (position + 1) / block_size));
        first += range.len().div_ceil(block_size);
    }
    move |token, _| blocks[token].clone().collect()
}
