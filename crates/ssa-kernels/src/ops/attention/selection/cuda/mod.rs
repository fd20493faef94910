//! Block selection on a GPU; the sources explain their design.

pub(crate) mod warpgroups;

use std::sync::Arc;

use half::bf16;

use super::{BlockIndices, SelectionCall, SelectionRule};
use crate::cuda::{
    Buffer, Define, Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel, structs,
};
use crate::ops::attention::blocks::{Blocks, device_first_blocks};
use crate::ops::attention::headers;
use crate::ops::attention::padding::padded_head_dim;
use crate::ops::attention::shape::AttentionShape;
use crate::{DType, Documents, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "selection",
    source: include_str!("../selection.cu"),
    headers: &[&headers::ROWS],
    constants: constants![WARPS, SET, TILE],
    structs: structs![SplitMeans<f32>, SelectBlocks],
    variants: &[
        &Specialization::new(64, 16, false, true).defines(),
        &Specialization::new(64, 16, false, false).defines(),
        &Specialization::new(64, 16, true, true).defines(),
        &Specialization::new(128, 16, false, true).defines(),
        &Specialization::new(128, 16, false, false).defines(),
    ],
};

/// Warps of a block of the kernels.
const WARPS: usize = 8;
/// Depth of a product in elements of a head.
const STEP: usize = 16;
/// Blocks that a set of rows of a product takes.
const SET: usize = 16;
/// The most tokens of a tile of a block of threads.
const TILE: usize = 8;
/// Shared memory that a block of threads can have on every card, bytes.
const SHARED: usize = 96 << 10;
/// The most device memory for importances where shared memory does not hold them, bytes.
const SCRATCH: usize = 256 << 20;

kernel! {
    /// Means as sums of two `bf16`, with rows of zeros behind the last.
    "split_means" for f32, "split_means_bf16" for bf16 in MODULE:
    struct SplitMeans<'a, T> {
        means: Input<'a, T>,
        split: Output<'a, bf16>,
        rows: i64,
        padded_rows: i64,
    }
}

kernel! {
    /// The selection of every token.
    "select_blocks" in MODULE:
    struct SelectBlocks<'a> {
        q: Input<'a, bf16>,
        means: Input<'a, bf16>,
        /// First token and number of tokens.
        tiles: Input<'a, [i32; 2]>,
        document_start: Input<'a, i32>,
        first_block: Input<'a, i32>,
        /// Importances that shared memory does not hold.
        scratch: Option<Output<'a, f32>>,
        indices: Output<'a, i32>,
        tile_count: i32,
        tile: i32,
        width: i32,
        kv_heads: i32,
        block_size: i32,
        slots: i32,
        softmax_scale: f32,
    }
}

/// What the kernels are compiled for.
#[derive(Clone, Copy)]
struct Specialization {
    head_dim: usize,
    group: usize,
    reference_rule: bool,
    /// Whether registers hold the scores of every document.
    one_pass: bool,
}

impl Specialization {
    const fn new(head_dim: usize, group: usize, reference_rule: bool, one_pass: bool) -> Self {
        Self { head_dim, group, reference_rule, one_pass }
    }

    /// That of a call whose longest document has this many blocks.
    fn of(shape: &AttentionShape, rule: SelectionRule, longest: usize) -> Self {
        let reference_rule = rule == SelectionRule::Reference;
        let one_pass = Self::new(shape.head_dim, shape.group(), reference_rule, true);
        Self { one_pass: longest <= WARPS * one_pass.sets() * SET, ..one_pass }
    }

    /// Sets of 16 blocks whose scores a warp keeps in registers; fewer where they are full.
    const fn sets(self) -> usize {
        if self.one_pass && self.head_dim <= 128 { 4 } else { 2 }
    }

    /// Sets of 8 heads that are processed together.
    const fn head_sets(self) -> usize {
        if self.group <= 8 { 1 } else { 2 }
    }

