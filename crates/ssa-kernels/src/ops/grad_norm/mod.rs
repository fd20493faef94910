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
    clip_to_norm(op, &squares(op, grads)?, max_norm, sums)
}

/// The first half of [`clipped_grad_norm`]: the sum of squares of each block of each tensor, in the
/// order of the tensors. [`norm_of_squares`] is the other half, so a norm can be computed in parts.
///
/// # Shapes
/// As [`grad_norm`]; [`square_sum_count`] sums for each tensor.
///
/// # Dtypes
/// As [`grad_norm`].
///
/// # Edge cases
/// As [`grad_norm`].
///
/// # Errors
/// As [`grad_norm`].
///
/// # Determinism
/// As [`grad_norm`]. A part of a tensor that begins at a block has the sums of these blocks.
///
/// # Source
/// As [`grad_norm`].
pub fn square_sums<'a>(grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Scalars> {
    squares("square_sums", grads)
}

/// The number of [`square_sums`] of a tensor with `len` elements.
pub fn square_sum_count(device: &Device, len: usize) -> usize {
    match device {
        Device::Cuda(_) => len.div_ceil(cuda::CHUNK),
        Device::Cpu => len.div_ceil(cpu::CHUNK),
    }
}

/// The second half of [`clipped_grad_norm`], from the [`square_sums`] of all gradients.
///
/// # Shapes
/// `squares` as [`square_sums`] returns them.
///
/// # Dtypes
/// As [`clipped_grad_norm`].
///
/// # Edge cases
/// As [`clipped_grad_norm`].
///
/// # Errors
/// [`KernelError::Argument`] if the two lists are on different devices.
///
/// # Determinism
/// As [`clipped_grad_norm`].
///
/// # Source
/// As [`grad_norm`].
pub fn norm_of_squares(
    squares: &Scalars,
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    clip_to_norm("norm_of_squares", squares, max_norm, sums)
}

fn squares<'a>(op: &'static str, grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Scalars> {
    let grads: Vec<&Tensor> = grads.into_iter().collect();
    let call = grads
        .iter()
        .fold(Args::new(op), |args, grad| args.f32("grads", grad, [Axis::Anything]))
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::square_sums(gpu, &grads),
        Device::Cpu => {
            let slices: Vec<&[f32]> =
                grads.into_iter().map(Tensor::as_slice).collect::<Result<_>>()?;
            Ok(Scalars::known(cpu::square_sums(slices.into_iter())))
        }
    }
}

fn clip_to_norm(
    op: &'static str,
    squares: &Scalars,
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    if sums.device() != squares.device() {
        return Err(KernelError::device(op, "sums", squares.device(), sums.device()));
    }
    match squares.device() {
        Device::Cuda(gpu) => cuda::norm_and_clip(&gpu, squares, max_norm, sums),
        Device::Cpu => {
            let norm = squares.on_host().unwrap_or_default().iter().sum::<f64>().sqrt();
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
