//! The AdamW optimiser: Adam with decoupled weight decay.

mod coefficients;
mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use self::coefficients::Coefficients;
use crate::checks::{check_shape, dtypes, same_device};
use crate::ops::grad_norm::GradScale;
use crate::{DType, Device, KernelError, Result, Tensor};

/// Settings of one update. They may change from step to step and from tensor to tensor.
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

/// Decayed means of a tensor's gradient and of its square.
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
/// On a GPU `param` is the `bf16` part of a master weight, and `residue` what [`split_master`] cut
/// off: the master is updated, in `f32`, and split again.
///
/// # Shapes
/// All tensors have the shape of `param`. The moments are zeros before the first step.
///
/// # Dtypes
/// `f32`; bias corrections in `f64`. On a GPU `param` is `bf16` and `residue` `i16`.
///
/// # Edge cases
/// A NaN in the gradient reaches the parameter: skip such a step before calling. Or leave that to
/// `grad_scale`: where it is not finite, nothing changes, and
/// [`clipped_grad_norm`](crate::ops::grad_norm::clipped_grad_norm) makes it so.
///
/// # Errors
/// [`KernelError::Shape`] if the shapes differ. [`KernelError::Value`] if `step` is 0 (steps count
/// from 1) or a beta is not in `0..1`; if `residue` is missing on a GPU, or given on the CPU.
/// [`KernelError::Device`] if the tensors, or a scale that a GPU computes, do not lie on one
/// device.
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
    check(param, grad, &moments, options, step)?;
    if grad_scale.known().is_some_and(|scale| !scale.is_finite()) {
        return Ok(());
    }
    let coefficients = Coefficients::new(options, step);
    match (param.device(), residue) {
        (Device::Cuda(gpu), Some(residue)) => {
            check_master(OP, param, residue)?;
            let (m, v) = (&*moments.m, &*moments.v);
            dtypes(OP, &[("grad", grad, DType::F32), ("m", m, DType::F32), ("v", v, DType::F32)])?;
            cuda::step(&gpu, param, residue, grad, moments, coefficients, grad_scale)
        }
        (Device::Cuda(_), None) => {
            Err(KernelError::value(OP, "residue", "the rest of the master weights", "none"))
        }
        (Device::Cpu, None) => {
            let Some(grad_scale) = grad_scale.known() else {
                let (expected, actual) = (Device::Cpu.to_string(), "a GPU".to_owned());
                return Err(KernelError::Device {
                    op: OP,
                    argument: "grad_scale",
                    expected,
                    actual,
                });
            };
            let (m, v) = (moments.m.as_mut_slice(), moments.v.as_mut_slice());
            cpu::step(param.as_mut_slice(), grad.as_slice(), m, v, coefficients, grad_scale);
            Ok(())
        }
        (Device::Cpu, Some(_)) => {
            Err(KernelError::value(OP, "residue", "none: the CPU keeps weights in f32", "some"))
        }
    }
}

/// Splits `f32` master weights for a GPU: `bf16` parameters, which are the masters rounded to the
/// nearest, half away from zero, and the 16 bits that are missing in them, as signed integers.
/// Nothing is lost: the bits of a master are `(param << 16) + residue`. On the CPU the master
/// weights are the parameters.
///
/// # Shapes
/// Any.
///
/// # Dtypes
/// `f32` to `bf16` and `i16`.
///
/// # Edge cases
/// A NaN stays one; which of them is lost. A number that `bf16` rounds to infinity has an infinite
/// parameter and an exact master.
///
/// # Errors
/// [`KernelError::Value`] if the elements are not `f32`.
///
/// # Determinism
/// Exact.
pub fn split_master(master: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    match master.device() {
        Device::Cuda(gpu) => {
            dtypes("split_master", &[("master", master, DType::F32)])?;
            let (param, residue) = cuda::split(&gpu, master)?;
            Ok((param, Some(residue)))
        }
        Device::Cpu => Ok((master.clone(), None)),
    }
}

/// The master weights that [`split_master`] has split, `f32` on the same device.
///
/// # Errors
/// [`KernelError::Shape`] if the shapes differ, [`KernelError::Value`] if `residue` is missing on a
/// GPU, given on the CPU or one of the two has the wrong type.
///
/// # Determinism
/// Exact.
pub fn join_master(param: &Tensor, residue: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "join_master";
    match (param.device(), residue) {
        (Device::Cuda(gpu), Some(residue)) => {
            check_master(OP, param, residue)?;
            cuda::join(&gpu, param, residue)
        }
        (Device::Cpu, None) => Ok(param.clone()),
        (Device::Cuda(_), None) => {
            Err(KernelError::value(OP, "residue", "the rest of the master weights", "none"))
        }
        (Device::Cpu, Some(_)) => {
            Err(KernelError::value(OP, "residue", "none: the CPU keeps weights in f32", "some"))
        }
    }
}

fn check(
    param: &Tensor,
    grad: &Tensor,
    moments: &Moments<'_>,
    options: &AdamwOptions,
    step: u64,
) -> Result<()> {
    const OP: &str = "adamw_step";
    let others = [("grad", grad), ("m", &*moments.m), ("v", &*moments.v)];
    for (name, tensor) in others {
        check_shape(OP, name, tensor, param.shape())?;
    }
    same_device(OP, param, &others)?;
    if step == 0 {
        return Err(KernelError::value(OP, "step", "at least 1", step));
    }
    for (name, beta) in [("beta1", options.beta1), ("beta2", options.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return Err(KernelError::value(OP, name, "at least 0 and below 1", beta));
        }
    }
    Ok(())
}

/// The two halves of master weights on a GPU fit.
fn check_master(op: &'static str, param: &Tensor, residue: &Tensor) -> Result<()> {
    check_shape(op, "residue", residue, param.shape())?;
    same_device(op, param, &[("residue", residue)])?;
    dtypes(op, &[("param", param, DType::Bf16), ("residue", residue, DType::I16)])
}
