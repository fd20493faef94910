//! The update on a GPU: one pass over parameters, residues, gradient and moments.

use super::{Coefficients, Moments};
use crate::cuda::elementwise::{THREADS, grid};
use crate::cuda::{Gpu, Module};
use crate::ops::grad_norm::GradScale;
use crate::{DType, Device, Result, Tensor};

pub(crate) static MODULE: Module =
    Module { name: "adamw", source: include_str!("adamw.cu"), variants: &[&[]] };

pub(super) fn step(
    gpu: &Gpu,
    param: &mut Tensor,
    residue: &mut Tensor,
    grad: &Tensor,
    moments: Moments<'_>,
    c: Coefficients,
    grad_scale: &GradScale,
) -> Result<()> {
    let kernel = gpu.kernel(&MODULE, "adamw", &[])?;
    let len = param.len();
    let launch = kernel.launch(grid(len), THREADS).in_place(param).in_place(residue).input(grad);
    let launch = launch.in_place(moments.m).in_place(moments.v);
    let launch = launch.optional(grad_scale.buffer()).f32(grad_scale.known().unwrap_or(1.0));
    let launch = launch.f32(c.beta1).f32(c.one_minus_beta1).f32(c.beta2).f32(c.one_minus_beta2);
    launch.f32(c.keep).f32(c.step_size).f32(c.v_correction).f32(c.eps).i64(len).run()
}

pub(super) fn split(gpu: &Gpu, master: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = Device::Cuda(gpu.clone());
    let half = |dtype| Tensor::for_output_on(&device, dtype, master.shape());
    let (mut param, mut residue) = (half(DType::Bf16)?, half(DType::I16)?);
    let len = master.len();
    let kernel = gpu.kernel(&MODULE, "split_master", &[])?;
    let launch = kernel.launch(grid(len), THREADS).input(master);
    launch.output(&mut param).output(&mut residue).i64(len).run()?;
    Ok((param, residue))
}

pub(super) fn join(gpu: &Gpu, param: &Tensor, residue: &Tensor) -> Result<Tensor> {
    let mut master = Tensor::for_output_on(&Device::Cuda(gpu.clone()), DType::F32, param.shape())?;
    let len = param.len();
    let kernel = gpu.kernel(&MODULE, "join_master", &[])?;
    let launch = kernel.launch(grid(len), THREADS).input(param).input(residue);
    launch.output(&mut master).i64(len).run()?;
    Ok(master)
}
