//! Root-mean-square normalization.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::contract::{Args, HIDDEN, LEADING};
use crate::{Device, Result, Tensor};

/// What [`rms_norm_fwd`] returns.
#[derive(Debug)]
pub struct RmsNormOutput {
    /// The normalized input, with the shape of `x`.
    pub out: Tensor,
    /// `1 / sqrt(mean(x^2) + eps)` of every row; the backward pass needs it.
    pub rstd: Tensor,
}

/// `out = x * rstd * weight` with `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
///
/// # Shapes
/// `x` `[.., hidden]`, `weight` `[hidden]`; returns `out` `[.., hidden]` and `rstd` `[..]`.
///
/// # Dtypes
/// `f32`; on a GPU `bf16` with `rstd` in `f32`. The sum of squares of a row accumulates in `f32`,
/// one partial sum per vector lane.
///
/// # Edge cases
/// A row of zeros stays zero. No rows: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: each row belongs to one thread. On a GPU bitwise
/// reproducible: each row belongs to one warp or block.
///
/// # Source
/// `LlamaRMSNorm` of the released model; <https://arxiv.org/abs/1910.07467>, equation 4.
pub fn rms_norm_fwd(x: &Tensor, weight: &Tensor, eps: f32) -> Result<RmsNormOutput> {
    let call = Args::new("rms_norm_fwd")
        .act("x", x, [LEADING, HIDDEN])
        .act("weight", weight, [HIDDEN])
        .check()?;
    let mut out = call.new_act([LEADING, HIDDEN])?;
    let mut rstd = call.new_f32([LEADING])?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, x, weight, eps, &mut out, &mut rstd)?,
        Device::Cpu => cpu::forward(
            x.as_slice()?,
            weight.as_slice()?,
            eps,
            out.as_mut_slice()?,
            rstd.as_mut_slice()?,
        ),
    }
    Ok(RmsNormOutput { out, rstd })
}

/// The residual stream and its norm: `sum = x + residual`, then [`rms_norm_fwd`] of `sum`. Returns
/// both; the buffer of `x` becomes the sum.
///
/// On a GPU the sum does not travel to memory and back in between: 8 bytes an element instead of
/// 10. The norm is that of the rounded sum, which is also the `x` that [`rms_norm_bwd`] needs.
///
/// # Shapes
/// `x`, `residual` `[.., hidden]`, `weight` `[hidden]`; returns the sum `[.., hidden]` and what
/// [`rms_norm_fwd`] returns.
///
/// # Dtypes
/// As [`rms_norm_fwd`].
///
/// # Edge cases
/// As [`rms_norm_fwd`].
///
/// # Errors
/// As [`rms_norm_fwd`].
///
/// # Determinism
/// As [`rms_norm_fwd`].
///
/// # Source
/// `LlamaDecoderLayer` of the released model.
pub fn add_rms_norm_fwd(
    mut x: Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
) -> Result<(Tensor, RmsNormOutput)> {
    let call = Args::new("add_rms_norm_fwd")
        .act("x", &x, [LEADING, HIDDEN])
        .act("residual", residual, [LEADING, HIDDEN])
        .act("weight", weight, [HIDDEN])
        .check()?;
    let norm = match call.device() {
        Device::Cuda(gpu) => {
            let mut out = call.new_act([LEADING, HIDDEN])?;
            let mut rstd = call.new_f32([LEADING])?;
            cuda::add_forward(gpu, &mut x, residual, weight, eps, &mut out, &mut rstd)?;
            RmsNormOutput { out, rstd }
        }
        Device::Cpu => {
            x.add_assign(residual)?;
            rms_norm_fwd(&x, weight, eps)?
        }
    };
    Ok((x, norm))
}

/// Gradients `dx += rstd (weight dout - xhat mean(weight dout xhat))` and `dweight += sum over rows
/// of dout xhat`, with `xhat = x rstd`. The `README.md` of this folder derives them.
///
/// # Shapes
/// `dout`, `x`, `dx` `[.., hidden]`, `weight`, `dweight` `[hidden]`, `rstd` `[..]` as the forward
/// returned it.
///
/// # Dtypes
/// `f32`; on a GPU `bf16` with `rstd` and `dweight` in `f32`. The mean of a row accumulates in
/// `f32` by vector lanes, `dweight` in `f32` over 64 rows at a time (on a GPU, over those of a
/// block) and in `f64` over those sums.
///
/// # Edge cases
/// No rows: nothing is added.
///
/// # Errors
/// As [`rms_norm_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: shapes alone decide the partial
/// sums of `dweight`, which are added in order.
///
/// # Source
/// As [`rms_norm_fwd`].
pub fn rms_norm_bwd(
    dout: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    dx: &mut Tensor,
    dweight: &mut Tensor,
) -> Result<()> {
    let call = Args::new("rms_norm_bwd")
        .act("dout", dout, [LEADING, HIDDEN])
        .act("x", x, [LEADING, HIDDEN])
        .act("weight", weight, [HIDDEN])
        .f32("rstd", rstd, [LEADING])
        .act("dx", dx, [LEADING, HIDDEN])
        .f32("dweight", dweight, [HIDDEN])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, Saved { x, weight, rstd }, dout, dx, dweight)?,
        Device::Cpu => cpu::backward(
            cpu::SavedRows { x: x.as_slice()?, weight: weight.as_slice()?, rstd: rstd.as_slice()? },
            dout.as_slice()?,
            dx.as_mut_slice()?,
            dweight.as_mut_slice()?,
        )?,
    }
    Ok(())
}

/// The input of the forward pass and the statistic that it saved.
#[derive(Clone, Copy)]
struct Saved<'a> {
    x: &'a Tensor,
    weight: &'a Tensor,
    rstd: &'a Tensor,
}
