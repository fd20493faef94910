//! `f64` definition of window attention.

use super::super::reference::{self, AttentionInputs};
use crate::{Documents, Result};

/// Returns `(out, lse)`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    window_size: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    inputs.check("window::reference::forward", documents)?;
    reference::forward(inputs, visible(documents, window_size))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    documents: &Documents,
    window_size: usize,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    inputs.check("window::reference::backward", documents)?;
    reference::backward(dout, inputs, visible(documents, window_size))
}

/// The last `window_size` tokens of the document up to the query's own.
fn visible(documents: &Documents, window_size: usize) -> impl Fn(usize, usize) -> Vec<usize> {
    let starts: Vec<usize> = documents.starts().collect();
    move |token, _| (starts[token]..=token).filter(|key| token - key < window_size).collect()
}
