//! Linear maps without bias: `y = x Wᵀ`.

mod cpu;
mod cuda;
pub mod reference;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

pub use rows::{LinearWeight, linear_rows_fwd};

use crate::contract::{Args, Checked, I, LEADING, O};
use crate::{Device, Result, Tensor};

/// `y = x Wᵀ`.
///
/// # Shapes
/// `x` `[.., I]`, `weight` `[O, I]`; returns `[.., O]`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the matrix product accumulates in `f32`.
///
/// # Edge cases
/// No rows: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: they share rows and columns of the result, and
/// the order of the sums depends on the shapes and the processor alone. On a GPU bitwise
/// reproducible for a given card and library, as long as the cache directory keeps the algorithm
/// chosen for the shape.
///
/// # Source
/// Every projection of the Llama block.
pub fn linear_fwd(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let call = check_fwd("linear_fwd", x, weight)?;
    let out = call.new_act([LEADING, O])?;
    forward(&call, x, weight, out)
}

/// [`linear_fwd`] with a result in `f32` on every device: for logits, of which evaluation measures
/// small differences.
///
/// # Shapes
/// As [`linear_fwd`].
///
/// # Dtypes
/// As [`linear_fwd`]; the result is not rounded to `bf16`.
///
/// # Edge cases
/// As [`linear_fwd`].
///
/// # Errors
/// As [`linear_fwd`].
///
/// # Determinism
/// As [`linear_fwd`].
///
/// # Source
/// As [`linear_fwd`].
pub fn linear_fwd_f32(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let call = check_fwd("linear_fwd_f32", x, weight)?;
    let out = call.new_f32([LEADING, O])?;
    forward(&call, x, weight, out)
}

fn check_fwd(op: &'static str, x: &Tensor, weight: &Tensor) -> Result<Checked> {
    Args::new(op).act("x", x, [LEADING, I]).act("weight", weight, [O, I]).check()
}

fn forward(call: &Checked, x: &Tensor, weight: &Tensor, mut out: Tensor) -> Result<Tensor> {
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, x, weight, &mut out)?,
        Device::Cpu => {
            let sizes = call.sizes([I, O])?;
            cpu::forward(x.as_slice()?, weight.as_slice()?, out.as_mut_slice()?, sizes);
        }
    }
    Ok(out)
}

/// Gradient with respect to the input: `dx += dout W`.
///
/// # Shapes
/// `dout` `[.., O]`, `weight` `[O, I]`, `dx` `[.., I]`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; accumulated in `f32`.
///
/// # Edge cases
/// No rows: nothing is added.
///
/// # Errors
/// As [`linear_fwd`].
///
/// # Determinism
/// As [`linear_fwd`].
///
/// # Source
/// As [`linear_fwd`].
pub fn linear_bwd_input(dout: &Tensor, weight: &Tensor, dx: &mut Tensor) -> Result<()> {
    let call = Args::new("linear_bwd_input")
        .act("dout", dout, [LEADING, O])
        .act("weight", weight, [O, I])
        .act("dx", dx, [LEADING, I])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward_input(gpu, dout, weight, dx)?,
        Device::Cpu => {
            let sizes = call.sizes([I, O])?;
            cpu::backward_input(dout.as_slice()?, weight.as_slice()?, dx.as_mut_slice()?, sizes);
        }
    }
    Ok(())
}

/// Gradient with respect to the weight: `dweight += doutᵀ x`.
///
/// # Shapes
/// `dout` `[.., O]`, `x` `[.., I]`, `dweight` `[O, I]`.
///
/// # Dtypes
/// `f32`; on a GPU `dout` and `x` are `bf16` and `dweight` is `f32`. Accumulated in `f32`.
///
/// # Edge cases
/// No rows: nothing is added.
///
/// # Errors
/// As [`linear_fwd`].
///
/// # Determinism
/// As [`linear_fwd`].
///
/// # Source
/// As [`linear_fwd`].
pub fn linear_bwd_weight(dout: &Tensor, x: &Tensor, dweight: &mut Tensor) -> Result<()> {
    let call = Args::new("linear_bwd_weight")
        .act("dout", dout, [LEADING, O])
        .act("x", x, [LEADING, I])
        .f32("dweight", dweight, [O, I])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward_weight(gpu, dout, x, dweight)?,
        Device::Cpu => {
            let sizes = call.sizes([I, O])?;
            cpu::backward_weight(dout.as_slice()?, x.as_slice()?, dweight.as_mut_slice()?, sizes);
        }
    }
    Ok(())
}
