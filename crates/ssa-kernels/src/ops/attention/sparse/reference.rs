//! `f64` definition of attention over selected blocks.

use super::super::reference::{
    Inputs, backward as attention_backward, forward as attention_forward,
};
use super::super::selection::BlockIndices;

/// Returns `(out, lse)`.
pub fn forward(inputs: &Inputs<'_>, block_indices: &BlockIndices) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(block_indices))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &Inputs<'_>,
    block_indices: &BlockIndices,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(block_indices))
}

/// The tokens of the selected blocks that are not behind the query.
fn visible(block_indices: &BlockIndices) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts: Vec<usize> = block_indices
        .documents()
        .ranges()
        .flat_map(|range| vec![range.start; range.len()])
        .collect();
    let block_size = block_indices.block_size();
    move |token, kv_head| {
        let first = |block: &i32| starts[token] + *block as usize * block_size;
        let tokens = |block| (first(block)..first(block) + block_size).filter(|&key| key <= token);
        block_indices.selected(token, kv_head).iter().flat_map(tokens).collect()
    }
}
