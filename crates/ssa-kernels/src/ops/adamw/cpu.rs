//! The update on the CPU: one pass over four buffers, which memory bounds; chunks in parallel.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::AdamwOptions;
use crate::cpu::elementwise::CHUNK;
use crate::cpu::simd::dispatch;

/// What every element of a step shares, computed in `f64`.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    grad_scale: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// `1 - lr weight_decay`.
    keep: f32,
    /// `lr / (1 - beta1^t)`.
    step_size: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    v_correction: f32,
    eps: f32,
}

impl Coefficients {
    pub(super) fn new(options: &AdamwOptions, step: u64, grad_scale: f32) -> Self {
        let [lr, beta1, beta2, weight_decay] =
            [options.lr, options.beta1, options.beta2, options.weight_decay].map(f64::from);
        Self {
            grad_scale,
            beta1: options.beta1,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: options.beta2,
            one_minus_beta2: (1.0 - beta2) as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            step_size: (lr / (1.0 - beta1.powf(step as f64))) as f32,
            v_correction: (1.0 - beta2.powf(step as f64)).sqrt().recip() as f32,
            eps: options.eps,
        }
    }
}

pub(super) fn step(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    coefficients: Coefficients,
) {
    param
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .for_each(|(((param, grad), m), v)| dispatch(Step { param, grad, m, v, coefficients }));
}

struct Step<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    coefficients: Coefficients,
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.coefficients;
        let state = self.param.iter_mut().zip(self.m).zip(self.v);
        for (((param, m), v), grad) in state.zip(self.grad) {
            let g = grad * c.grad_scale;
            *m = c.beta1 * *m + c.one_minus_beta1 * g;
            *v = c.beta2 * *v + c.one_minus_beta2 * (g * g);
            *param = c.keep * *param - c.step_size * *m / (v.sqrt() * c.v_correction + c.eps);
        }
    }
}
