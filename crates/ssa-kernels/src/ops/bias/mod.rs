//! Biases of linear maps: `y = x + bias`, the same for every row.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::contract::{Args, LEADING, O};
use crate::{Device, Result, Tensor};

/// `y = x + bias` for every row; the buffer of `x` becomes the sum.
///
/// # Shapes
/// `x` `[.., O]`, `bias` `[O]`; returns `[.., O]`.
///
/// # Dtypes
/// `f32`; on a GPU `bf16`, added in `f32` and rounded once.
///
/// # Edge cases
/// No rows: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// Exact: elements are independent.
///
/// # Source
/// `q_proj.bias`, `k_proj.bias` and `v_proj.bias` of Qwen2 (`Qwen2Attention` in transformers).
pub fn bias_fwd(mut x: Tensor, bias: &Tensor) -> Result<Tensor> {
    let call = Args::new("bias_fwd").act("x", &x, [LEADING, O]).act("bias", bias, [O]).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, &mut x, bias)?,
        Device::Cpu => cpu::forward(x.as_mut_slice()?, bias.as_slice()?),
    }
    Ok(x)
}

/// Gradient with respect to the bias: `dbias += sum over rows of dout`. That of `x` is `dout`.
///
/// # Shapes
/// `dout` `[.., O]`, `dbias` `[O]`.
///
/// # Dtypes
/// `f32`; on a GPU `dout` is `bf16` and `dbias` is `f32`. Accumulated in `f32` over 64 rows at a
/// time (on a GPU, over every 256th row), and in `f64` over those sums.
///
/// # Edge cases
/// No rows: nothing is added.
///
/// # Errors
/// As [`bias_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: the shape alone decides the
/// partial sums, which are added in order.
///
/// # Source
/// As [`bias_fwd`].
pub fn bias_bwd(dout: &Tensor, dbias: &mut Tensor) -> Result<()> {
    let call =
        Args::new("bias_bwd").act("dout", dout, [LEADING, O]).f32("dbias", dbias, [O]).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, dout, dbias)?,
        Device::Cpu => cpu::backward(dout.as_slice()?, dbias.as_mut_slice()?)?,
    }
    Ok(())
}
