//! The gated activation on a GPU.

use super::SwigluGrads;
use crate::cuda::elementwise::{THREADS, grid};
use crate::cuda::{Gpu, Module};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module =
    Module { name: "swiglu", source: include_str!("swiglu.cu"), variants: &[&[]] };

pub(super) fn forward(gpu: &Gpu, gate: &Tensor, up: &Tensor, out: &mut Tensor) -> Result<()> {
    let kernel = gpu.kernel(&MODULE, "swiglu_fwd", &[])?;
    let len = gate.len();
    kernel.launch(grid(len), THREADS).input(gate).input(up).output(out).i64(len).run()
}

pub(super) fn backward(
    gpu: &Gpu,
    dout: &Tensor,
    gate: &Tensor,
    up: &Tensor,
    dgate: &mut Tensor,
    dup: &mut Tensor,
) -> Result<()> {
    let kernel = gpu.kernel(&MODULE, "swiglu_bwd", &[])?;
    let len = gate.len();
    let launch = kernel.launch(grid(len), THREADS).input(dout).input(gate).input(up);
    launch.accumulate(dgate).accumulate(dup).null().i64(len).run()
}

/// The activation takes the place of `dout`.
pub(super) fn backward_with_out(
    gpu: &Gpu,
    mut dout: Tensor,
    gate: &Tensor,
    up: &Tensor,
) -> Result<SwigluGrads> {
    let kernel = gpu.kernel(&MODULE, "swiglu_bwd", &[])?;
    let [mut dgate, mut dup] = [Tensor::zeros_like(gate), Tensor::zeros_like(gate)];
    let len = gate.len();
    // In place first: it may move `dout` to memory of its own.
    dout.device_in_place()?;
    let launch = kernel.launch(grid(len), THREADS).input(&dout).input(gate).input(up);
    launch.accumulate(&mut dgate).accumulate(&mut dup).in_place(&mut dout).i64(len).run()?;
    Ok(SwigluGrads { dgate, dup, out: dout })
}
