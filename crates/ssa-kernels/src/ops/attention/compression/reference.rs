//! `f64` definition of attention over block means; k and v of the inputs are the means `[C, H, D]`.

use super::super::reference::{Inputs, backward as attention_backward, forward as attention_forward};
use crate::Documents;

/// Returns `(out, lse)`.
pub fn forward(inputs: &Inputs<'_>, documents: &Documents, block_size: usize) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(documents, block_size))
}

/// Gradients `(dq, dk_pooled, dv_pooled)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &Inputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(documents, block_size))
}

/// The blocks of the token's document that end before it or with it.
fn visible(documents: &Documents, block_size: usize) -> impl Fn(usize, usize) -> Vec<usize> {
    let mut blocks = Vec::new();
    let mut first = 0;
    for range in documents.ranges() {
        blocks.extend((1..=range.len()).map(|seen| first..first + seen / block_size));
        first += range.len().div_ceil(block_size);
    }
    move |token, _| blocks[token].clone().collect()
}
