//! `f64` definition of the gates.

use super::GateBranch;
use crate::Result;
use crate::contract::{Args, Axis, D, HIDDEN, HQ, N};

/// `sigmoid(x Wᵀ)` with W the rows `3h + r` of `g_proj`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(x: &[f64], g_proj: &[f64], branch: GateBranch, hidden: usize) -> Result<Vec<f64>> {
    args("gate::reference::forward", x, g_proj, hidden).check()?;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let rows = || g_proj.chunks(hidden).skip(branch.first_row()).step_by(3);
    Ok(x.chunks(hidden)
        .flat_map(|x| rows().map(move |row| 1.0 / (1.0 + (-dot(x, row)).exp())))
        .collect())
}

/// Gradients `(dx, dg_proj)` for an upstream gradient `dgate`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dgate: &[f64],
    x: &[f64],
    g_proj: &[f64],
    branch: GateBranch,
    hidden: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    args("gate::reference::backward", x, g_proj, hidden)
        .numbers("dgate", dgate, [N, HQ])
        .check()?;
    let heads = g_proj.len() / hidden / 3;
    let mut dx = vec![0.0; x.len()];
    let mut dg_proj = vec![0.0; g_proj.len()];
    for (index, gate) in forward(x, g_proj, branch, hidden)?.iter().enumerate() {
        let (token, row) = (index / heads, 3 * (index % heads) + branch.first_row());
        let ds = dgate[index] * gate * (1.0 - gate);
        for i in 0..hidden {
            dx[token * hidden + i] += ds * g_proj[row * hidden + i];
            dg_proj[row * hidden + i] += ds * x[token * hidden + i];
        }
    }
    Ok((dx, dg_proj))
}

fn args(op: &'static str, x: &[f64], g_proj: &[f64], hidden: usize) -> Args<'static> {
    Args::new(op)
        .size("hidden", HIDDEN, hidden)
        .numbers("g_proj", g_proj, [Axis::Times(3, "HQ"), HIDDEN])
        .numbers("x", x, [N, HIDDEN])
}

/// `out * gate` per head.
///
/// # Errors
/// As [`forward`].
pub fn apply_forward(out: &[f64], gate: &[f64], head_dim: usize) -> Result<Vec<f64>> {
    Args::new("gate::reference::apply")
        .size("head_dim", D, head_dim)
        .numbers("gate", gate, [N])
        .numbers("out", out, [N, D])
        .check()?;
    Ok(out.iter().enumerate().map(|(i, out)| out * gate[i / head_dim]).collect())
}

/// Gradients `(dout, dgate)` for an upstream gradient `dgated`.
///
/// # Errors
/// As [`forward`].
pub fn apply_backward(
    dgated: &[f64],
    out: &[f64],
    gate: &[f64],
    head_dim: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    Args::new("gate::reference::apply_backward")
        .numbers("out", out, [N])
        .numbers("dgated", dgated, [N])
        .check()?;
    let dout = apply_forward(dgated, gate, head_dim)?;
    let mut dgate = vec![0.0; gate.len()];
    for (i, (dgated, out)) in dgated.iter().zip(out).enumerate() {
        dgate[i / head_dim] += dgated * out;
    }
    Ok((dout, dgate))
}
