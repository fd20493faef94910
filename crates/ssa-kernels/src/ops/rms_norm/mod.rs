//! Root-mean-square normalisation.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{
    axes, check_last, check_positive, check_rows, check_shape, dtypes, same_device,
};
use crate::{DType, Device, Result, Tensor};

/// What [`rms_norm_fwd`] returns.
#[derive(Clone, Debug)]
pub struct RmsNormOutput {
    /// The normalised input, shape of `x`.
    pub out: Tensor,
    /// `1 / sqrt(mean(x^2) + eps)` of every row, kept for the backward pass.
    pub rstd: Tensor,
}

/// `out = x * rstd * weight` with `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
///
/// # Shapes
/// `x` `[B, T, hidden]` (any leading axes), `weight` `[hidden]`; returns `out` like `x` and `rstd`
/// `[B, T]`.
///
/// # Dtypes
/// `f32`, or `bf16` with `rstd` in `f32` on a GPU; the sum of squares of a row accumulates in
/// `f32`, one partial sum per vector lane.
///
/// # Edge cases
/// A row of zeros stays zero. No rows: an empty result.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if `weight` is not a vector as long as the
/// rows of `x`, [`KernelError::Value`](crate::KernelError::Value) if the rows are empty.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: each row belongs to one thread. On a GPU too: to
/// one warp or block.
///
/// # Source
/// `LlamaRMSNorm` of the released model; <https://arxiv.org/abs/1910.07467>, equation 4.
pub fn rms_norm_fwd(x: &Tensor, weight: &Tensor, eps: f32) -> Result<RmsNormOutput> {
    const OP: &str = "rms_norm_fwd";
    let [hidden] = axes(OP, "weight", weight, "[hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    check_last(OP, "x", x, hidden)?;
    same_device(OP, x, &[("weight", weight)])?;
    let mut out = Tensor::for_output_like(x, x.shape());
    let mut rstd = Tensor::for_output_on(&x.device(), DType::F32, row_shape(x));
    match x.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &[("x", x, DType::Bf16), ("weight", weight, DType::Bf16)])?;
            cuda::forward(&gpu, x, weight, eps, &mut out, &mut rstd)?;
        }
        Device::Cpu => {
            cpu::forward(
                x.as_slice(),
                weight.as_slice(),
                eps,
                out.as_mut_slice(),
                rstd.as_mut_slice(),
            );
        }
    }
    Ok(RmsNormOutput { out, rstd })
}

/// The residual stream and its norm: `sum = x + residual`, then [`rms_norm_fwd`] of `sum`. Returns
/// both; the buffer of `x` becomes the sum.
///
/// On a GPU the sum does not travel to memory and back in between: 8 bytes an element instead of
/// 10. The norm is that of the rounded sum, which [`rms_norm_bwd`] is given.
///
/// # Shapes
/// `x`, `residual` `[B, T, hidden]` (any leading axes), `weight` `[hidden]`.
///
/// # Dtypes
/// As [`rms_norm_fwd`].
///
/// # Errors
/// As [`rms_norm_fwd`], and [`KernelError::Shape`](crate::KernelError::Shape) if the shapes of `x`
/// and `residual` differ.
///
/// # Determinism
/// As [`rms_norm_fwd`].
pub fn add_rms_norm_fwd(
    mut x: Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
) -> Result<(Tensor, RmsNormOutput)> {
    const OP: &str = "add_rms_norm_fwd";
    let [hidden] = axes(OP, "weight", weight, "[hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    check_last(OP, "x", &x, hidden)?;
    check_shape(OP, "residual", residual, x.shape())?;
    same_device(OP, &x, &[("residual", residual), ("weight", weight)])?;
    let norm = match x.device() {
        Device::Cuda(gpu) => {
            let bf16 = DType::Bf16;
            dtypes(OP, &[("x", &x, bf16), ("residual", residual, bf16), ("weight", weight, bf16)])?;
            let mut out = Tensor::for_output_like(&x, x.shape());
            let mut rstd = Tensor::for_output_on(&x.device(), DType::F32, row_shape(&x));
            cuda::add_forward(&gpu, &mut x, residual, weight, eps, &mut out, &mut rstd)?;
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
/// of dout xhat`, with `xhat = x rstd`. The folder's `README.md` derives them.
///
/// # Shapes
/// `dout`, `x`, `dx` `[B, T, hidden]` (any leading axes), `weight`, `dweight` `[hidden]`, `rstd`
/// `[B, T]`.
///
/// # Dtypes
/// `f32`, on a GPU `bf16` with `rstd` and `dweight` in `f32`; the mean of a row in `f32` by vector
/// lanes, `dweight` in `f32` over 64 rows at a time (on a GPU, over those of a block) and in `f64`
/// over those sums.
///
/// # Errors
/// As [`rms_norm_fwd`], and [`KernelError::Shape`](crate::KernelError::Shape) if the other tensors
/// do not fit `x`.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: the partial sums of `dweight` are
/// cut by shape alone and added in order.
pub fn rms_norm_bwd(
    dout: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
    dx: &mut Tensor,
    dweight: &mut Tensor,
) -> Result<()> {
    const OP: &str = "rms_norm_bwd";
    let [hidden] = axes(OP, "weight", weight, "[hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    check_last(OP, "x", x, hidden)?;
    check_rows(OP, "dout", dout, x.rows(), hidden)?;
    check_rows(OP, "dx", dx, x.rows(), hidden)?;
    check_shape(OP, "rstd", rstd, row_shape(x))?;
    check_shape(OP, "dweight", dweight, &[hidden])?;
    let tensors =
        [("dout", dout), ("weight", weight), ("rstd", rstd), ("dx", &*dx), ("dweight", &*dweight)];
    same_device(OP, x, &tensors)?;
    match x.device() {
        Device::Cuda(gpu) => {
            let [bf16, f32] = [DType::Bf16, DType::F32];
            dtypes(
                OP,
                &[("dout", dout, bf16), ("x", x, bf16), ("weight", weight, bf16), ("dx", dx, bf16)],
            )?;
            dtypes(OP, &[("rstd", rstd, f32), ("dweight", dweight, f32)])?;
            cuda::backward(&gpu, Saved { x, weight, rstd }, dout, dx, dweight)?;
        }
        Device::Cpu => cpu::backward(
            cpu::Saved { x: x.as_slice(), weight: weight.as_slice(), rstd: rstd.as_slice() },
            dout.as_slice(),
            dx.as_mut_slice(),
            dweight.as_mut_slice(),
        ),
    }
    Ok(())
}

/// What the forward pass saw and left behind.
#[derive(Clone, Copy)]
struct Saved<'a> {
    x: &'a Tensor,
    weight: &'a Tensor,
    rstd: &'a Tensor,
}

/// The shape of one number per row.
fn row_shape(x: &Tensor) -> &[usize] {
    x.shape().split_last().map_or(&[], |(_, leading)| leading)
}
