//! Output gates of the attention branches: one number per token and query head.
//!
//! `g_proj` `[3 * HQ, hidden]` interleaves the three branches: row `3h` gates the compression
//! branch of query head `h`, row `3h + 1` selection (and full attention, which takes its place),
//! row `3h + 2` the window.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::contract::{Args, Axis, B, Checked, D, HIDDEN, HQ, T};
use crate::host_memory::reserved;
use crate::{Device, Result, Tensor};

/// Rows of `g_proj`: three for each query head.
const G_PROJ_ROWS: Axis = Axis::Times(3, "HQ");

/// Which rows of `g_proj` a gate uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateBranch {
    /// Rows `3h`.
    Compression,
    /// Rows `3h + 1`; full attention is gated by the same rows.
    Selection,
    /// Rows `3h + 2`.
    Window,
}

impl GateBranch {
    /// The first row of the branch; the others follow 3 rows apart.
    pub fn first_row(self) -> usize {
        match self {
            Self::Compression => 0,
            Self::Selection => 1,
            Self::Window => 2,
        }
    }

    /// A copy of the rows of the branch, `[HQ, hidden]`, of `g_proj` `[3 * HQ, hidden]`.
    ///
    /// # Errors
    /// [`KernelError::Argument`](crate::KernelError::Argument) if it has other axes.
    pub fn rows(self, g_proj: &Tensor) -> Result<Tensor> {
        let checked = Args::new("GateBranch::rows").act("g_proj", g_proj, [G_PROJ_ROWS, HIDDEN]);
        let checked = checked.check()?;
        let [heads, hidden] = checked.sizes([HQ, HIDDEN])?;
        if let Device::Cuda(gpu) = checked.device() {
            let rows = (0..heads).map(|head| 3 * head + self.first_row());
            let rows =
                rows.map(|row| g_proj.rows_range(row..row + 1)).collect::<Result<Vec<_>>>()?;
            return Tensor::stacked(gpu, &rows.iter().collect::<Vec<_>>());
        }
        let rows = g_proj.as_slice()?.chunks_exact(hidden).skip(self.first_row()).step_by(3);
        let mut values = reserved(heads * hidden)?;
        values.extend(rows.flatten());
        Tensor::from_vec(values, [heads, hidden])
    }
}

/// `gate[b, t, h] = sigmoid(sum_i x[b, t, i] g_proj[3h + r, i])`, r the row of the branch.
///
/// # Shapes
/// `x` `[B, T, hidden]` (the normalized input of the layer), `g_proj` `[3 * HQ, hidden]`; returns
/// `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`, on a GPU `bf16` inputs; the matrix product accumulates in `f32`. The gate is `f32` on
/// every device.
///
/// # Edge cases
/// No tokens: an empty result. The rows of other branches are not read.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// As [`linear_fwd`](crate::ops::linear::linear_fwd).
///
/// # Source
/// `self_attn.g_proj` of the released model.
pub fn gate_fwd(x: &Tensor, g_proj: &Tensor, branch: GateBranch) -> Result<Tensor> {
    let call = Args::new("gate_fwd")
        .act("x", x, [B, T, HIDDEN])
        .act("g_proj", g_proj, [G_PROJ_ROWS, HIDDEN])
        .check()?;
    let mut out = call.new_f32([B, T, HQ])?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, x, g_proj, branch, &mut out)?,
        Device::Cpu => {
            let rows = branch_rows(&call, branch)?;
            cpu::forward(x.as_slice()?, g_proj.as_slice()?, rows, out.as_mut_slice()?);
        }
    }
    Ok(out)
}

/// Gradients of [`gate_fwd`]. With `ds = dgate gate (1 - gate)`: `dx += ds W`, `dW += dsᵀ x`, W the
/// rows of the branch.
///
/// # Shapes
/// `dgate`, `gate` (the result of the forward) `[B, T, HQ]`, `x`, `dx` `[B, T, hidden]`, `g_proj`,
/// `dg_proj` `[3 * HQ, hidden]`.
///
/// # Dtypes
/// `f32`; on a GPU `x`, `g_proj` and `dx` are `bf16`, and so is `ds` for the products. Accumulated
/// in `f32`.
///
/// # Edge cases
/// No tokens: nothing is added. The rows of `dg_proj` of other branches are not touched.
///
/// # Errors
/// As [`gate_fwd`].
///
/// # Determinism
/// As [`gate_fwd`].
///
/// # Source
/// As [`gate_fwd`].
pub fn gate_bwd(
    dgate: &Tensor,
    gate: &Tensor,
    x: &Tensor,
    g_proj: &Tensor,
    branch: GateBranch,
    dx: &mut Tensor,
    dg_proj: &mut Tensor,
) -> Result<()> {
    let call = Args::new("gate_bwd")
        .f32("dgate", dgate, [B, T, HQ])
        .f32("gate", gate, [B, T, HQ])
        .act("x", x, [B, T, HIDDEN])
        .act("g_proj", g_proj, [G_PROJ_ROWS, HIDDEN])
        .act("dx", dx, [B, T, HIDDEN])
        .f32("dg_proj", dg_proj, [G_PROJ_ROWS, HIDDEN])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => {
            cuda::backward(gpu, cuda::Projection { gate, x, g_proj, branch }, dgate, dx, dg_proj)?;
        }
        Device::Cpu => {
            let rows = branch_rows(&call, branch)?;
            let ds = cpu::sigmoid_backward(dgate.as_slice()?, gate.as_slice()?)?;
            cpu::backward_input(&ds, g_proj.as_slice()?, rows, dx.as_mut_slice()?);
            cpu::backward_weight(&ds, x.as_slice()?, rows, dg_proj.as_mut_slice()?);
        }
    }
    Ok(())
}

