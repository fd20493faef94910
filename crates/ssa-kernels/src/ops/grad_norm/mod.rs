//! The global norm of all gradients, and the factor that clips it.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod scale;
#[cfg(test)]
mod tests;

use crate::checks::{dtypes, same_device};
use crate::{DType, Device, Result, Scalar, Tensor};

pub use scale::GradScale;

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
/// [`KernelError::Device`](crate::KernelError::Device) if the tensors do not lie on one device,
/// [`KernelError::Value`](crate::KernelError::Value) if one is not `f32`.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: blocks of fixed length, added in
/// an order that follows from the lengths of the tensors.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`.
pub fn grad_norm<'a>(grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Scalar> {
    Ok(clipped_grad_norm(grads, f64::INFINITY, &[])?.0)
}

/// [`grad_norm`] and the factor that clips gradients to it: [`clip_factor`] if the norm and all
/// `guards`, such as the losses of the step, are finite, else NaN.
///
/// On a GPU both stay there, so that the step that uses the factor
/// ([`adamw_step`](crate::ops::adamw::adamw_step)) is queued without waiting. That step changes
/// nothing if the factor is NaN.
///
/// # Errors
/// As [`grad_norm`], and [`KernelError::Device`](crate::KernelError::Device) if a guard is on
/// another GPU.
///
/// # Determinism
/// As [`grad_norm`].
pub fn clipped_grad_norm<'a>(
    grads: impl IntoIterator<Item = &'a Tensor>,
    max_norm: f64,
    guards: &[&Scalar],
) -> Result<(Scalar, GradScale)> {
    const OP: &str = "grad_norm";
    let grads: Vec<&Tensor> = grads.into_iter().collect();
    for grad in &grads {
        same_device(OP, grads[0], &[("grads", grad)])?;
        dtypes(OP, &[("grads", grad, DType::F32)])?;
    }
    match grads.first().map_or(Device::Cpu, |grad| grad.device()) {
        Device::Cuda(gpu) => cuda::norm_and_clip(&gpu, &grads, max_norm, guards),
        Device::Cpu => {
            let norm = cpu::sum_of_squares(grads.into_iter().map(Tensor::as_slice)).sqrt();
            let finite = Scalar::values(guards)?.into_iter().all(f64::is_finite);
            let factor =
                if finite && norm.is_finite() { clip_factor(norm, max_norm) } else { f32::NAN };
            Ok((Scalar::new(norm), GradScale::new(factor)))
        }
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
