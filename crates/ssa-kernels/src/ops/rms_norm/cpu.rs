//! RMSNorm on the CPU: rows in parallel, each in two vectorized passes while it is in the first
//! cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::Result;
use crate::cpu::elementwise::rows_per_chunk;
use crate::cpu::simd::{dispatch, dot_simd};
use crate::host_memory::zeros;

/// Rows that share one partial sum of `dweight`. The sum of so few terms is safe in `f32`, and the
/// buffer of partial sums stays below 2 % of the size of `x`.
const ROWS: usize = 64;

/// The input of the forward pass and the statistic that it saved.
#[derive(Clone, Copy)]
pub(super) struct SavedRows<'a> {
    pub(super) x: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) rstd: &'a [f32],
}

pub(super) fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
    let rows = rows_per_chunk(weight.len());
    let chunk = rows * weight.len();
    out.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .zip(rstd.par_chunks_mut(rows))
        .for_each(|((out, x), rstd)| dispatch(Forward { x, weight, eps, out, rstd }));
}

/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn backward(
    saved: SavedRows<'_>,
    dout: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) -> Result<()> {
    let SavedRows { x, weight, rstd } = saved;
    let hidden = weight.len();
    let chunk = ROWS * hidden;
    let mut partials = zeros::<f32>(rstd.len().div_ceil(ROWS) * hidden)?;
    dx.par_chunks_mut(chunk)
        .zip(dout.par_chunks(chunk))
        .zip(x.par_chunks(chunk))
        .zip(rstd.par_chunks(ROWS))
        .zip(partials.par_chunks_exact_mut(hidden))
        .for_each(|((((dx, dout), x), rstd), dweight)| {
            dispatch(Backward { saved: SavedRows { x, weight, rstd }, dout, dx, dweight });
        });
    let mut sum: Vec<f64> = dweight.iter().map(|&value| f64::from(value)).collect();
    for partial in partials.chunks_exact(hidden) {
        for (sum, partial) in sum.iter_mut().zip(partial) {
            *sum += f64::from(*partial);
        }
    }
    for (dweight, sum) in dweight.iter_mut().zip(sum) {
        *dweight = sum as f32;
    }
    Ok(())
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.weight.len();
        let rows = self.x.chunks_exact(hidden).zip(self.out.chunks_exact_mut(hidden));
        for ((x, out), rstd) in rows.zip(self.rstd) {
            *rstd = (dot_simd(simd, x, x) / hidden as f32 + self.eps).sqrt().recip();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = x * *rstd * weight;
            }
        }
    }
}

struct Backward<'a> {
    saved: SavedRows<'a>,
    dout: &'a [f32],
    dx: &'a mut [f32],
    dweight: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let SavedRows { x, weight, rstd } = self.saved;
        let hidden = weight.len();
        let rows = x.chunks_exact(hidden).zip(self.dout.chunks_exact(hidden)).zip(rstd);
        for (((x, dout), &rstd), dx) in rows.zip(self.dx.chunks_exact_mut(hidden)) {
            let mean = dot3_simd(simd, weight, dout, x) * rstd / hidden as f32;
            let columns = x.iter().zip(dout).zip(weight).zip(dx).zip(&mut *self.dweight);
            for ((((x, dout), weight), dx), dweight) in columns {
                let xhat = x * rstd;
                *dx += rstd * (weight * dout - xhat * mean);
                *dweight += dout * xhat;
            }
        }
    }
}

/// `sum_i a[i] b[i] c[i]`.
#[inline(always)]
fn dot3_simd<S: Simd>(simd: S, a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let (a_head, a_tail) = S::as_simd_f32s(a);
    let (b_head, b_tail) = S::as_simd_f32s(b);
    let (c_head, c_tail) = S::as_simd_f32s(c);
    let mut sum = simd.splat_f32s(0.0);
    for ((a, b), c) in a_head.iter().zip(b_head).zip(c_head) {
        sum = simd.mul_add_f32s(simd.mul_f32s(*a, *b), *c, sum);
    }
    let tail: f32 = a_tail.iter().zip(b_tail).zip(c_tail).map(|((a, b), c)| a * b * c).sum();
    simd.reduce_sum_f32s(sum) + tail
}
