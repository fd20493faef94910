//! Gates on the CPU. The rows of a branch are 3 rows apart: a matrix product takes that as a row
//! stride.

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use crate::Result;
use crate::cpu::elementwise::{CHUNK, rows_per_chunk};
use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{axpy_simd, dispatch, dot_simd, sigmoid_simd};
use crate::host_memory::reserved;

/// The rows of `g_proj` `[3 * HQ, hidden]` that belong to a branch.
#[derive(Clone, Copy)]
pub(super) struct BranchRows {
    /// The first of them.
    pub(super) first: usize,
    /// Their number, HQ.
    pub(super) heads: usize,
    pub(super) hidden: usize,
}

impl BranchRows {
    fn of(self, g_proj: &[f32]) -> HostMatrix<'_> {
        let Self { first, heads, hidden } = self;
        HostMatrix::with_row_stride(&g_proj[first * hidden..], heads, hidden, 3 * hidden)
    }

    fn of_mut(self, g_proj: &mut [f32]) -> HostMatrixMut<'_> {
        let Self { first, heads, hidden } = self;
        HostMatrixMut::with_row_stride(&mut g_proj[first * hidden..], heads, hidden, 3 * hidden)
    }
}

pub(super) fn forward(x: &[f32], g_proj: &[f32], rows: BranchRows, gate: &mut [f32]) {
    let tokens = gate.len() / rows.heads;
    matmul(
        HostMatrixMut::new(gate, tokens, rows.heads),
        Output::Overwrite,
        1.0,
        HostMatrix::new(x, tokens, rows.hidden),
        rows.of(g_proj).t(),
        Threads::All,
    );
    gate.par_chunks_mut(CHUNK).for_each(|gate| dispatch(Sigmoid(gate)));
}

pub(super) fn sigmoid(scores: &[f32], gate: &mut [f32]) {
    gate.par_chunks_mut(CHUNK).zip(scores.par_chunks(CHUNK)).for_each(|(gate, scores)| {
        gate.copy_from_slice(scores);
        dispatch(Sigmoid(gate));
    });
}

/// The gradient before the sigmoid.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn sigmoid_backward(dgate: &[f32], gate: &[f32]) -> Result<Vec<f32>> {
    let mut ds = reserved(gate.len())?;
    dgate
        .par_iter()
        .zip(gate)
        .with_min_len(CHUNK)
        .map(|(dgate, gate)| dgate * gate * (1.0 - gate))
        .collect_into_vec(&mut ds);
    Ok(ds)
}

pub(super) fn backward_input(ds: &[f32], g_proj: &[f32], rows: BranchRows, dx: &mut [f32]) {
    let tokens = ds.len() / rows.heads;
    matmul(
        HostMatrixMut::new(dx, tokens, rows.hidden),
        Output::Add,
        1.0,
        HostMatrix::new(ds, tokens, rows.heads),
        rows.of(g_proj),
        Threads::All,
    );
}

pub(super) fn backward_weight(ds: &[f32], x: &[f32], rows: BranchRows, dg_proj: &mut [f32]) {
    let tokens = ds.len() / rows.heads;
    matmul(
        rows.of_mut(dg_proj),
        Output::Add,
        1.0,
        HostMatrix::new(ds, tokens, rows.heads).t(),
        HostMatrix::new(x, tokens, rows.hidden),
        Threads::All,
    );
}

struct Sigmoid<'a>(&'a mut [f32]);

impl WithSimd for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (head, tail) = S::as_mut_simd_f32s(self.0);
        for x in head {
            *x = sigmoid_simd(simd, *x);
        }
        for x in tail {
            *x = sigmoid_simd(Scalar, *x);
        }
    }
}

pub(super) fn apply_forward(out: &[f32], gate: &[f32], head_dim: usize, gated: &mut [f32]) {
    let heads = rows_per_chunk(head_dim);
    let chunk = heads * head_dim;
    gated.par_chunks_mut(chunk).zip(out.par_chunks(chunk)).zip(gate.par_chunks(heads)).for_each(
        |((gated, out), gate)| {
            let rows = gated.chunks_exact_mut(head_dim).zip(out.chunks_exact(head_dim));
            for ((gated, out), gate) in rows.zip(gate) {
                for (gated, out) in gated.iter_mut().zip(out) {
                    *gated = out * gate;
                }
            }
        },
    );
}

/// Heads and their gates, one gate for `head_dim` elements.
#[derive(Clone, Copy)]
pub(super) struct GatedHeads<'a> {
    pub(super) out: &'a [f32],
    pub(super) gate: &'a [f32],
    pub(super) head_dim: usize,
}

pub(super) fn apply_backward(
    heads: GatedHeads<'_>,
    dgated: &[f32],
    dout: &mut [f32],
    dgate: &mut [f32],
) {
    let GatedHeads { out, gate, head_dim } = heads;
    let rows = rows_per_chunk(head_dim);
    let chunk = rows * head_dim;
    dout.par_chunks_mut(chunk)
        .zip(dgate.par_chunks_mut(rows))
        .zip(dgated.par_chunks(chunk))
        .zip(out.par_chunks(chunk))
        .zip(gate.par_chunks(rows))
        .for_each(|((((dout, dgate), dgated), out), gate)| {
            let heads = GatedHeads { out, gate, head_dim };
            dispatch(ApplyBackward { heads, dgated, dout, dgate });
        });
}

struct ApplyBackward<'a> {
    heads: GatedHeads<'a>,
    dgated: &'a [f32],
    dout: &'a mut [f32],
    dgate: &'a mut [f32],
}

impl WithSimd for ApplyBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let GatedHeads { out, gate, head_dim } = self.heads;
        let inputs = self.dgated.chunks_exact(head_dim).zip(out.chunks_exact(head_dim)).zip(gate);
        let outputs = self.dout.chunks_exact_mut(head_dim).zip(self.dgate);
        for (((dgated, out), &gate), (dout, dgate)) in inputs.zip(outputs) {
            axpy_simd(simd, dout, gate, dgated);
            *dgate += dot_simd(simd, dgated, out);
        }
    }
}
