//! Block means on a GPU; the source explains its design.

use half::bf16;

use crate::cuda::{
    Define, Gpu, Gradient, Input, Launch, Module, Output, RowLayout, constants, int, kernel,
    structs,
};
use crate::ops::attention::blocks::device_block_starts;
use crate::{DType, Documents, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "pooling",
    source: include_str!("pooling.cu"),
    headers: &[],
    constants: constants![THREADS, COLUMNS],
    structs: structs![MeanPoolFwd<f32>, MeanPoolBwd],
    variants: &[&defines(20), &defines(64), &defines(128), &defines(256)],
};

/// Threads of a block of the kernels.
const THREADS: usize = 128;
/// Vectors of a row that a block of threads of the forward takes.
const COLUMNS: usize = 16;

kernel! {
    /// The mean of each block.
    "mean_pool_fwd" for bf16, "mean_pool_f32_fwd" for f32 in MODULE:
    struct MeanPoolFwd<'a, T> {
        x: Input<'a, bf16>,
        /// The first token of every block, then the number of tokens.
        block_start: Input<'a, i32>,
        pooled: Output<'a, T>,
    }
}

kernel! {
    /// Adds a share of the gradient of each mean to its tokens.
    "mean_pool_bwd" in MODULE:
    struct MeanPoolBwd<'a> {
        dpooled: Input<'a, bf16>,
        block_start: Input<'a, i32>,
        dx: Gradient<'a, bf16>,
        blocks: i32,
    }
}

/// Writes the means `[C, width]` in the type of `pooled`.
pub(super) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
    pooled: &mut Tensor,
) -> Result<()> {
    let (blocks, width) = (pooled.shape()[0], width(pooled));
    let starts = device_block_starts(documents, gpu, block_size)?;
    let defines = defines(width);
    let column_blocks = RowLayout::new(width).vectors().div_ceil(COLUMNS);
    let launch = Launch::new([blocks, column_blocks, 1], THREADS).defines(&defines);
    let (x, block_start) = (x.input()?, starts.input());
    match pooled.dtype() {
        DType::F32 => {
            let pooled = pooled.output::<f32>()?;
            gpu.launch(launch, MeanPoolFwd { x, block_start, pooled })
        }
        _ => {
            let pooled = pooled.output::<bf16>()?;
            gpu.launch(launch, MeanPoolFwd { x, block_start, pooled })
        }
    }
}

pub(super) fn backward(
    gpu: &Gpu,
    dpooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    dx: &mut Tensor,
) -> Result<()> {
    let (blocks, width) = (dpooled.shape()[0], width(dpooled));
    let starts = device_block_starts(documents, gpu, block_size)?;
    let vectors = blocks * RowLayout::new(width).vectors();
    gpu.launch(
        Launch::new([vectors.div_ceil(THREADS), 1, 1], THREADS).defines(&defines(width)),
        MeanPoolBwd {
            dpooled: dpooled.input()?,
            block_start: starts.input(),
            dx: dx.gradient()?,
            blocks: int("blocks", blocks)?,
        },
    )
}

/// H * D of pooled rows.
fn width(pooled: &Tensor) -> usize {
    pooled.shape()[1] * pooled.shape()[2]
}

const fn defines(width: usize) -> [Define; 2] {
    [("WIDTH", width as i64), ("ROW_VEC", RowLayout::new(width).vec() as i64)]
}
