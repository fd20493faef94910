//! Ops in plain `bf16`, for layers and for the checks of the ops.

use ssa_kernels::Tensor;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::ops::gate::GateBranch;
use ssa_kernels::ops::{linear, rms_norm};

use super::Rounding;
use crate::Result;

impl Rounding {
    /// `x Wᵀ`.
    pub(super) fn linear(self, x: &[f64], weight: &Tensor) -> Result<Vec<f64>> {
        let values = self.weight(weight.as_slice()?);
        Ok(self.matrix(linear::reference::forward(x, &values, weight.last_dim())?))
    }

    /// Adds to `dweight` and returns `dx`.
    pub(super) fn linear_backward(
        self,
        dout: &[f64],
        x: &[f64],
        weight: &Tensor,
        dweight: &mut Tensor,
    ) -> Result<Vec<f64>> {
        let values = self.weight(weight.as_slice()?);
        let (dx, added) = linear::reference::backward(dout, x, &values, weight.last_dim())?;
        add_to_weight(dweight, &added)?;
        Ok(self.matrix(dx))
    }

    pub(super) fn rms_norm(self, x: &[f64], weight: &Tensor, eps: f64) -> Result<Vec<f64>> {
        let values = self.weight(weight.as_slice()?);
        Ok(self.matrix(rms_norm::reference::forward(x, &values, eps)?.0))
    }

    /// Adds to `dweight` and returns `dx`.
    pub(super) fn rms_norm_backward(
        self,
        dout: &[f64],
        x: &[f64],
        (weight, eps): (&Tensor, f64),
        dweight: &mut Tensor,
    ) -> Result<Vec<f64>> {
        let values = self.weight(weight.as_slice()?);
        let (dx, added) = rms_norm::reference::backward(dout, x, &values, eps)?;
        add_to_weight(dweight, &added)?;
        Ok(self.matrix(dx))
    }

    /// `sigmoid(x Wᵀ)` of the rows of a branch, whose product is a separate matrix.
    pub(super) fn gate(self, x: &[f64], g_proj: &Tensor, branch: GateBranch) -> Result<Vec<f64>> {
        let hidden = g_proj.last_dim();
        let rows = branch_rows(&self.weight(g_proj.as_slice()?), branch, hidden);
        let logits = self.matrix(linear::reference::forward(x, &rows, hidden)?);
        Ok(self.matrix(logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()))
    }

    pub(super) fn add(self, sum: &mut Vec<f64>, values: &[f64]) {
        let both = sum.iter().zip(values).map(|(sum, value)| sum + value).collect();
        *sum = self.matrix(both);
    }
}

/// Gradients of weights are `f32` sums everywhere.
pub(super) fn add_to_weight(dweight: &mut Tensor, values: &[f64]) -> Result<()> {
    dweight.as_mut_slice()?.iter_mut().zip(values).for_each(|(sum, value)| *sum += *value as f32);
    Ok(())
}

fn branch_rows(g_proj: &[f64], branch: GateBranch, hidden: usize) -> Vec<f64> {
    g_proj.chunks(hidden).skip(branch.first_row()).step_by(3).flatten().copied().collect()
}

/// Gradients `(dx, dg_proj)` of [`gate_bwd`](ssa_kernels::ops::gate::gate_bwd): that before the
/// sigmoid is a matrix, then come two products, whose results are not rounded here.
pub(crate) fn gate_backward(
    dgate: &[f64],
    gate: &[f64],
    x: &[f64],
    (g_proj, branch): (&[f64], GateBranch),
    hidden: usize,
    rounding: Rounding,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let ds = rounding.matrix(dgate.iter().zip(gate).map(|(d, g)| d * g * (1.0 - g)).collect());
    let (dx, drows) =
        linear::reference::backward(&ds, x, &branch_rows(g_proj, branch, hidden), hidden)?;
    let mut dg_proj = vec![0.0; g_proj.len()];
    for (row, drow) in drows.chunks(hidden).enumerate() {
        dg_proj[(3 * row + branch.first_row()) * hidden..][..hidden].copy_from_slice(drow);
    }
    Ok((dx, dg_proj))
}

/// Losses with all logits in memory, and gradients of `scale` times their sum, which are not
/// rounded here.
pub(crate) struct CrossEntropy {
    pub(crate) losses: Vec<f64>,
    pub(crate) lse_squares: Vec<f64>,
    pub(crate) dx: Vec<f64>,
    pub(crate) dweight: Vec<f64>,
}

/// Linear map and cross-entropy whose logits and their gradients are matrices.
pub(crate) fn cross_entropy(
    x: &[f64],
    weight: &[f64],
    labels: &[i32],
    [scale, z_loss]: [f64; 2],
    rounding: Rounding,
) -> Result<CrossEntropy> {
    let hidden = x.len() / labels.len();
    let mut z = rounding.matrix(linear::reference::forward(x, weight, hidden)?);
    let [mut losses, mut lse_squares] = [Vec::new(), Vec::new()];
    for (z, &label) in z.chunks_mut(weight.len() / hidden).zip(labels) {
        if label == IGNORE_INDEX {
            losses.push(0.0);
            lse_squares.push(0.0);
            z.fill(0.0);
            continue;
        }
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        losses.push(lse - z[label as usize]);
        lse_squares.push(lse * lse);
        for (column, z) in z.iter_mut().enumerate() {
            let onehot = if column as i32 == label { 1.0 } else { 0.0 };
            let gradient = (1.0 + 2.0 * z_loss * lse) * (*z - lse).exp() - onehot;
            *z = rounding.number(scale * gradient);
        }
    }
    let (dx, dweight) = linear::reference::backward(&z, x, weight, hidden)?;
    Ok(CrossEntropy { losses, lse_squares, dx, dweight })
}
