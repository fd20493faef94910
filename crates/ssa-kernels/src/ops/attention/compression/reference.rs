//! `f64` definition of compression attention.

use super::super::reference::{
    AttentionInputs, backward as attention_backward, forward as attention_forward,
};
use crate::Documents;

/// Returns `(out, lse)`; k and v of the inputs are pooled, `[C, H, D]`.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(documents, block_size))
}

/// Gradients `(dq, dk_pooled, dv_pooled)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(documents, block_size))
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
