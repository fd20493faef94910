//! `f64` definition of the gated activation.

use crate::Result;
use crate::contract::{Args, N};

/// `silu(gate) * up`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(gate: &[f64], up: &[f64]) -> Result<Vec<f64>> {
    args("swiglu::reference::forward", gate, up).check()?;
    Ok(gate.iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect())
}

/// Gradients `(dgate, dup)` for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`].
pub fn backward(dout: &[f64], gate: &[f64], up: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    args("swiglu::reference::backward", gate, up).numbers("dout", dout, [N]).check()?;
    let element = |((dout, gate), up): ((&f64, &f64), &f64)| {
        let s = sigmoid(*gate);
        (dout * up * s * (1.0 + gate * (1.0 - s)), dout * gate * s)
    };
    Ok(dout.iter().zip(gate).zip(up).map(element).unzip())
}

fn args(op: &'static str, gate: &[f64], up: &[f64]) -> Args<'static> {
    Args::new(op).numbers("gate", gate, [N]).numbers("up", up, [N])
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
