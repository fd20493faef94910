//! Root-mean-square normalisation.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{axes, check_last, check_positive, check_rows, check_shape};
use crate::{Device, KernelError, Result, Tensor};

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
/// `x` `[B, T, hidden]` (any leading axes), `weight` `[hidden]`; returns `out` like `x` and `rstd` `[B, T]`.
///
/// # Dtypes
/// `f32`; the sum of squares of a row accumulates in `f32`, one partial sum per vector lane.
///
/// # Edge cases
/// A row of zeros stays zero. No rows: an empty result.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if `weight` is not a vector as long as the rows of `x`,
/// [`KernelError::Value`](crate::KernelError::Value) if the rows are empty.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: each row belongs to one thread.
///
/// # Source
/// `LlamaRMSNorm` of the released model; <https://arxiv.org/abs/1910.07467>, equation 4.
pub fn rms_norm_fwd(x: &Tensor, weight: &Tensor, eps: f32) -> Result<RmsNormOutput> {
    const OP: &str = "rms_norm_fwd";
    let [hidden] = axes(OP, "weight", weight, "[hidden]")?;
    check_positive(OP, "hidden", hidden)?;
    check_last(OP, "x", x, hidden)?;
    let mut out = Tensor::for_output(x.shape());
    let mut rstd = Tensor::for_output(row_shape(x));
    match x.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => {
            cpu::forward(x.as_slice(), weight.as_slice(), eps, out.as_mut_slice(), rstd.as_mut_slice());
        }
    }
    Ok(RmsNormOutput { out, rstd })
}

/// Gradients `dx += rstd (weight dout - xhat mean(weight dout xhat))` and `dweight += sum over rows of dout
/// xhat`, with `xhat = x rstd`. The folder's `README.md` derives them.
///
/// # Shapes
/// `dout`, `x`, `dx` `[B, T, hidden]` (any leading axes), `weight`, `dweight` `[hidden]`, `rstd` `[B, T]`.
///
/// # Dtypes
/// `f32`; the mean of a row in `f32` by vector lanes, `dweight` in `f32` over 64 rows at a time and in `f64`
/// over those sums.
///
/// # Errors
/// As [`rms_norm_fwd`], and [`KernelError::Shape`](crate::KernelError::Shape) if the other tensors do not fit
/// `x`.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: the partial sums of `dweight` are cut by shape alone and
/// added in order.
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
    match x.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::backward(
            cpu::Saved { x: x.as_slice(), weight: weight.as_slice(), rstd: rstd.as_slice() },
            dout.as_slice(),
            dx.as_mut_slice(),
            dweight.as_mut_slice(),
        ),
    }
    Ok(())
}

/// The shape of one number per row.
fn row_shape(x: &Tensor) -> &[usize] {
    x.shape().split_last().map_or(&[], |(_, leading)| leading)
}