fn branch_rows(call: &Checked, branch: GateBranch) -> Result<cpu::BranchRows> {
    let [heads, hidden] = call.sizes([HQ, HIDDEN])?;
    Ok(cpu::BranchRows { first: branch.first_row(), heads, hidden })
}

/// `gate = sigmoid(scores)`: the gate of a branch whose products with `g_proj` are computed
/// together with other maps of the same input.
///
/// # Shapes
/// `scores` `[B, T, HQ]`; returns the same shape.
///
/// # Dtypes
/// `f32`, on a GPU `scores` in `bf16`.
///
/// # Edge cases
/// No tokens: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if `scores` does not have this shape or
/// type.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: elements are independent.
///
/// # Source
/// As [`gate_fwd`].
pub fn gate_of_scores_fwd(scores: &Tensor) -> Result<Tensor> {
    const OP: &str = "gate_of_scores_fwd";
    let call = Args::new(OP).act("scores", scores, [B, T, HQ]).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::of_scores(gpu, scores),
        Device::Cpu => {
            let mut gate = call.new_f32([B, T, HQ])?;
            cpu::sigmoid(scores.as_slice()?, gate.as_mut_slice()?);
            Ok(gate)
        }
    }
}

/// `gated[b, t, h, d] = out[b, t, h, d] gate[b, t, h]`.
///
/// # Shapes
/// `out` `[B, T, HQ, D]` (the output of an attention branch), `gate` `[B, T, HQ]`; returns `[B, T,
/// HQ, D]`.
///
/// # Dtypes
/// `f32`, on a GPU `out` in `bf16`.
///
/// # Edge cases
/// No tokens: an empty result.
///
/// # Errors
/// As [`gate_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: heads of tokens are independent.
///
/// # Source
/// The released attention module: each branch is multiplied by its gate before the alignment loss
/// and `o_proj`.
pub fn gate_apply_fwd(out: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let call = Args::new("gate_apply_fwd")
        .act("out", out, [B, T, HQ, D])
        .f32("gate", gate, [B, T, HQ])
        .check()?;
    let mut gated = call.new_act([B, T, HQ, D])?;
    match call.device() {
        Device::Cuda(gpu) => cuda::apply_forward(gpu, out, gate, &mut gated)?,
        Device::Cpu => {
            let [head_dim] = call.sizes([D])?;
            cpu::apply_forward(out.as_slice()?, gate.as_slice()?, head_dim, gated.as_mut_slice()?);
        }
    }
    Ok(gated)
}

/// Gradients of [`gate_apply_fwd`]: `dout += dgated gate` and `dgate += sum_d dgated out`.
///
/// # Shapes
/// `dgated`, `out`, `dout` `[B, T, HQ, D]`, `gate`, `dgate` `[B, T, HQ]`.
///
/// # Dtypes
/// `f32`; on a GPU `dgated`, `out` and `dout` are `bf16`. The sum over D accumulates in `f32`, one
/// partial sum per vector lane.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`gate_fwd`].
///
/// # Determinism
/// As [`gate_apply_fwd`].
///
/// # Source
/// As [`gate_apply_fwd`].
pub fn gate_apply_bwd(
    dgated: &Tensor,
    out: &Tensor,
    gate: &Tensor,
    dout: &mut Tensor,
    dgate: &mut Tensor,
) -> Result<()> {
    let call = Args::new("gate_apply_bwd")
        .act("dgated", dgated, [B, T, HQ, D])
        .act("out", out, [B, T, HQ, D])
        .f32("gate", gate, [B, T, HQ])
        .act("dout", dout, [B, T, HQ, D])
        .f32("dgate", dgate, [B, T, HQ])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::apply_backward(gpu, dgated, out, gate, dout, dgate)?,
        Device::Cpu => {
            let [head_dim] = call.sizes([D])?;
            let heads = cpu::GatedHeads { out: out.as_slice()?, gate: gate.as_slice()?, head_dim };
            let (dout, dgate) = (dout.as_mut_slice()?, dgate.as_mut_slice()?);
            cpu::apply_backward(heads, dgated.as_slice()?, dout, dgate);
        }
    }
    Ok(())
}
