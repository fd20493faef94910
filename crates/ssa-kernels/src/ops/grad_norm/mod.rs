//! The global norm of all gradients, and the factor that clips it.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod scale;
#[cfg(test)]
mod tests;

use crate::contract::{Args, Axis};
use crate::{Device, KernelError, Result, Scalar, Scalars, Tensor};

pub use scale::GradScale;

/// `sqrt(sum over all elements of all tensors of g²)`.
///
/// # Shapes
/// Every one of `grads` `[..]`, each of any shape.
///
/// # Dtypes
/// `f32` elements; squares and their sum are `f64`: no overflow below infinity.
///
/// # Edge cases
/// Zero for no elements. A NaN makes the norm NaN, an infinity (and no NaN) makes it infinite.
///
/// # Errors
/// [`KernelError::Argument`] if a tensor is not `f32` or the tensors
/// are not on one device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: blocks of fixed length, added in
/// an order that follows from the lengths of the tensors.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`.
pub fn grad_norm<'a>(grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Scalar> {
    let grads: Vec<&Tensor> = grads.into_iter().collect();
    let device = grads.first().map_or(Device::Cpu, |grad| grad.device());
    Ok(norm_and_clip("grad_norm", grads, f64::INFINITY, &Scalars::new(&device))?.0)
}

/// [`grad_norm`] and the factor that clips gradients to it: [`clip_factor`] where the norm and all
/// of `sums`, the losses of the step, are finite, and NaN where one is not.
///
/// [`adamw_step`](crate::ops::adamw::adamw_step) changes nothing if the factor is NaN. So the
/// decision to skip a bad step needs no host: on a GPU norm and factor stay there, and the update
/// is queued without waiting.
///
/// # Shapes
/// As [`grad_norm`].
///
/// # Dtypes
/// As [`grad_norm`]; the factor is `f32`.
///
/// # Edge cases
/// As [`grad_norm`]. `max_norm` infinity: the factor of a finite norm is 1.
///
/// # Errors
/// As [`grad_norm`]; [`KernelError::Argument`] if `sums` is on another
/// device than the gradients.
///
/// # Determinism
/// As [`grad_norm`].
///
/// # Source
/// As [`grad_norm`].
pub fn clipped_grad_norm<'a>(
    grads: impl IntoIterator<Item = &'a Tensor>,
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    norm_and_clip("clipped_grad_norm", grads, max_norm, sums)
}

fn norm_and_clip<'a>(
    op: &'static str,
    grads: impl IntoIterator<Item = &'a Tensor>,
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    let grads: Vec<&Tensor> = grads.into_iter().collect();
    let call = grads
        .iter()
        .fold(Args::new(op), |args, grad| args.f32("grads", grad, [Axis::Anything]))
        .check()?;
    if sums.device() != *call.device() {
        return Err(KernelError::device(op, "sums", call.device(), sums.device()));
    }
    match call.device() {
        Device::Cuda(gpu) => cuda::norm_and_clip(gpu, &grads, max_norm, sums),
        Device::Cpu => {
            let slices: Vec<&[f32]> =
                grads.into_iter().map(Tensor::as_slice).collect::<Result<_>>()?;
            let norm = cpu::sum_of_squares(slices.into_iter()).sqrt();
            let sums = sums.on_host().unwrap_or_default();
            let finite = norm.is_finite() && sums.iter().all(|sum| sum.is_finite());
            let factor = if finite { clip_factor(norm, max_norm) } else { f32::NAN };
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
/// # Determinism
/// Exact.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    let factor = max_norm / (norm + 1e-6);
    // Not `f64::min`, which would turn NaN into 1.
    if factor > 1.0 { 1.0 } else { factor as f32 }
}
