//! The update on the CPU: one memory-bound pass over four buffers, chunks in parallel.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Coefficients;
use crate::cpu::elementwise::CHUNK;
use crate::cpu::simd::dispatch;

pub(super) fn step(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    coefficients: Coefficients,
    grad_scale: f32,
) {
    param
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .for_each(|(((param, grad), m), v)| {
            dispatch(Step { param, grad, m, v, coefficients, grad_scale })
        });
}

struct Step<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    coefficients: Coefficients,
    grad_scale: f32,
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.coefficients;
        let state = self.param.iter_mut().zip(self.m).zip(self.v);
        for (((param, m), v), grad) in state.zip(self.grad) {
            let g = grad * self.grad_scale;
            *m = c.beta1 * *m + c.one_minus_beta1 * g;
            *v = c.beta2 * *v + c.one_minus_beta2 * (g * g);
            *param = c.keep * *param - c.step_size * *m / (v.sqrt() * c.v_correction + c.eps);
        }
    }
}
