//! The AdamW optimizer: Adam with decoupled weight decay.

mod coefficients;
mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use self::coefficients::Coefficients;
use crate::contract::{Args, LEADING};
use crate::ops::grad_norm::GradScale;
use crate::{DType, Device, KernelError, Result, Tensor};

/// Settings of one update. They may differ between steps and between tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwOptions {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment, in `0..1`.
    pub beta1: f32,
    /// Decay of the second moment, in `0..1`.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay, decoupled: multiplied by the learning rate, not by the gradient's scale. Zero
    /// for tensors that do not decay.
    pub weight_decay: f32,
}

/// Decayed means of the gradient of a tensor and of its square.
#[derive(Debug)]
pub struct Moments<'a> {
    /// First moment.
    pub m: &'a mut Tensor,
    /// Second moment.
    pub v: &'a mut Tensor,
}

/// One update of a tensor and its moments, t = `step`:
///
/// ```text
/// g     = grad_scale * grad
/// m     = beta1 m + (1 - beta1) g
/// v     = beta2 v + (1 - beta2) g²
/// param = (1 - lr weight_decay) param - lr m_hat / (sqrt(v_hat) + eps)
///         with m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t)
/// ```
///
/// On a GPU `param` is the `bf16` half of a master weight, and `residue` the other half from
/// [`split_master`]: the master is updated in `f32` and split again.
///
/// # Shapes
/// `param`, `residue`, `grad`, `m`, `v` `[..]` (any shape, the same for all). The moments are zeros
/// before the first step.
///
/// # Dtypes
/// `f32`; bias corrections in `f64`. On a GPU `param` is `bf16` and `residue` `i16`; the CPU has no
/// residues.
///
/// # Edge cases
/// A NaN in the gradient reaches the parameter: skip such a step before calling, or leave it to
/// `grad_scale`. If that is not finite, nothing changes, and
/// [`clipped_grad_norm`](crate::ops::grad_norm::clipped_grad_norm) returns NaN for such gradients.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type or is on another
/// device, if `step` is 0 (steps count from 1), if a beta is not in `0..1`, or if `residue` is
/// missing on a GPU.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: elements are independent.
///
/// # Source
/// <https://arxiv.org/abs/1711.05101>, algorithm 2, in the form of `torch.optim.AdamW`.
pub fn adamw_step(
    param: &mut Tensor,
    residue: Option<&mut Tensor>,
    grad: &Tensor,
    moments: Moments<'_>,
    options: &AdamwOptions,
    step: u64,
    grad_scale: &GradScale,
) -> Result<()> {
    const OP: &str = "adamw_step";
    let call = master_args(OP, param, residue.as_deref())
        .f32("grad", grad, [LEADING])
        .f32("m", moments.m, [LEADING])
        .f32("v", moments.v, [LEADING])
        .check()?;
    check_options(OP, options, step)?;
    match call.device() {
        Device::Cuda(gpu) => {
            let residue = residue.ok_or_else(|| missing_residue(OP))?;
            if is_skipped(grad_scale) {
                return Ok(());
            }
            let coefficients = Coefficients::new(options, step);
            cuda::step(gpu, param, residue, grad, moments, coefficients, grad_scale)
        }
        Device::Cpu => {
            let scale = grad_scale
                .known()
                .ok_or_else(|| KernelError::device(OP, "grad_scale", Device::Cpu, "a GPU"))?;
            if is_skipped(grad_scale) {
                return Ok(());
            }
            let (m, v) = (moments.m.as_mut_slice()?, moments.v.as_mut_slice()?);
            let coefficients = Coefficients::new(options, step);
            cpu::step(param.as_mut_slice()?, grad.as_slice()?, m, v, coefficients, scale);
            Ok(())
        }
    }
}

/// Splits `f32` master weights for a GPU into `bf16` parameters, the masters rounded to the nearest
/// (half away from zero), and the 16 bits that these lack, as signed integers. Nothing is lost: the
/// bits of a master are `(param << 16) + residue`. On the CPU the master weights are the
/// parameters.
///
/// # Shapes
/// `master` `[..]` (any shape); returns one or two such tensors.
///
/// # Dtypes
/// `f32` to `bf16` and `i16`; on the CPU `f32` to `f32` and no residue.
///
/// # Edge cases
/// A NaN stays a NaN, perhaps with another payload. A number that `bf16` rounds to infinity has an
/// infinite parameter and an exact master.
///
/// # Errors
/// [`KernelError::Argument`] if the elements are not `f32`.
///
/// # Determinism
/// Exact.
///
/// # Source
/// The master weights of mixed-precision training (arXiv 1710.03740), kept in two halves.
pub fn split_master(master: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let call = Args::new("split_master").f32("master", master, [LEADING]).check()?;
    match call.device() {
        Device::Cuda(gpu) => {
            let (param, residue) = cuda::split(gpu, master)?;
            Ok((param, Some(residue)))
        }
        Device::Cpu => Ok((master.try_clone()?, None)),
    }
}

/// The master weights that [`split_master`] has split.
///
/// # Shapes
/// `param`, `residue` `[..]` (any shape, the same for both); returns the same.
///
/// # Dtypes
/// `bf16` and `i16` to `f32`; on the CPU `f32` and no residue to `f32`.
///
/// # Edge cases
/// As [`split_master`].
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type or is on another
/// device, or if `residue` is missing on a GPU.
///
/// # Determinism
/// Exact.
///
/// # Source
/// As [`split_master`].
pub fn join_master(param: &Tensor, residue: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "join_master";
    let call = master_args(OP, param, residue).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::join(gpu, param, residue.ok_or_else(|| missing_residue(OP))?),
        Device::Cpu => param.try_clone(),
    }
}

/// The two halves of master weights.
fn master_args<'a>(op: &'static str, param: &'a Tensor, residue: Option<&'a Tensor>) -> Args<'a> {
    let args = Args::new(op).act("param", param, [LEADING]);
    match residue {
        // No tensor on the CPU is `i16`, so that a residue there is refused.
        Some(residue) => args.typed("residue", residue, DType::I16, [LEADING]),
        None => args,
    }
}

fn missing_residue(op: &'static str) -> KernelError {
    KernelError::value(op, "residue", "the low halves of the master weights", "missing")
}

/// Whether this factor makes a step change nothing, as far as the host knows.
fn is_skipped(grad_scale: &GradScale) -> bool {
    grad_scale.known().is_some_and(|scale| !scale.is_finite())
}

fn check_options(op: &'static str, options: &AdamwOptions, step: u64) -> Result<()> {
    if step == 0 {
        return Err(KernelError::value(op, "step", "at least 1", step));
    }
    for (name, beta) in [("beta1", options.beta1), ("beta2", options.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return Err(KernelError::value(op, name, "at least 0 and below 1", beta));
        }
    }
    Ok(())
}
