//! The gated activation of the feed-forward layer.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::check_shape;
use crate::{Device, KernelError, Result, Tensor};

/// `out = silu(gate) * up` with `silu(x) = x sigmoid(x)`.
///
/// # Shapes
/// `gate`, `up` `[B, T, F]` (any shape); returns the same.
///
/// # Dtypes
/// `f32`; the sigmoid has a relative error below 4e-7.
///
/// # Edge cases
/// No overflow for any finite `gate`. NaN stays NaN.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the shapes differ.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: elements are independent.
///
/// # Source
/// `LlamaMLP` of the released model; <https://arxiv.org/abs/2002.05202>, equation 5.
pub fn swiglu_fwd(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check_shape("swiglu_fwd", "up", up, gate.shape())?;
    let mut out = Tensor::for_output(gate.shape());
    match gate.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::forward(gate.as_slice(), up.as_slice(), out.as_mut_slice()),
    }
    Ok(out)
}

/// Gradients `dup += dout silu(gate)` and `dgate += dout up s (1 + gate (1 - s))` with `s = sigmoid(gate)`.
///
/// # Shapes
/// All tensors have the shape of `gate`.
///
/// # Dtypes
/// `f32`. The sigmoid is computed again rather than stored: the op reads memory faster than it could reread
/// it.
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the shapes differ.
///
/// # Determinism
/// As [`swiglu_fwd`].
pub fn swiglu_bwd(
    dout: &Tensor,
    gate: &Tensor,
    up: &Tensor,
    dgate: &mut Tensor,
    dup: &mut Tensor,
) -> Result<()> {
    const OP: &str = "swiglu_bwd";
    check_shape(OP, "dout", dout, gate.shape())?;
    check_shape(OP, "up", up, gate.shape())?;
    check_shape(OP, "dgate", dgate, gate.shape())?;
    check_shape(OP, "dup", dup, gate.shape())?;
    match gate.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::backward(
            dout.as_slice(),
            gate.as_slice(),
            up.as_slice(),
            dgate.as_mut_slice(),
            dup.as_mut_slice(),
        ),
    }
    Ok(())
}
