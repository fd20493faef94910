//! RMSNorm on a GPU.

use half::bf16;

use super::Saved;
use crate::cuda::{
    Define, Gpu, Gradient, Input, Launch, Module, Output, RowLayout, WARP, constants, int, kernel,
    parameter_group, structs,
};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "rms_norm",
    source: include_str!("rms_norm.cu"),
    headers: &[],
    constants: constants![DWEIGHT_WARPS],
    structs: structs![Norm, RmsNormFwd, AddRmsNormFwd, RmsNormBwd, RmsNormDweight],
    variants: &[
        &Layout::new(63).defines(),
        &Layout::new(1024).defines(),
        &Layout::new(2048).defines(),
        &Layout::new(4096).defines(),
        &Layout::new(8192).defines(),
    ],
};

/// Warps over whose rows the backward pass sums in registers: 8 on each of 132 multiprocessors. A
/// constant, so that results do not depend on the card.
const BACKWARD_WARPS: usize = 1056;

/// Warps of a block that adds the partial sums of `dweight`.
const DWEIGHT_WARPS: usize = 8;

parameter_group! {
    /// What both forwards share.
    struct Norm<'a> {
        weight: Input<'a, bf16>,
        out: Output<'a, bf16>,
        rstd: Output<'a, f32>,
        rows: i64,
        eps: f32,
    }
}

kernel! {
    /// `out = norm(x)`.
    "rms_norm_fwd" in MODULE:
    struct RmsNormFwd<'a> {
        x: Input<'a, bf16>,
        norm: Norm<'a>,
    }
}

kernel! {
    /// `x += residual`, then `out = norm(x)`.
    "add_rms_norm_fwd" in MODULE:
    struct AddRmsNormFwd<'a> {
        x: Output<'a, bf16>,
        residual: Input<'a, bf16>,
        norm: Norm<'a>,
    }
}

kernel! {
    /// Adds to `dx`; a row of sums for `dweight` from each block.
    "rms_norm_bwd" in MODULE:
    struct RmsNormBwd<'a> {
        x: Input<'a, bf16>,
        weight: Input<'a, bf16>,
        rstd: Input<'a, f32>,
        dout: Input<'a, bf16>,
        dx: Gradient<'a, bf16>,
        partial: Output<'a, f32>,
        rows: i64,
    }
}

kernel! {
    /// Adds the rows of sums to `dweight`.
    "rms_norm_dweight" in MODULE:
    struct RmsNormDweight<'a> {
        partial: Input<'a, f32>,
        dweight: Gradient<'a, f32>,
        partials: i32,
    }
}

/// How the kernels divide rows of `hidden` elements among threads.
#[derive(Clone, Copy)]
struct Layout {
    hidden: usize,
    /// Warps that share a row: a lane holds at most 8 vectors of 16 bytes.
    row_warps: usize,
    block_warps: usize,
}

impl Layout {
    const fn new(hidden: usize) -> Self {
        // Two warps are 3 % faster than one where a warp would just do.
        let (row_warps, block_warps) = match RowLayout::new(hidden).vectors() {
            0..256 => (1, 4),
            256..=512 => (2, 2),
            513..=1024 => (4, 4),
            1025..=2048 => (8, 8),
            2049..=4096 => (16, 16),
            _ => (32, 32),
        };
        Self { hidden, row_warps, block_warps }
    }

    const fn defines(self) -> [Define; 4] {
        [
            ("HIDDEN", self.hidden as i64),
            ("ROW_VEC", RowLayout::new(self.hidden).vec() as i64),
            ("ROW_WARPS", self.row_warps as i64),
            ("BLOCK_WARPS", self.block_warps as i64),
        ]
    }

    /// Rows of a block.
    fn rows(self) -> usize {
        self.block_warps / self.row_warps
    }

    fn launch(self, blocks: usize) -> Launch<'static> {
        Launch::new([blocks, 1, 1], WARP * self.block_warps)
    }
}

pub(super) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    out: &mut Tensor,
    rstd: &mut Tensor,
) -> Result<()> {
    let (layout, rows) = (Layout::new(weight.len()), x.rows());
    let norm = norm(weight, out, rstd, rows, eps)?;
    gpu.launch(
        layout.launch(rows.div_ceil(layout.rows())).defines(&layout.defines()),
        RmsNormFwd { x: x.input()?, norm },
    )
}

/// Adds `residual` to `x` first.
pub(super) fn add_forward(
    gpu: &Gpu,
    x: &mut Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
    out: &mut Tensor,
    rstd: &mut Tensor,
) -> Result<()> {
    let (layout, rows) = (Layout::new(weight.len()), x.rows());
    let norm = norm(weight, out, rstd, rows, eps)?;
    gpu.launch(
        layout.launch(rows.div_ceil(layout.rows())).defines(&layout.defines()),
        AddRmsNormFwd { x: x.in_place()?, residual: residual.input()?, norm },
    )
}

fn norm<'a>(
    weight: &'a Tensor,
    out: &'a mut Tensor,
    rstd: &'a mut Tensor,
    rows: usize,
    eps: f32,
) -> Result<Norm<'a>> {
    let (weight, out, rstd) = (weight.input()?, out.output()?, rstd.output()?);
    Ok(Norm { weight, out, rstd, rows: rows as i64, eps })
}

pub(super) fn backward(
    gpu: &Gpu,
    saved: Saved<'_>,
    dout: &Tensor,
    dx: &mut Tensor,
    dweight: &mut Tensor,
) -> Result<()> {
    let Saved { x, weight, rstd } = saved;
    let (layout, rows, hidden) = (Layout::new(weight.len()), x.rows(), weight.len());
    if rows == 0 {
        return Ok(());
    }
    let blocks = rows.div_ceil(layout.rows()).min(BACKWARD_WARPS / layout.block_warps);
    let mut partial = gpu.alloc(blocks * hidden)?;
    gpu.launch(
        layout.launch(blocks).defines(&layout.defines()),
        RmsNormBwd {
            x: x.input()?,
            weight: weight.input()?,
            rstd: rstd.input()?,
            dout: dout.input()?,
            dx: dx.gradient()?,
            partial: partial.output(),
            rows: rows as i64,
        },
    )?;
    gpu.launch(
        Launch::new([hidden.div_ceil(WARP), 1, 1], DWEIGHT_WARPS * WARP).defines(&layout.defines()),
        RmsNormDweight {
            partial: partial.input(),
            dweight: dweight.gradient()?,
            partials: int("partials", blocks)?,
        },
    )
}
