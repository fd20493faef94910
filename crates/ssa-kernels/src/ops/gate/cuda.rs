//! Gates on a GPU. The rows of a branch lie 3 rows apart, which a matrix product takes as a row
//! stride.

use super::GateBranch;
use crate::cuda::elementwise::{THREADS, grid};
use crate::cuda::matmul::{Matrix, MatrixMut, matmul};
use crate::cuda::{Gpu, Module};
use crate::{DType, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "gate",
    source: include_str!("gate.cu"),
    variants: &[&[], &[("HEAD_DIM", 6)], &[("HEAD_DIM", 64)], &[("HEAD_DIM", 128)]],
};

pub(super) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    g_proj: &Tensor,
    branch: GateBranch,
    gate: &mut Tensor,
) -> Result<()> {
    let (tokens, heads, hidden) = (gate.rows(), gate.last_dim(), x.last_dim());
    let rows = branch_rows(g_proj, branch, heads)?;
    let out = MatrixMut::output(gate, [tokens, heads])?;
    matmul(gpu, out, 1.0, Matrix::new(x, [tokens, hidden])?, rows.t())?;
    let len = gate.len();
    gpu.kernel(&MODULE, "gate_sigmoid", &[])?
        .launch(grid(len), THREADS)
        .in_place(gate)
        .i64(len)
        .run()
}

/// What the forward pass saw and left behind.
#[derive(Clone, Copy)]
pub(super) struct Projection<'a> {
    pub(super) gate: &'a Tensor,
    pub(super) x: &'a Tensor,
    pub(super) g_proj: &'a Tensor,
    pub(super) branch: GateBranch,
}

pub(super) fn backward(
    gpu: &Gpu,
    projection: Projection<'_>,
    dgate: &Tensor,
    dx: &mut Tensor,
    dg_proj: &mut Tensor,
) -> Result<()> {
    let Projection { gate, x, g_proj, branch } = projection;
    let (tokens, heads, hidden) = (gate.rows(), gate.last_dim(), x.last_dim());
    let mut ds = Tensor::for_output_on(&x.device(), DType::Bf16, gate.shape())?;
    let len = gate.len();
    let kernel = gpu.kernel(&MODULE, "gate_sigmoid_bwd", &[])?;
    kernel.launch(grid(len), THREADS).input(dgate).input(gate).output(&mut ds).i64(len).run()?;

    let ds = Matrix::new(&ds, [tokens, heads])?;
    let rows = branch_rows(g_proj, branch, heads)?;
    matmul(gpu, MatrixMut::accumulate(dx, [tokens, hidden])?, 1.0, ds, rows)?;
    let offset = branch.first_row() * hidden;
    let drows = MatrixMut::accumulate_rows(dg_proj, offset, [heads, hidden], 3 * hidden)?;
    matmul(gpu, drows, 1.0, ds.t(), Matrix::new(x, [tokens, hidden])?)
}

fn branch_rows(g_proj: &Tensor, branch: GateBranch, heads: usize) -> Result<Matrix<'_>> {
    let hidden = g_proj.last_dim();
    Matrix::with_row_stride(g_proj, branch.first_row() * hidden, [heads, hidden], 3 * hidden)
}

/// The grid of a kernel with a group of lanes for every row of `head_dim` elements (`RowLayout` in
/// the source).
fn row_grid(rows: usize, head_dim: usize) -> [usize; 3] {
    let pieces = if head_dim.is_multiple_of(8) { head_dim / 8 } else { head_dim };
    let lanes = pieces.next_power_of_two().min(32);
    [rows.div_ceil(THREADS / lanes), 1, 1]
}

pub(super) fn apply_forward(
    gpu: &Gpu,
    out: &Tensor,
    gate: &Tensor,
    gated: &mut Tensor,
) -> Result<()> {
    let (rows, head_dim) = (gate.len(), out.last_dim());
    let kernel = gpu.kernel(&MODULE, "gate_apply_fwd", &[("HEAD_DIM", head_dim as i64)])?;
    let launch = kernel.launch(row_grid(rows, head_dim), THREADS);
    launch.input(out).input(gate).output(gated).i64(rows).run()
}

pub(super) fn apply_backward(
    gpu: &Gpu,
    dgated: &Tensor,
    out: &Tensor,
    gate: &Tensor,
    dout: &mut Tensor,
    dgate: &mut Tensor,
) -> Result<()> {
    let (rows, head_dim) = (gate.len(), out.last_dim());
    let kernel = gpu.kernel(&MODULE, "gate_apply_bwd", &[("HEAD_DIM", head_dim as i64)])?;
    let launch =
        kernel.launch(row_grid(rows, head_dim), THREADS).input(dgated).input(out).input(gate);
    launch.accumulate(dout).accumulate(dgate).i64(rows).run()
}
