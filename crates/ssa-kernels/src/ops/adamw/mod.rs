//! The AdamW optimiser: Adam with decoupled weight decay.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::check_shape;
use crate::{Device, KernelError, Result, Tensor};

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
    /// Weight decay, decoupled: multiplied by the learning rate, not by the gradient's scale. Zero for
    /// tensors that do not decay.
    pub weight_decay: f32,
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
/// # Shapes
/// All four tensors have the shape of `param`. `m` and `v` are zeros before the first step.
///
/// # Dtypes
/// `f32`; bias corrections in `f64`.
///
/// # Edge cases
/// A NaN in the gradient reaches the parameter: skip such a step before calling.
///
/// # Errors
/// [`KernelError::Shape`] if the shapes differ, [`KernelError::Value`] if `step` is 0 (steps count from 1) or
/// a beta is not in `0..1`.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: elements are independent.
///
/// # Source
/// <https://arxiv.org/abs/1711.05101>, algorithm 2, in the form of `torch.optim.AdamW`.
pub fn adamw_step(
    param: &mut Tensor,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    options: &AdamwOptions,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    const OP: &str = "adamw_step";
    check_shape(OP, "grad", grad, param.shape())?;
    check_shape(OP, "m", m, param.shape())?;
    check_shape(OP, "v", v, param.shape())?;
    if step == 0 {
        return Err(KernelError::value(OP, "step", "at least 1", step));
    }
    for (name, beta) in [("beta1", options.beta1), ("beta2", options.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return Err(KernelError::value(OP, name, "at least 0 and below 1", beta));
        }
    }
    match param.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::step(
            param.as_mut_slice(),
            grad.as_slice(),
            m.as_mut_slice(),
            v.as_mut_slice(),
            cpu::Coefficients::new(options, step, grad_scale),
        ),
    }
    Ok(())
}
