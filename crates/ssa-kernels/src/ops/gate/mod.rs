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

use crate::checks::{axes, check_positive, check_shape, dtypes, same_device};
use crate::{DType, Device, KernelError, Result, Tensor};

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
}

/// `gate[b, t, h] = sigmoid(sum_i x[b, t, i] g_proj[3h + r, i])`, r the row of the branch.
///
/// # Shapes
/// `x` `[B, T, hidden]` (the normed input of the layer), `g_proj` `[3 * HQ, hidden]`; returns `[B,
/// T, HQ]`.
///
/// # Dtypes
/// `f32`, on a GPU `bf16` inputs; accumulated in `f32` by the matrix product. The gate is `f32`
/// everywhere.
///
/// # Edge cases
/// No tokens: an empty result. The rows of other branches are not read.
///
/// # Errors
/// [`KernelError::Shape`] if `x` does not have three axes, or if `g_proj` is not a matrix of a
/// multiple of 3 rows as long as those of `x`, and not empty.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: the matrix product does not split its sums.
///
/// # Source
/// `self_attn.g_proj` of the released model.
pub fn gate_fwd(x: &Tensor, g_proj: &Tensor, branch: GateBranch) -> Result<Tensor> {
    let [batch, tokens, heads] = check_projection("gate_fwd", x, g_proj)?;
    same_device("gate_fwd", x, &[("g_proj", g_proj)])?;
    let mut out = Tensor::for_output_on(&x.device(), DType::F32, [batch, tokens, heads]);
    match x.device() {
        Device::Cuda(gpu) => {
            dtypes("gate_fwd", &[("x", x, DType::Bf16), ("g_proj", g_proj, DType::Bf16)])?;
            cuda::forward(&gpu, x, g_proj, branch, &mut out)?;
        }
        Device::Cpu => {
            cpu::forward(x.as_slice(), g_proj.as_slice(), branch, heads, out.as_mut_slice())
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
/// The rows of `dg_proj` of other branches are not touched.
///
/// # Errors
/// As [`gate_fwd`], and [`KernelError::Shape`] if the other tensors do not fit.
///
/// # Determinism
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
    const OP: &str = "gate_bwd";
    let [batch, tokens, heads] = check_projection(OP, x, g_proj)?;
    check_shape(OP, "gate", gate, &[batch, tokens, heads])?;
    check_shape(OP, "dgate", dgate, gate.shape())?;
    check_shape(OP, "dx", dx, x.shape())?;
    check_shape(OP, "dg_proj", dg_proj, g_proj.shape())?;
    let tensors = [
        ("dgate", dgate),
        ("gate", gate),
        ("g_proj", g_proj),
        ("dx", &*dx),
        ("dg_proj", &*dg_proj),
    ];
    same_device(OP, x, &tensors)?;
    match x.device() {
        Device::Cuda(gpu) => {
            let [bf16, f32] = [DType::Bf16, DType::F32];
            dtypes(OP, &[("x", x, bf16), ("g_proj", g_proj, bf16), ("dx", dx, bf16)])?;
            dtypes(OP, &[("dgate", dgate, f32), ("gate", gate, f32), ("dg_proj", dg_proj, f32)])?;
            cuda::backward(&gpu, cuda::Projection { gate, x, g_proj, branch }, dgate, dx, dg_proj)?;
        }
        Device::Cpu => {
            let ds = cpu::sigmoid_backward(dgate.as_slice(), gate.as_slice());
            cpu::backward_input(&ds, g_proj.as_slice(), branch, heads, dx.as_mut_slice());
            cpu::backward_weight(&ds, x.as_slice(), branch, heads, dg_proj.as_mut_slice());
        }
    }
    Ok(())
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
/// [`KernelError::Shape`] if `out` does not have four axes or `gate` not its first three,
/// [`KernelError::Value`] if the heads are empty.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: each head of a token belongs to one thread.
///
/// # Source
/// The released attention module: each branch is multiplied by its gate before the alignment loss
/// and `o_proj`.
pub fn gate_apply_fwd(out: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let head_dim = check_heads("gate_apply_fwd", out, gate)?;
    same_device("gate_apply_fwd", out, &[("gate", gate)])?;
    let mut gated = Tensor::for_output_like(out, out.shape());
    match out.device() {
        Device::Cuda(gpu) => {
            dtypes("gate_apply_fwd", &[("out", out, DType::Bf16), ("gate", gate, DType::F32)])?;
            cuda::apply_forward(&gpu, out, gate, &mut gated)?;
        }
        Device::Cpu => {
            cpu::apply_forward(out.as_slice(), gate.as_slice(), head_dim, gated.as_mut_slice())
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
/// `f32`, on a GPU `dgated`, `out` and `dout` in `bf16`; the sum over D accumulates in `f32`, one
/// partial sum per vector lane.
///
/// # Errors
/// As [`gate_apply_fwd`], and [`KernelError::Shape`] if the other tensors do not fit.
///
/// # Determinism
/// As [`gate_apply_fwd`].
pub fn gate_apply_bwd(
    dgated: &Tensor,
    out: &Tensor,
    gate: &Tensor,
    dout: &mut Tensor,
    dgate: &mut Tensor,
) -> Result<()> {
    const OP: &str = "gate_apply_bwd";
    let head_dim = check_heads(OP, out, gate)?;
    check_shape(OP, "dgated", dgated, out.shape())?;
    check_shape(OP, "dout", dout, out.shape())?;
    check_shape(OP, "dgate", dgate, gate.shape())?;
    same_device(OP, out, &[("dgated", dgated), ("gate", gate), ("dout", dout), ("dgate", dgate)])?;
    match out.device() {
        Device::Cuda(gpu) => {
            let [bf16, f32] = [DType::Bf16, DType::F32];
            dtypes(OP, &[("dgated", dgated, bf16), ("out", out, bf16), ("dout", dout, bf16)])?;
            dtypes(OP, &[("gate", gate, f32), ("dgate", dgate, f32)])?;
            cuda::apply_backward(&gpu, dgated, out, gate, dout, dgate)?;
        }
        Device::Cpu => {
            let saved = cpu::Saved { out: out.as_slice(), gate: gate.as_slice(), head_dim };
            cpu::apply_backward(
                saved,
                dgated.as_slice(),
                dout.as_mut_slice(),
                dgate.as_mut_slice(),
            );
        }
    }
    Ok(())
}

/// Returns `[B, T, HQ]`.
fn check_projection(op: &'static str, x: &Tensor, g_proj: &Tensor) -> Result<[usize; 3]> {
    let [batch, tokens, hidden] = axes(op, "x", x, "[B, T, hidden]")?;
    let [rows, columns] = axes(op, "g_proj", g_proj, "[3 * HQ, hidden]")?;
    if !rows.is_multiple_of(3) || rows == 0 || columns == 0 || columns != hidden {
        return Err(KernelError::shape(
            op,
            "g_proj",
            format!("[3 * HQ, {hidden}]"),
            g_proj.shape(),
        ));
    }
    Ok([batch, tokens, rows / 3])
}

/// Returns D.
fn check_heads(op: &'static str, out: &Tensor, gate: &Tensor) -> Result<usize> {
    let [batch, tokens, heads, head_dim] = axes(op, "out", out, "[B, T, HQ, D]")?;
    check_positive(op, "head_dim", head_dim)?;
    check_shape(op, "gate", gate, &[batch, tokens, heads])?;
    Ok(head_dim)
}
