//! RMSNorm on a GPU.

use super::Saved;
use crate::cuda::{Gpu, Kernel, Module};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "rms_norm",
    source: include_str!("rms_norm.cu"),
    variants: &[
        &[("HIDDEN", 63), ("ROW_WARPS", 1)],
        &[("HIDDEN", 1024), ("ROW_WARPS", 1)],
        &[("HIDDEN", 2048), ("ROW_WARPS", 2)],
        &[("HIDDEN", 4096), ("ROW_WARPS", 2)],
        &[("HIDDEN", 8192), ("ROW_WARPS", 4)],
    ],
};

/// Warps over whose rows the backward pass sums in registers: 8 on each of 132 multiprocessors. A
/// constant, so that results do not depend on the card.
const BACKWARD_WARPS: usize = 1056;

/// How the kernels divide rows of `hidden` elements among threads.
struct Layout {
    hidden: usize,
    /// Warps that share a row: a lane holds at most 8 vectors of 16 bytes.
    row_warps: usize,
}

impl Layout {
    fn new(hidden: usize) -> Self {
        // Rows that are no multiple of 8 are read element by element.
        let vectors = if hidden.is_multiple_of(8) { hidden / 8 } else { hidden };
        // Two warps are 3 % faster than one where a warp would just do.
        let row_warps =
            if vectors < 256 { 1 } else { vectors.div_ceil(256).next_power_of_two().clamp(2, 32) };
        Self { hidden, row_warps }
    }

    fn threads(&self) -> usize {
        32 * if self.row_warps == 1 { 4 } else { self.row_warps }
    }

    /// Rows of a block.
    fn rows(&self) -> usize {
        self.threads() / (32 * self.row_warps)
    }

    fn kernel(&self, gpu: &Gpu, name: &'static str) -> Result<Kernel> {
        let defines = [("HIDDEN", self.hidden as i64), ("ROW_WARPS", self.row_warps as i64)];
        gpu.kernel(&MODULE, name, &defines)
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
    let kernel = layout.kernel(gpu, "rms_norm_fwd")?;
    let launch = kernel.launch([rows.div_ceil(layout.rows()), 1, 1], layout.threads());
    launch.input(x).input(weight).output(out).output(rstd).i64(rows).f32(eps).run()
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
    let kernel = layout.kernel(gpu, "add_rms_norm_fwd")?;
    let launch = kernel.launch([rows.div_ceil(layout.rows()), 1, 1], layout.threads());
    launch
        .in_place(x)
        .input(residual)
        .input(weight)
        .output(out)
        .output(rstd)
        .i64(rows)
        .f32(eps)
        .run()
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
    let blocks = rows.div_ceil(layout.rows()).min(BACKWARD_WARPS * 32 / layout.threads());
    let mut partial = gpu.alloc::<f32>(blocks * hidden)?;
    let kernel = layout.kernel(gpu, "rms_norm_bwd")?;
    let launch = kernel.launch([blocks, 1, 1], layout.threads());
    let launch = launch.input(dout).input(x).input(weight).input(rstd).accumulate(dx);
    launch.buffer_mut(&mut partial).i64(rows).run()?;
    let kernel = layout.kernel(gpu, "rms_norm_dweight")?;
    let launch = kernel.launch([hidden.div_ceil(32), 1, 1], 256);
    launch.buffer(&partial).i32(blocks).accumulate(dweight).run()
}
