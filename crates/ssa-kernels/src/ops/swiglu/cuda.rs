//! The gated activation on a GPU.

use half::bf16;

use super::SwigluGrads;
use crate::cuda::elementwise::THREADS;
use crate::cuda::{Gpu, Gradient, Input, Module, Output, constants, kernel, structs};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "swiglu",
    source: include_str!("swiglu.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![SwigluFwd, SwigluBwd],
    variants: &[&[]],
};

kernel! {
    /// `out = silu(gate) * up`.
    "swiglu_fwd" in MODULE:
    struct SwigluFwd<'a> {
        gate: Input<'a, bf16>,
        up: Input<'a, bf16>,
        out: Output<'a, bf16>,
        len: i64,
    }
}

kernel! {
    /// Adds to both gradients and, if there is an `out`, computes the activation again.
    "swiglu_bwd" in MODULE:
    struct SwigluBwd<'a> {
        dout: Input<'a, bf16>,
        gate: Input<'a, bf16>,
        up: Input<'a, bf16>,
        dgate: Gradient<'a, bf16>,
        dup: Gradient<'a, bf16>,
        out: Option<Output<'a, bf16>>,
        len: i64,
    }
}

pub(super) fn forward(gpu: &Gpu, gate: &Tensor, up: &Tensor, out: &mut Tensor) -> Result<()> {
    gpu.launch_pieces(gate.len(), |len| {
        Ok(SwigluFwd { gate: gate.input()?, up: up.input()?, out: out.output()?, len })
    })
}

pub(super) fn backward(
    gpu: &Gpu,
    dout: &Tensor,
    gate: &Tensor,
    up: &Tensor,
    dgate: &mut Tensor,
    dup: &mut Tensor,
) -> Result<()> {
    gpu.launch_pieces(gate.len(), |len| {
        Ok(SwigluBwd {
            dout: dout.input()?,
            gate: gate.input()?,
            up: up.input()?,
            dgate: dgate.gradient()?,
            dup: dup.gradient()?,
            out: None,
            len,
        })
    })
}

/// The activation takes the place of `dout`.
pub(super) fn backward_with_out(
    gpu: &Gpu,
    mut dout: Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> Result<SwigluGrads> {
    let [mut dgate, mut dup] = [Tensor::zeros_like(gate)?, Tensor::zeros_like(gate)?];
    gpu.launch_pieces(gate.len(), |len| {
        let out = dout.in_place()?;
        Ok(SwigluBwd {
            dout: out.as_input(),
            gate: gate.input()?,
            up: up.input()?,
            dgate: dgate.gradient()?,
            dup: dup.gradient()?,
            out: Some(out),
            len,
        })
    })?;
    Ok(SwigluGrads { dgate, dup, out: dout })
}
