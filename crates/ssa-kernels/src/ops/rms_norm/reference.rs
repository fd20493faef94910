//! `f64` definition of RMSNorm.

use crate::Result;
use crate::contract::{Args, HIDDEN, N};

/// Returns `(out, rstd)`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(x: &[f64], weight: &[f64], eps: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    args("rms_norm::reference::forward", x, weight).check()?;
    let hidden = weight.len();
    let rstd: Vec<f64> = x
        .chunks(hidden)
        .map(|x| (x.iter().map(|x| x * x).sum::<f64>() / hidden as f64 + eps).sqrt().recip())
        .collect();
    let out =
        x.iter().enumerate().map(|(i, x)| x * rstd[i / hidden] * weight[i % hidden]).collect();
    Ok((out, rstd))
}

/// Gradients `(dx, dweight)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(dout: &[f64], x: &[f64], weight: &[f64], eps: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    args("rms_norm::reference::backward", x, weight).numbers("dout", dout, [N, HIDDEN]).check()?;
    let hidden = weight.len();
    let (_, rstd) = forward(x, weight, eps)?;
    let mut dx = vec![0.0; x.len()];
    let mut dweight = vec![0.0; hidden];
    for (n, rstd) in rstd.iter().enumerate() {
        let row = n * hidden..(n + 1) * hidden;
        let (dout, x, dx) = (&dout[row.clone()], &x[row.clone()], &mut dx[row]);
        let mean =
            (0..hidden).map(|i| weight[i] * dout[i] * x[i] * rstd).sum::<f64>() / hidden as f64;
        for i in 0..hidden {
            dx[i] = rstd * (weight[i] * dout[i] - x[i] * rstd * mean);
            dweight[i] += dout[i] * x[i] * rstd;
        }
    }
    Ok((dx, dweight))
}

fn args(op: &'static str, x: &[f64], weight: &[f64]) -> Args<'static> {
    Args::new(op).numbers("weight", weight, [HIDDEN]).numbers("x", x, [N, HIDDEN])
}
