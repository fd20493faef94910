//! `f64` definition of attention over selected blocks.

use super::super::reference::{
    AttentionInputs, backward as attention_backward, forward as attention_forward,
};
use super::super::selection::HostBlockIndices;

/// Returns `(out, lse)`.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(block_indices))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(block_indices))
}

/// The tokens of the selected blocks up to the query.
fn visible(block_indices: &HostBlockIndices) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts = block_indices.documents().starts();
    let block_size = block_indices.block_size();
    move |token, kv_head| {
        let first = |block: &i32| starts[token] + *block as usize * block_size;
        let tokens = |block| (first(block)..first(block) + block_size).filter(|&key| key <= token);
        block_indices.selected(token, kv_head).iter().flat_map(tokens).collect()
    }
}
