//! The update on a GPU: one pass over parameters, residues, gradient and moments.

use half::bf16;

use super::{Coefficients, Moments};
use crate::cuda::elementwise::THREADS;
use crate::cuda::{Gpu, Input, Module, Output, constants, kernel, structs};
use crate::ops::grad_norm::GradScale;
use crate::{DType, Device, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "adamw",
    source: include_str!("adamw.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![AdamW, SplitMaster, JoinMaster],
    variants: &[&[]],
};

kernel! {
    /// One update of a tensor; the coefficients are those of [`Coefficients`].
    "adamw" in MODULE:
    struct AdamW<'a> {
        param: Output<'a, bf16>,
        residue: Output<'a, i16>,
        grad: Input<'a, f32>,
        m: Output<'a, f32>,
        v: Output<'a, f32>,
        /// A further factor of the gradient.
        clip: Option<Input<'a, f32>>,
        grad_scale: f32,
        beta1: f32,
        one_minus_beta1: f32,
        beta2: f32,
        one_minus_beta2: f32,
        keep: f32,
        step_size: f32,
        v_correction: f32,
        eps: f32,
        len: i64,
    }
}

kernel! {
    /// Splits `f32` masters in two halves.
    "split_master" in MODULE:
    struct SplitMaster<'a> {
        master: Input<'a, f32>,
        param: Output<'a, bf16>,
        residue: Output<'a, i16>,
        len: i64,
    }
}

kernel! {
    /// Joins the halves of masters.
    "join_master" in MODULE:
    struct JoinMaster<'a> {
        param: Input<'a, bf16>,
        residue: Input<'a, i16>,
        master: Output<'a, f32>,
        len: i64,
    }
}

pub(super) fn step(
    gpu: &Gpu,
    param: &mut Tensor,
    residue: &mut Tensor,
    grad: &Tensor,
    moments: Moments<'_>,
    coefficients: Coefficients,
    grad_scale: &GradScale,
) -> Result<()> {
    gpu.launch_pieces(param.len(), |len| {
        Ok(AdamW {
            param: param.in_place()?,
            residue: residue.in_place()?,
            grad: grad.input()?,
            m: moments.m.in_place()?,
            v: moments.v.in_place()?,
            clip: grad_scale.input("adamw_step", gpu)?,
            grad_scale: grad_scale.known().unwrap_or(1.0),
            beta1: coefficients.beta1,
            one_minus_beta1: coefficients.one_minus_beta1,
            beta2: coefficients.beta2,
            one_minus_beta2: coefficients.one_minus_beta2,
            keep: coefficients.keep,
            step_size: coefficients.step_size,
            v_correction: coefficients.v_correction,
            eps: coefficients.eps,
            len,
        })
    })
}

pub(super) fn split(gpu: &Gpu, master: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = Device::Cuda(gpu.clone());
    let half = |dtype| Tensor::for_output_on(&device, dtype, master.shape());
    let (mut param, mut residue) = (half(DType::Bf16)?, half(DType::I16)?);
    gpu.launch_pieces(master.len(), |len| {
        Ok(SplitMaster {
            master: master.input()?,
            param: param.output()?,
            residue: residue.output()?,
            len,
        })
    })?;
    Ok((param, residue))
}

pub(super) fn join(gpu: &Gpu, param: &Tensor, residue: &Tensor) -> Result<Tensor> {
    let mut master = Tensor::for_output_on(&Device::Cuda(gpu.clone()), DType::F32, param.shape())?;
    gpu.launch_pieces(param.len(), |len| {
        Ok(JoinMaster {
            param: param.input()?,
            residue: residue.input()?,
            master: master.output()?,
            len,
        })
    })?;
    Ok(master)
}
