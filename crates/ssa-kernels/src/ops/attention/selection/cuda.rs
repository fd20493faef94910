//! Block selection on a GPU; the source explains its design.

use super::{BlockIndices, SelectionCall, SelectionRule};
use crate::cuda::elementwise::resized_rows;
use crate::cuda::{Buffer, Gpu, Module};
use crate::ops::attention::blocks::{Blocks, device_first_blocks};
use crate::ops::attention::padding::padded_head_dim;
use crate::ops::attention::shape::AttentionShape;
use crate::{DType, Documents, Result};

pub(crate) static MODULE: Module = Module {
    name: "selection",
    source: include_str!("selection.cu"),
    variants: &[
        &[("HEAD_DIM", 64), ("GROUP", 16), ("REFERENCE_RULE", 0), ("ONE_PASS", 1)],
        &[("HEAD_DIM", 64), ("GROUP", 16), ("REFERENCE_RULE", 0), ("ONE_PASS", 0)],
        &[("HEAD_DIM", 64), ("GROUP", 16), ("REFERENCE_RULE", 1), ("ONE_PASS", 1)],
        &[("HEAD_DIM", 128), ("GROUP", 16), ("REFERENCE_RULE", 0), ("ONE_PASS", 1)],
        &[("HEAD_DIM", 128), ("GROUP", 16), ("REFERENCE_RULE", 0), ("ONE_PASS", 0)],
    ],
};

/// Threads of a block of the kernels.
const THREADS: usize = 256;
/// Elements of a head that a product takes at once.
const STEP: usize = 16;
/// Blocks that a set of rows of a product takes.
const SET: usize = 16;
/// Shared memory that a block of threads can have on every card, bytes.
const SHARED: usize = 96 << 10;
/// Device memory for importances where shared memory does not hold them, bytes at most.
const SCRATCH: usize = 256 << 20;

/// Writes the selection of every token.
pub(super) fn select(
    op: &'static str,
    gpu: &Gpu,
    call: &SelectionCall<'_>,
) -> Result<BlockIndices> {
    let &SelectionCall { q, k_pooled, documents, options, shape, slots, softmax_scale } = call;
    let head_dim = padded_head_dim(op, &shape, STEP)?;
    if head_dim != shape.head_dim {
        let (q, k_pooled) =
            (&resized_rows(gpu, q, head_dim)?, &resized_rows(gpu, k_pooled, head_dim)?);
        return select(
            op,
            gpu,
            &SelectionCall { q, k_pooled, shape: AttentionShape { head_dim, ..shape }, ..*call },
        );
    }
    let block_size = options.budget.block_size();
    let longest =
        documents.ranges().map(|range| range.len()).max().unwrap_or(0).div_ceil(block_size);
    let defines = [
        ("HEAD_DIM", shape.head_dim as i64),
        ("GROUP", shape.group() as i64),
        ("REFERENCE_RULE", i64::from(options.rule == SelectionRule::Reference)),
        ("ONE_PASS", i64::from(longest <= blocks_in_registers(shape.head_dim))),
    ];
    let means = split_means(gpu, call, &defines)?;
    let mut indices = gpu.alloc::<i32>(shape.total_tokens() * shape.kv_heads * slots)?;

    let width = longest.next_multiple_of(SET);
    // Queries of a tile and the heads of one pass; importances of a tile.
    let heads = if shape.group() <= 8 { 8 } else { 16 };
    let bytes = |tile| [tile * heads * shape.head_dim * 2, tile * width * size_of::<f32>()];
    let tile = if bytes(8).iter().sum::<usize>() <= SHARED { 8 } else { 4 };
    let [query_bytes, importance_bytes] = bytes(tile);
    let tiles = tiles(documents, gpu, tile)?;
    let tile_count = tiles.bytes() / size_of::<[i32; 2]>();
    // Importances lie in shared memory, or in device memory for a bounded number of blocks of
    // threads.
    let (mut scratch, mut grid, mut shared) = (None, tile_count, query_bytes + importance_bytes);
    if shared > SHARED {
        let at_once = 2 * gpu.properties().multiprocessors / shape.kv_heads;
        grid = at_once.min(SCRATCH / (importance_bytes * shape.kv_heads)).max(1).min(tile_count);
        scratch = Some(gpu.alloc::<f32>(grid * shape.kv_heads * tile * width)?);
        shared = query_bytes;
    }
    let kernel = gpu.kernel(&MODULE, "select_blocks", &defines)?;
    let launch = kernel
        .launch([grid, shape.kv_heads, 1], THREADS)
        .shared(shared)
        .input(q)
        .buffer(&means)
        .buffer(&tiles)
        .buffer(&*documents.device_starts(gpu)?)
        .buffer(&*device_first_blocks(documents, gpu, block_size)?);
    let launch = match &mut scratch {
        Some(scratch) => launch.buffer_mut(scratch),
        None => launch.null(),
    };
    launch
        .buffer_mut(&mut indices)
        .i32(tile_count)
        .i32(tile)
        .i32(width)
        .i32(shape.kv_heads)
        .i32(block_size)
        .i32(slots)
        .f32(softmax_scale)
        .run()?;
    Ok(BlockIndices::from_device(indices, documents, shape.kv_heads, block_size, slots))
}

/// Blocks of which one block of threads keeps all scores in registers.
fn blocks_in_registers(head_dim: usize) -> usize {
    if head_dim <= 128 { 512 } else { 256 }
}

/// The means as sums of two `bf16`, `[C + 16, H, 2, D]`.
fn split_means(
    gpu: &Gpu,
    call: &SelectionCall<'_>,
    defines: &[(&'static str, i64)],
) -> Result<Buffer> {
    let name = if call.k_pooled.dtype() == DType::F32 { "split_means" } else { "split_means_bf16" };
    let head_dim = call.shape.head_dim;
    let rows = call.k_pooled.rows();
    let padded = rows + SET * call.shape.kv_heads;
    let mut means = gpu.alloc::<u16>(padded * 2 * head_dim)?;
    gpu.kernel(&MODULE, name, defines)?
        .launch([(padded * head_dim / 8).div_ceil(THREADS), 1, 1], THREADS)
        .input(call.k_pooled)
        .buffer_mut(&mut means)
        .i64(rows)
        .i64(padded)
        .run()?;
    Ok(means)
}

/// Key of the tiles of so many tokens.
#[derive(PartialEq)]
struct SelectionTiles {
    tokens: usize,
}

/// First token and number of tokens of every tile; those with the most blocks before them, and so
/// the most work, first.
fn tiles(documents: &Documents, gpu: &Gpu, tokens: usize) -> Result<std::sync::Arc<Buffer>> {
    documents.tables().get(gpu, SelectionTiles { tokens }, || {
        let mut tiles = Blocks::new(documents, tokens).tiles(tokens);
        tiles.sort_by_key(|tile| std::cmp::Reverse(tile.position(tile.tokens.start)));
        tiles.iter().flat_map(|tile| [tile.tokens.start as i32, tile.tokens.len() as i32]).collect()
    })
}
