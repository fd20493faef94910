//! The optimizer's update on split master weights, with clipping and the decision to skip.

use ssa_kernels::ops::adamw::{
    AdamwOptions, Moments, adamw_step, join_master, reference, split_master,
};
use ssa_kernels::ops::grad_norm::{GradScale, clip_factor, clipped_grad_norm};
use ssa_kernels::{DType, Device, Scalars, Tensor};

use super::grad_norm::norm_of;
use crate::{Context, Result};

const OPTIONS: AdamwOptions =
    AdamwOptions { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for len in [1, 9, 4097, 100_000] {
        context.case(format!("{len} elements"));
        splitting(context, len)?;
        several_steps(context, len)?;
    }
    Ok(())
}

/// Any `f32` survives, and the parameter is a nearest `bf16`.
fn splitting(context: &mut Context<'_>, len: usize) -> Result<()> {
    let bits = context.random().below(u32::MAX, len);
    let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    let master = context.f32_tensor(values.clone(), &[len])?;
    let (param, residue) = split_master(&master)?;
    let joined = join_master(&param, residue.as_ref())?.to_vec()?;
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let wrong = values.iter().zip(&joined).filter(|(a, b)| !same(**a, **b)).count();
    context.check("split and joined", wrong);
    let params = param.to_vec()?;
    let far = values.iter().zip(&params).filter(|(value, param)| {
        let distance = |to: f32| (f64::from(**value) - f64::from(to)).abs();
        let nearest = half::bf16::from_f32(**value).to_f32();
        value.is_nan() != param.is_nan()
            || nearest.is_finite() && distance(**param) > distance(nearest)
    });
    context.check("parameters are not nearest", far.count());
    Ok(())
}

fn several_steps(context: &mut Context<'_>, len: usize) -> Result<()> {
    let values = context.random().normal(len);
    let master = context.f32_tensor(values.clone(), &[len])?;
    let (mut param, mut residue) = split_master(&master)?;
    let device = context.device();
    let mut m = Tensor::zeros_on(device, DType::F32, [len])?;
    let mut v = Tensor::zeros_like(&m)?;
    let zeros = vec![0.0; len];
    let param_exact = values.iter().map(|&value| f64::from(value)).collect();
    let mut state = reference::State { param: param_exact, m: zeros.clone(), v: zeros };
    for step in 1..=4 {
        let grads = context.random().normal(len);
        let exact: Vec<f64> = grads.iter().map(|&value| f64::from(value)).collect();
        let grad = context.f32_tensor(grads, &[len])?;
        // A known factor, and one that the device computes.
        let (scale, factor) = if step % 2 == 0 {
            let (norm, scale) = clipped_grad_norm([&grad], 0.5, &Scalars::new(device))?;
            (scale, clip_factor(norm.value()?, 0.5))
        } else {
            (GradScale::new(0.25), 0.25)
        };
        let moments = Moments { m: &mut m, v: &mut v };
        adamw_step(&mut param, residue.as_mut(), &grad, moments, &OPTIONS, step, &scale)?;
        reference::step(&mut state, &exact, &OPTIONS, step, f64::from(factor))?;
    }
    context.compare_f32("m", &m, &state.m)?;
    context.compare_f32("v", &v, &state.v)?;
    let joined = join_master(&param, residue.as_ref())?;
    context.compare_f32("master", &joined, &state.param)?;
    if matches!(device, Device::Cuda(_)) {
        let plain: Vec<f64> = crate::round(&state.param);
        context.compare("param", &param, &state.param, &plain)?;
    }

    // A gradient that is not finite, and a loss that is not.
    let good = context.f32_tensor(vec![1.0; len], &[len])?;
    let bad = context.f32_tensor(vec![f32::NAN; len], &[len])?;
    let mut losses = Scalars::new(device);
    for (what, grad, loss) in [("NaN", &bad, 1.0), ("a NaN loss", &good, f32::NAN)] {
        losses.push(&norm_of(context, loss)?)?;
        let (_, scale) = clipped_grad_norm([grad], 1.0, &losses)?;
        let (param_before, m_before) = (param.try_clone()?, m.try_clone()?);
        let moments = Moments { m: &mut m, v: &mut v };
        adamw_step(&mut param, residue.as_mut(), grad, moments, &OPTIONS, 5, &scale)?;
        context.compare_bits(&format!("a step with {what}: param"), &param, &param_before)?;
        context.compare_bits(&format!("a step with {what}: m"), &m, &m_before)?;
    }
    Ok(())
}
