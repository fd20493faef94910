//! Block means on a GPU; the source explains its design.

use crate::cuda::{Gpu, Module};
use crate::ops::attention::blocks::device_block_starts;
use crate::{DType, Documents, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "pooling",
    source: include_str!("pooling.cu"),
    variants: &[&[("WIDTH", 20)], &[("WIDTH", 64)], &[("WIDTH", 128)], &[("WIDTH", 256)]],
};

/// Threads of a block of the kernels.
const THREADS: usize = 128;
/// Vectors of a row that a block of threads of the forward takes.
const COLUMNS: usize = 16;

/// Writes the means `[C, width]` in the type of `pooled`.
pub(super) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
    pooled: &mut Tensor,
) -> Result<()> {
    let (blocks, width) = (pooled.shape()[0], width(pooled));
    let name = match pooled.dtype() {
        DType::F32 => "mean_pool_f32_fwd",
        _ => "mean_pool_fwd",
    };
    gpu.kernel(&MODULE, name, &[("WIDTH", width as i64)])?
        .launch([blocks, vectors(width).div_ceil(COLUMNS), 1], THREADS)
        .input(x)
        .buffer(&*device_block_starts(documents, gpu, block_size)?)
        .output(pooled)
        .run()
}

pub(super) fn backward(
    gpu: &Gpu,
    dpooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    dx: &mut Tensor,
) -> Result<()> {
    let (blocks, width) = (dpooled.shape()[0], width(dpooled));
    gpu.kernel(&MODULE, "mean_pool_bwd", &[("WIDTH", width as i64)])?
        .launch([(blocks * vectors(width)).div_ceil(THREADS), 1, 1], THREADS)
        .input(dpooled)
        .buffer(&*device_block_starts(documents, gpu, block_size)?)
        .accumulate(dx)
        .i32(blocks)
        .run()
}

/// H * D of pooled rows.
fn width(pooled: &Tensor) -> usize {
    pooled.shape()[1] * pooled.shape()[2]
}

/// Pieces of a row that one thread loads at once (`RowLayout` in the source).
fn vectors(width: usize) -> usize {
    if width.is_multiple_of(8) { width / 8 } else { width }
}