    const fn defines(self) -> [Define; 6] {
        [
            ("HEAD_DIM", self.head_dim as i64),
            ("GROUP", self.group as i64),
            ("REFERENCE_RULE", self.reference_rule as i64),
            ("ONE_PASS", self.one_pass as i64),
            ("HEAD_SETS", self.head_sets() as i64),
            ("SETS", self.sets() as i64),
        ]
    }
}

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
            (&q.with_row_len(gpu, head_dim)?, &k_pooled.with_row_len(gpu, head_dim)?);
        let shape = AttentionShape { head_dim, ..shape };
        return select(op, gpu, &SelectionCall { q, k_pooled, shape, ..*call });
    }
    let block_size = options.budget.block_size();
    let longest =
        documents.ranges().map(|range| range.len()).max().unwrap_or(0).div_ceil(block_size);
    if let Some(variant) = warpgroups::Variant::of(gpu, call, longest) {
        return warpgroups::select(gpu, call, variant);
    }
    let specialization = Specialization::of(&shape, options.rule, longest);
    let defines = specialization.defines();
    let means = split_means(gpu, k_pooled, &shape, &defines)?;
    let mut indices = gpu.alloc(shape.total_tokens() * shape.kv_heads * slots)?;

    let width = longest.next_multiple_of(SET);
    // Queries of a tile and the heads of one pass; importances of a tile.
    let heads = 8 * specialization.head_sets();
    let bytes =
        |tile| [tile * heads * head_dim * size_of::<bf16>(), tile * width * size_of::<f32>()];
    let tile = if bytes(TILE).iter().sum::<usize>() <= SHARED { TILE } else { TILE / 2 };
    let [query_bytes, importance_bytes] = bytes(tile);
    let tiles = tiles(documents, gpu, tile)?;
    let tile_count = tiles.len() / 2;
    // Importances are in shared memory, or in device memory for a bounded number of blocks of
    // threads.
    let (mut scratch, mut grid, mut shared) = (None, tile_count, query_bytes + importance_bytes);
    if shared > SHARED {
        let at_once = 2 * gpu.properties().multiprocessors / shape.kv_heads;
        grid = at_once.min(SCRATCH / (importance_bytes * shape.kv_heads)).max(1).min(tile_count);
        scratch = Some(gpu.alloc(grid * shape.kv_heads * tile * width)?);
        shared = query_bytes;
    }
    let document_start = documents.device_starts(gpu)?;
    let first_block = device_first_blocks(documents, gpu, block_size)?;
    gpu.launch(
        Launch::new([grid, shape.kv_heads, 1], WARPS * WARP).shared(shared).defines(&defines),
        SelectBlocks {
            q: q.input()?,
            means: means.input(),
            tiles: tiles.groups(),
            document_start: document_start.input(),
            first_block: first_block.input(),
            scratch: scratch.as_mut().map(Buffer::output),
            indices: indices.output(),
            tile_count: int("tile_count", tile_count)?,
            tile: int("tile", tile)?,
            width: int("width", width)?,
            kv_heads: int("kv_heads", shape.kv_heads)?,
            block_size: int("block_size", block_size)?,
            slots: int("slots", slots)?,
            softmax_scale,
        },
    )?;
    Ok(BlockIndices::from_device(indices, documents, shape.kv_heads, block_size, slots))
}

/// The means as sums of two `bf16`, `[C + 16, H, 2, D]`.
fn split_means(
    gpu: &Gpu,
    means: &Tensor,
    shape: &AttentionShape,
    defines: &[Define],
) -> Result<Buffer<bf16>> {
    let (rows, head_dim) = (means.rows(), shape.head_dim);
    let padded = rows + SET * shape.kv_heads;
    let mut buffer = gpu.alloc(padded * 2 * head_dim)?;
    let threads = WARPS * WARP;
    let launch = Launch::new([(padded * head_dim / 8).div_ceil(threads), 1, 1], threads);
    let launch = launch.defines(defines);
    let (split, rows, padded_rows) = (buffer.output(), rows as i64, padded as i64);
    match means.dtype() {
        DType::F32 => {
            let means = means.input::<f32>()?;
            gpu.launch(launch, SplitMeans { means, split, rows, padded_rows })?;
        }
        _ => {
            let means = means.input::<bf16>()?;
            gpu.launch(launch, SplitMeans { means, split, rows, padded_rows })?;
        }
    }
    Ok(buffer)
}

/// Key of the tiles of so many tokens.
#[derive(PartialEq)]
struct SelectionTiles {
    tokens: usize,
}

/// First token and number of tokens of every tile; those with the most blocks before them, and so
/// the most work, first.
fn tiles(documents: &Documents, gpu: &Gpu, tokens: usize) -> Result<Arc<Buffer<i32>>> {
    documents.tables().get(gpu, SelectionTiles { tokens }, || {
        let mut tiles = Blocks::new(documents, tokens).tiles(tokens);
        tiles.sort_by_key(|tile| std::cmp::Reverse(tile.position(tile.tokens.start)));
        tiles.iter().flat_map(|tile| [tile.tokens.start as i32, tile.tokens.len() as i32]).collect()
    })
}
