//! Gates on the CPU. The rows of a branch lie 3 rows apart, which a matrix product takes as a row
//! stride.

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::GateBranch;
use crate::cpu::elementwise::{CHUNK, rows_per_chunk};
use crate::cpu::gemm::{Matrix, MatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{axpy_simd, dispatch, dot_simd, sigmoid_simd};

pub(super) fn forward(
    x: &[f32],
    g_proj: &[f32],
    branch: GateBranch,
    heads: usize,
    gate: &mut [f32],
) {
    let rows = branch_rows(g_proj, branch, heads);
    let tokens = gate.len() / heads;
    matmul(
        MatrixMut::new(gate, tokens, heads),
        Output::Overwrite,
        1.0,
        Matrix::new(x, tokens, hidden(g_proj, heads)),
        rows.t(),
        Threads::All,
    );
    gate.par_chunks_mut(CHUNK).for_each(|gate| dispatch(Sigmoid(gate)));
}

/// The gradient before the sigmoid.
pub(super) fn sigmoid_backward(dgate: &[f32], gate: &[f32]) -> Vec<f32> {
    dgate
        .par_iter()
        .zip(gate)
        .with_min_len(CHUNK)
        .map(|(dgate, gate)| dgate * gate * (1.0 - gate))
        .collect()
}

pub(super) fn backward_input(
    ds: &[f32],
    g_proj: &[f32],
    branch: GateBranch,
    heads: usize,
    dx: &mut [f32],
) {
    let tokens = ds.len() / heads;
    matmul(
        MatrixMut::new(dx, tokens, hidden(g_proj, heads)),
        Output::Add,
        1.0,
        Matrix::new(ds, tokens, heads),
        branch_rows(g_proj, branch, heads),
        Threads::All,
    );
}

pub(super) fn backward_weight(
    ds: &[f32],
    x: &[f32],
    branch: GateBranch,
    heads: usize,
    dg_proj: &mut [f32],
) {
    let tokens = ds.len() / heads;
    let hidden = hidden(dg_proj, heads);
    let rows = &mut dg_proj[branch.first_row() * hidden..];
    matmul(
        MatrixMut::with_row_stride(rows, heads, hidden, 3 * hidden),
        Output::Add,
        1.0,
        Matrix::new(ds, tokens, heads).t(),
        Matrix::new(x, tokens, hidden),
        Threads::All,
    );
}

fn branch_rows(g_proj: &[f32], branch: GateBranch, heads: usize) -> Matrix<'_> {
    let hidden = hidden(g_proj, heads);
    Matrix::with_row_stride(&g_proj[branch.first_row() * hidden..], heads, hidden, 3 * hidden)
}

fn hidden(g_proj: &[f32], heads: usize) -> usize {
    g_proj.len() / (3 * heads)
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

/// What the forward pass saw.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) out: &'a [f32],
    pub(super) gate: &'a [f32],
    pub(super) head_dim: usize,
}

pub(super) fn apply_backward(
    saved: Saved<'_>,
    dgated: &[f32],
    dout: &mut [f32],
    dgate: &mut [f32],
) {
    let Saved { out, gate, head_dim } = saved;
    let heads = rows_per_chunk(head_dim);
    let chunk = heads * head_dim;
    dout.par_chunks_mut(chunk)
        .zip(dgate.par_chunks_mut(heads))
        .zip(dgated.par_chunks(chunk))
        .zip(out.par_chunks(chunk))
        .zip(gate.par_chunks(heads))
        .for_each(|((((dout, dgate), dgated), out), gate)| {
            dispatch(ApplyBackward { saved: Saved { out, gate, head_dim }, dgated, dout, dgate });
        });
}

struct ApplyBackward<'a> {
    saved: Saved<'a>,
    dgated: &'a [f32],
    dout: &'a mut [f32],
    dgate: &'a mut [f32],
}

impl WithSimd for ApplyBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Saved { out, gate, head_dim } = self.saved;
        let inputs = self.dgated.chunks_exact(head_dim).zip(out.chunks_exact(head_dim)).zip(gate);
        let outputs = self.dout.chunks_exact_mut(head_dim).zip(self.dgate);
        for (((dgated, out), &gate), (dout, dgate)) in inputs.zip(outputs) {
            axpy_simd(simd, dout, gate, dgated);
            *dgate += dot_simd(simd, dgated, out);
        }
    }
}
