//! `f64` definition of full attention.

use super::super::reference::{
    AttentionInputs, backward as attention_backward, forward as attention_forward,
};
use crate::Documents;

/// Returns `(out, lse)`.
pub fn forward(inputs: &AttentionInputs<'_>, documents: &Documents) -> (Vec<f64>, Vec<f64>) {
    attention_forward(inputs, visible(documents))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    attention_backward(dout, inputs, visible(documents))
}

/// The tokens of the document up to the query.
fn visible(documents: &Documents) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts = documents.starts();
    move |token, _| (starts[token]..=token).collect()
}
