//! `f64` definition of the linear map.

use crate::Result;
use crate::contract::{Args, I, N, O};

/// `y[n, o] = sum_i x[n, i] w[o, i]`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(x: &[f64], weight: &[f64], inputs: usize) -> Result<Vec<f64>> {
    args("linear::reference::forward", x, weight, inputs).check()?;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    Ok(x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w))).collect())
}

/// Gradients `(dx, dweight)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    x: &[f64],
    weight: &[f64],
    inputs: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    args("linear::reference::backward", x, weight, inputs).numbers("dout", dout, [N, O]).check()?;
    let outputs = weight.len() / inputs;
    let mut dx = vec![0.0; x.len()];
    let mut dweight = vec![0.0; weight.len()];
    for (n, dout) in dout.chunks(outputs).enumerate() {
        for (o, dout) in dout.iter().enumerate() {
            for i in 0..inputs {
                dx[n * inputs + i] += dout * weight[o * inputs + i];
                dweight[o * inputs + i] += dout * x[n * inputs + i];
            }
        }
    }
    Ok((dx, dweight))
}

fn args(op: &'static str, x: &[f64], weight: &[f64], inputs: usize) -> Args<'static> {
    Args::new(op).size("inputs", I, inputs).numbers("x", x, [N, I]).numbers(
        "weight",
        weight,
        [O, I],
    )
}
