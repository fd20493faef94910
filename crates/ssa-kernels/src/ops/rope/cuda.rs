//! The rotation on a GPU.

use super::RopeTable;
use crate::cuda::{Gpu, Module};
use crate::{Documents, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "rope",
    source: include_str!("rope.cu"),
    variants: &[&[("HEAD_DIM", 6)], &[("HEAD_DIM", 64)], &[("HEAD_DIM", 128)]],
};

const THREADS: usize = 256;

/// `sign` is 1 forward and -1 backward.
pub(super) fn rotate(
    gpu: &Gpu,
    x: &mut Tensor,
    documents: &Documents,
    table: &RopeTable,
    sign: f32,
) -> Result<()> {
    let (tokens, heads, half) = (documents.total_tokens(), x.shape()[2], table.head_dim() / 2);
    let vectors = if half.is_multiple_of(8) { half / 8 } else { half };
    let tokens_per_block = (THREADS / (heads * vectors)).max(1);
    let (angles, starts) = (table.device(gpu)?, documents.device_starts(gpu)?);
    let kernel = gpu.kernel(&MODULE, "rope", &[("HEAD_DIM", table.head_dim() as i64)])?;
    let launch = kernel.launch([tokens.div_ceil(tokens_per_block), 1, 1], THREADS);
    let launch = launch.in_place(x).buffer(&angles).buffer(&starts).i64(tokens).i32(heads);
    launch.i64(table.positions()).i32(tokens_per_block).f32(sign).run()
}
