//! `f64` definition of attention over selected blocks.

use super::super::reference::{self, AttentionInputs};
use super::super::selection::HostBlockIndices;
use crate::Result;

/// Returns `(out, lse)`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> Result<(Vec<f64>, Vec<f64>)> {
    check("sparse::reference::forward", inputs, block_indices)?;
    reference::forward(inputs, visible(block_indices))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    check("sparse::reference::backward", inputs, block_indices)?;
    reference::backward(dout, inputs, visible(block_indices))
}

fn check(
    op: &'static str,
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> Result<()> {
    inputs.check(op, block_indices.documents())?;
    block_indices.check_fits(op, block_indices.documents(), inputs.kv_heads)
}

/// The tokens of the selected blocks up to the query.
fn visible(block_indices: &HostBlockIndices) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts: Vec<usize> = block_indices.documents().starts().collect();
    let block_size = block_indices.block_size();
    move |token, kv_head| {
        let first = |block: &i32| starts[token] + *block as usize * block_size;
        let tokens = |block| (first(block)..first(block) + block_size).filter(|&key| key <= token);
        block_indices.selected(token, kv_head).iter().flat_map(tokens).collect()
    }
}
