//! Linear maps without bias: `y = x Wᵀ`.

mod cpu;
mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{axes, check_last, check_rows, same_device};
use crate::{DType, Device, Result, Tensor};

/// `y = x Wᵀ`.
///
/// # Shapes
/// `x` `[.., I]`, `weight` `[O, I]`; returns `[.., O]`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; accumulated in `f32` by the matrix product.
///
/// # Edge cases
/// No rows: an empty result.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if `weight` is not a matrix or its rows are
/// not as long as those of `x`.
///
/// # Determinism
/// Bitwise reproducible for a given number of threads. On a GPU for a given card and library, as
/// long as the cache directory keeps the algorithm that was chosen for the shape.
///
/// # Source
/// Every projection of the Llama block.
pub fn linear_fwd(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    forward(x, weight, x.dtype())
}

/// [`linear_fwd`] with a result in `f32` on a GPU too: for logits, whose small differences are what
/// is measured.
///
/// # Errors
/// As [`linear_fwd`].
pub fn linear_fwd_f32(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    forward(x, weight, DType::F32)
}

fn forward(x: &Tensor, weight: &Tensor, dtype: DType) -> Result<Tensor> {
    let [outputs, inputs] = axes("linear_fwd", "weight", weight, "[O, I]")?;
    check_last("linear_fwd", "x", x, inputs)?;
    same_device("linear_fwd", x, &[("weight", weight)])?;
    let mut out = Tensor::for_output_on(&x.device(), dtype, with_last_dim(x, outputs));
    match x.device() {
        Device::Cuda(gpu) => cuda::forward(&gpu, x, weight, &mut out)?,
        Device::Cpu => {
            cpu::forward(x.as_slice(), weight.as_slice(), out.as_mut_slice(), inputs, outputs)
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
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) as in [`linear_fwd`], or if `dout` and `dx`
/// differ in their number of rows.
///
/// # Determinism
/// As [`linear_fwd`].
pub fn linear_bwd_input(dout: &Tensor, weight: &Tensor, dx: &mut Tensor) -> Result<()> {
    let [outputs, inputs] = axes("linear_bwd_input", "weight", weight, "[O, I]")?;
    check_last("linear_bwd_input", "dout", dout, outputs)?;
    check_rows("linear_bwd_input", "dx", dx, dout.rows(), inputs)?;
    same_device("linear_bwd_input", dout, &[("weight", weight), ("dx", dx)])?;
    match dout.device() {
        Device::Cuda(gpu) => cuda::backward_input(&gpu, dout, weight, dx)?,
        Device::Cpu => {
            cpu::backward_input(
                dout.as_slice(),
                weight.as_slice(),
                dx.as_mut_slice(),
                inputs,
                outputs,
            );
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
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) as in [`linear_fwd`], or if `dout` and `x`
/// differ in their number of rows.
///
/// # Determinism
/// As [`linear_fwd`].
pub fn linear_bwd_weight(dout: &Tensor, x: &Tensor, dweight: &mut Tensor) -> Result<()> {
    let [outputs, inputs] = axes("linear_bwd_weight", "dweight", dweight, "[O, I]")?;
    check_last("linear_bwd_weight", "dout", dout, outputs)?;
    check_rows("linear_bwd_weight", "x", x, dout.rows(), inputs)?;
    same_device("linear_bwd_weight", dout, &[("x", x), ("dweight", dweight)])?;
    match dout.device() {
        Device::Cuda(gpu) => cuda::backward_weight(&gpu, dout, x, dweight)?,
        Device::Cpu => {
            cpu::backward_weight(
                dout.as_slice(),
                x.as_slice(),
                dweight.as_mut_slice(),
                inputs,
                outputs,
            );
        }
    }
    Ok(())
}

fn with_last_dim(x: &Tensor, last: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = last;
    }
    shape
}
