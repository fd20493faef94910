//! The gated activation of the feed-forward layer.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::checks::{check_shape, dtypes, same_device};
use crate::{DType, Device, Result, Tensor};

/// `out = silu(gate) * up` with `silu(x) = x sigmoid(x)`.
///
/// # Shapes
/// `gate`, `up` `[B, T, F]` (any shape); returns the same.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the sigmoid has a relative error below 4e-7 in `f32`.
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
    const OP: &str = "swiglu_fwd";
    check_shape(OP, "up", up, gate.shape())?;
    same_device(OP, gate, &[("up", up)])?;
    let mut out = Tensor::for_output_like(gate, gate.shape());
    match gate.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &[("gate", gate, DType::Bf16), ("up", up, DType::Bf16)])?;
            cuda::forward(&gpu, gate, up, &mut out)?;
        }
        Device::Cpu => cpu::forward(gate.as_slice(), up.as_slice(), out.as_mut_slice()),
    }
    Ok(out)
}

/// Gradients `dup += dout silu(gate)` and `dgate += dout up s (1 + gate (1 - s))` with `s =
/// sigmoid(gate)`.
///
/// # Shapes
/// All tensors have the shape of `gate`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU. The sigmoid is computed again rather than stored: the op reads memory
/// faster than it could reread it.
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
    same_device(OP, gate, &[("dout", dout), ("up", up), ("dgate", dgate), ("dup", dup)])?;
    match gate.device() {
        Device::Cuda(gpu) => {
            let bf16 = DType::Bf16;
            dtypes(OP, &[("dout", dout, bf16), ("gate", gate, bf16), ("up", up, bf16)])?;
            dtypes(OP, &[("dgate", dgate, bf16), ("dup", dup, bf16)])?;
            cuda::backward(&gpu, dout, gate, up, dgate, dup)?;
        }
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

/// What [`swiglu_bwd_with_out`] returns.
#[derive(Clone, Debug)]
pub struct SwigluGrads {
    /// Gradient of `gate`.
    pub dgate: Tensor,
    /// Gradient of `up`.
    pub dup: Tensor,
    /// The result of the forward pass, computed again: what the gradient of the next weight needs.
    pub out: Tensor,
}

/// The gradients of [`swiglu_bwd`] from zero, and the result of the forward pass once more.
///
/// Who keeps `gate` and `up` but not their product needs all three; one pass gives them. On a GPU
/// `out` takes the buffer of `dout`: 12 bytes an element instead of 16, and one buffer less.
///
/// # Shapes
/// All tensors have the shape of `gate`.
///
/// # Dtypes
/// As [`swiglu_bwd`].
///
/// # Errors
/// [`KernelError::Shape`](crate::KernelError::Shape) if the shapes differ.
///
/// # Determinism
/// As [`swiglu_fwd`].
pub fn swiglu_bwd_with_out(dout: Tensor, gate: &Tensor, up: &Tensor) -> Result<SwigluGrads> {
    const OP: &str = "swiglu_bwd_with_out";
    check_shape(OP, "dout", &dout, gate.shape())?;
    check_shape(OP, "up", up, gate.shape())?;
    same_device(OP, gate, &[("dout", &dout), ("up", up)])?;
    match gate.device() {
        Device::Cuda(gpu) => {
            let bf16 = DType::Bf16;
            dtypes(OP, &[("dout", &dout, bf16), ("gate", gate, bf16), ("up", up, bf16)])?;
            cuda::backward_with_out(&gpu, dout, gate, up)
        }
        Device::Cpu => {
            let [mut dgate, mut dup] = [Tensor::zeros_like(gate), Tensor::zeros_like(gate)];
            swiglu_bwd(&dout, gate, up, &mut dgate, &mut dup)?;
            Ok(SwigluGrads { dgate, dup, out: swiglu_fwd(gate, up)? })
        }
    }
}
