//! `f64` definition of window attention.

use super::super::reference::{
    AttentionInputs, backward as attention_backward, forward as attention_forward,
};
use crate::Documents;

/// Returns `(out, lse)`.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    window_size: usize,
) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(documents, window_size))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    window_size: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(documents, window_size))
}

/// The last `window_size` tokens of the document up to the query's own.
fn visible(documents: &Documents, window_size: usize) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts = documents.starts();
    move |token, _| (starts[token]..=token).filter(|key| token - key < window_size).collect()
}
