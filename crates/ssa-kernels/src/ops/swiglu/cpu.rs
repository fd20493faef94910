//! The gated activation on the CPU: one pass over memory, chunks in parallel.

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::elementwise::CHUNK;
use crate::cpu::simd::{dispatch, sigmoid_simd};

pub(super) fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .for_each(|((out, gate), up)| dispatch(Forward { gate, up, out }));
}

pub(super) fn backward(dout: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    dgate
        .par_chunks_mut(CHUNK)
        .zip(dup.par_chunks_mut(CHUNK))
        .zip(dout.par_chunks(CHUNK))
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .for_each(|((((dgate, dup), dout), gate), up)| {
            dispatch(Backward { dout, gate, up, dgate, dup })
        });
}

/// Slices of vectors, or of the `f32` left over when `T = f32`.
struct Forward<'a, T = f32> {
    gate: &'a [T],
    up: &'a [T],
    out: &'a mut [T],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_tail) = S::as_simd_f32s(self.gate);
        let (up, up_tail) = S::as_simd_f32s(self.up);
        let (out, out_tail) = S::as_mut_simd_f32s(self.out);
        Forward { gate, up, out }.run(simd);
        Forward { gate: gate_tail, up: up_tail, out: out_tail }.run(Scalar);
    }
}

impl<T: Copy> Forward<'_, T> {
    #[inline(always)]
    fn run<S: Simd<f32s = T>>(self, simd: S) {
        for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            let silu = simd.mul_f32s(gate, sigmoid_simd(simd, gate));
            *out = simd.mul_f32s(silu, up);
        }
    }
}

/// Slices of vectors, or of the `f32` left over when `T = f32`.
struct Backward<'a, T = f32> {
    dout: &'a [T],
    gate: &'a [T],
    up: &'a [T],
    dgate: &'a mut [T],
    dup: &'a mut [T],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (dout, dout_tail) = S::as_simd_f32s(self.dout);
        let (gate, gate_tail) = S::as_simd_f32s(self.gate);
        let (up, up_tail) = S::as_simd_f32s(self.up);
        let (dgate, dgate_tail) = S::as_mut_simd_f32s(self.dgate);
        let (dup, dup_tail) = S::as_mut_simd_f32s(self.dup);
        Backward { dout, gate, up, dgate, dup }.run(simd);
        let tail = Backward {
            dout: dout_tail,
            gate: gate_tail,
            up: up_tail,
            dgate: dgate_tail,
            dup: dup_tail,
        };
        tail.run(Scalar);
    }
}

impl<T: Copy> Backward<'_, T> {
    #[inline(always)]
    fn run<S: Simd<f32s = T>>(self, simd: S) {
        let one = simd.splat_f32s(1.0);
        let inputs = self.dout.iter().zip(self.gate).zip(self.up);
        for (((&dout, &gate), &up), (dgate, dup)) in inputs.zip(self.dgate.iter_mut().zip(self.dup))
        {
            let s = sigmoid_simd(simd, gate);
            let slope = simd.mul_f32s(s, simd.mul_add_f32s(gate, simd.sub_f32s(one, s), one));
            *dgate = simd.mul_add_f32s(simd.mul_f32s(dout, up), slope, *dgate);
            *dup = simd.mul_add_f32s(simd.mul_f32s(dout, gate), s, *dup);
        }
    }
}
