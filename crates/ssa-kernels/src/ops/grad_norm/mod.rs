//! The global norm of all gradients, and the factor that clips it.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, KernelError, Result, Scalar, Tensor};

/// `sqrt(sum over all elements of all tensors of g²)`.
///
/// # Shapes
/// Any.
///
/// # Dtypes
/// `f32` elements, squared and accumulated in `f64`: no overflow below infinity.
///
/// # Edge cases
/// Zero for no elements. A NaN makes the norm NaN, an infinity (and no NaN) makes it infinite.
///
/// # Errors
/// [`KernelError::Device`] if the tensors do not lie on one device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: blocks of fixed length, added in order.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`.
pub fn grad_norm<'a>(grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Scalar> {
    let grads: Vec<&Tensor> = grads.into_iter().collect();
    match grads.first().map_or(Device::Cpu, |grad| grad.device()) {
        Device::Cuda(gpu) => Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => Ok(Scalar::new(cpu::sum_of_squares(grads.into_iter().map(Tensor::as_slice)).sqrt())),
    }
}

/// The factor by which gradients of norm `norm` are multiplied: `min(1, max_norm / (norm + 1e-6))`.
///
/// # Dtypes
/// `f64`, rounded to `f32`.
///
/// # Edge cases
/// NaN for a NaN norm and zero for an infinite one: check the norm before applying either.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    let factor = max_norm / (norm + 1e-6);
    // Not `f64::min`, which would turn NaN into 1.
    if factor > 1.0 { 1.0 } else { factor as f32 }
}
