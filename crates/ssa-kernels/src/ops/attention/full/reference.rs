//! `f64` definition of full attention.

use super::super::reference::{self, AttentionInputs};
use crate::{Documents, Result};

/// Returns `(out, lse)`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
) -> Result<(Vec<f64>, Vec<f64>)> {
    inputs.check("full::reference::forward", documents)?;
    reference::forward(inputs, visible(documents))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    inputs.check("full::reference::backward", documents)?;
    reference::backward(dout, inputs, visible(documents))
}

/// The tokens of the document up to the query.
fn visible(documents: &Documents) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts: Vec<usize> = documents.starts().collect();
    move |token, _| (starts[token]..=token).collect()
}
