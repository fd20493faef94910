//! Gates on a GPU. The rows of a branch are 3 rows apart, which a matrix product takes as a row
//! stride.

use half::bf16;

use super::GateBranch;
use crate::cuda::elementwise::THREADS;
use crate::cuda::matmul::{GpuMatrix, Rows, matmul};
use crate::cuda::{
    Gpu, Gradient, Input, Launch, Module, Output, RowLayout, constants, kernel, structs,
};
use crate::{DType, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "gate",
    source: include_str!("gate.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![GateSigmoid, GateSigmoidBwd, GateApplyFwd, GateApplyBwd],
    variants: &[
        &[],
        &RowLayout::new(6).defines("HEAD_DIM"),
        &RowLayout::new(64).defines("HEAD_DIM"),
        &RowLayout::new(128).defines("HEAD_DIM"),
    ],
};

kernel! {
    /// `x = sigmoid(x)`.
    "gate_sigmoid" in MODULE:
    struct GateSigmoid<'a> {
        x: Output<'a, f32>,
        len: i64,
    }
}

kernel! {
    /// `ds = dgate gate (1 - gate)`.
    "gate_sigmoid_bwd" in MODULE:
    struct GateSigmoidBwd<'a> {
        gate: Input<'a, f32>,
        dgate: Input<'a, f32>,
        ds: Output<'a, bf16>,
        len: i64,
    }
}

kernel! {
    /// `gated = gate * out`; a row is a head of a token.
    "gate_apply_fwd" in MODULE:
    struct GateApplyFwd<'a> {
        out: Input<'a, bf16>,
        gate: Input<'a, f32>,
        gated: Output<'a, bf16>,
        rows: i64,
    }
}

kernel! {
    /// Adds to the gradients of both factors.
    "gate_apply_bwd" in MODULE:
    struct GateApplyBwd<'a> {
        out: Input<'a, bf16>,
        gate: Input<'a, f32>,
        dgated: Input<'a, bf16>,
        dout: Gradient<'a, bf16>,
        dgate: Gradient<'a, f32>,
        rows: i64,
    }
}

pub(super) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    g_proj: &Tensor,
    branch: GateBranch,
    gate: &mut Tensor,
) -> Result<()> {
    let (tokens, heads, hidden) = (gate.rows(), gate.last_dim(), x.last_dim());
    let rows = branch_matrix(g_proj, branch, heads)?;
    let out = gate.output_matrix([tokens, heads])?;
    matmul(gpu, out, 1.0, x.matrix([tokens, hidden])?, rows.t())?;
    sigmoid(gpu, gate)
}

/// The sigmoid of scores, in `f32`.
pub(super) fn of_scores(gpu: &Gpu, scores: &Tensor) -> Result<Tensor> {
    let mut gate = scores.to_device(&scores.device(), DType::F32)?;
    sigmoid(gpu, &mut gate)?;
    Ok(gate)
}

fn sigmoid(gpu: &Gpu, x: &mut Tensor) -> Result<()> {
    gpu.launch_pieces(x.len(), |len| Ok(GateSigmoid { x: x.in_place()?, len }))
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
    gpu.launch_pieces(gate.len(), |len| {
        Ok(GateSigmoidBwd { gate: gate.input()?, dgate: dgate.input()?, ds: ds.output()?, len })
    })?;

    let ds = ds.matrix([tokens, heads])?;
    let rows = branch_matrix(g_proj, branch, heads)?;
    matmul(gpu, dx.gradient_matrix([tokens, hidden])?, 1.0, ds, rows)?;
    let drows = dg_proj.gradient_rows(branch_rows(branch, heads, hidden))?;
    matmul(gpu, drows, 1.0, ds.t(), x.matrix([tokens, hidden])?)
}

/// The rows of a branch in the projection of all gates, which interleaves three branches.
fn branch_rows(branch: GateBranch, heads: usize, hidden: usize) -> Rows {
    Rows { offset: branch.first_row() * hidden, sizes: [heads, hidden], stride: 3 * hidden }
}

fn branch_matrix(g_proj: &Tensor, branch: GateBranch, heads: usize) -> Result<GpuMatrix<'_>> {
    g_proj.matrix(branch_rows(branch, heads, g_proj.last_dim()))
}

/// The launch of a kernel with a group of lanes for every row.
fn rows_launch(rows: usize, layout: RowLayout) -> Launch<'static> {
    Launch::new([rows.div_ceil(THREADS / layout.lanes()), 1, 1], THREADS)
}

pub(super) fn apply_forward(
    gpu: &Gpu,
    out: &Tensor,
    gate: &Tensor,
    gated: &mut Tensor,
) -> Result<()> {
    let (rows, layout) = (gate.len(), RowLayout::new(out.last_dim()));
    gpu.launch(
        rows_launch(rows, layout).defines(&layout.defines("HEAD_DIM")),
        GateApplyFwd {
            out: out.input()?,
            gate: gate.input()?,
            gated: gated.output()?,
            rows: rows as i64,
        },
    )
}

pub(super) fn apply_backward(
    gpu: &Gpu,
    dgated: &Tensor,
    out: &Tensor,
    gate: &Tensor,
    dout: &mut Tensor,
    dgate: &mut Tensor,
) -> Result<()> {
    let (rows, layout) = (gate.len(), RowLayout::new(out.last_dim()));
    gpu.launch(
        rows_launch(rows, layout).defines(&layout.defines("HEAD_DIM")),
        GateApplyBwd {
            out: out.input()?,
            gate: gate.input()?,
            dgated: dgated.input()?,
            dout: dout.gradient()?,
            dgate: dgate.gradient()?,
            rows: rows as i64,
        },
    )
}
