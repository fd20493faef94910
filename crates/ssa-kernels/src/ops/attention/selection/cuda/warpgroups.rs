//! Documents with many blocks, on cards whose tensor cores serve warpgroups.

use std::f32::consts::LOG2_E;

use half::bf16;

use super::super::{BlockIndices, SelectionCall, SelectionRule};
use super::tiles;
use crate::cuda::{Buffer, Define, Gpu, Input, Launch, Module, Output, int, kernel, structs};
use crate::ops::attention::blocks::device_first_blocks;
use crate::ops::attention::headers;
use crate::{DType, Result};

pub(crate) static MODULE: Module = Module {
    name: "selection_sm90",
    source: include_str!("../selection_sm90.cu"),
    headers: &[&headers::BARRIER, &headers::CANDIDATES, &headers::WGMMA],
    constants: &[],
    structs: structs![TileMeans<f32>, SelectByTiles],
    variants: &[&Variant::new(64, 16).defines(), &Variant::new(128, 16).defines()],
};

/// Threads of a warpgroup.
const WARPGROUP: usize = 128;
/// Blocks of a tile of means: rows of a product of a warpgroup.
const BLOCKS: usize = 64;
/// Pairs of a token and a query head that a warpgroup scores: columns of its products.
const COLUMNS: usize = 128;
/// The most slots: half of what a list of candidates always has room for.
const MAX_SLOTS: usize = 64;
/// Blocks of a document from which on these kernels were measured to be faster.
const MANY_BLOCKS: usize = 128;

kernel! {
    /// Means times a factor as sums of two `bf16`, in tiles of operands of products.
    "tile_means" for f32, "tile_means_bf16" for bf16 in MODULE:
    struct TileMeans<'a, T> {
        /// `[C, H, D]`.
        means: Input<'a, T>,
        /// `[H, tiles, 2, 64, D]`; the rows after C are zeros.
        split: Output<'a, bf16>,
        /// C.
        rows: i32,
        tiles: i32,
        kv_heads: i32,
        factor: f32,
    }
}

kernel! {
    /// The selection of every token.
    "select_blocks" in MODULE:
    struct SelectByTiles<'a> {
        q: Input<'a, bf16>,
        /// As [`TileMeans::split`].
        means: Input<'a, bf16>,
        /// First token and number of tokens.
        tiles: Input<'a, [i32; 2]>,
        document_start: Input<'a, i32>,
        first_block: Input<'a, i32>,
        indices: Output<'a, i32>,
        mean_tiles: i32,
        kv_heads: i32,
        block_size: i32,
        slots: i32,
    }
}

/// What the kernels are compiled for.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    head_dim: usize,
    group: usize,
    /// Warpgroups of a block of threads, each with tokens of its own.
    warpgroups: usize,
    /// Tiles of means in shared memory.
    stages: usize,
    /// Blocks that are kept for each token until the best are known.
    candidates: usize,
}

impl Variant {
    const fn new(head_dim: usize, group: usize) -> Self {
        let (warpgroups, stages, candidates) = match (head_dim, group) {
            (..=64, ..=8) => (4, 3, 192),
            (..=64, _) => (4, 4, 256),
            (_, ..=8) => (2, 2, 192),
            _ => (2, 2, 256),
        };
        Self { head_dim, group, warpgroups, stages, candidates }
    }

    /// That of a call whose longest document has this many blocks, if these kernels serve it.
    pub(super) fn of(gpu: &Gpu, call: &SelectionCall<'_>, longest: usize) -> Option<Self> {
        let (head_dim, group) = (call.shape.head_dim, call.shape.group());
        let served = gpu.properties().has_warpgroups()
            && matches!(head_dim, 64 | 128)
            && matches!(group, 8 | 16 | 32)
            && call.options.rule == SelectionRule::Exact
            && (2..=MAX_SLOTS).contains(&call.slots)
            && longest >= MANY_BLOCKS;
        served.then(|| Self::new(head_dim, group))
    }

    /// Tokens of a warpgroup.
    const fn tokens(self) -> usize {
        COLUMNS / self.group
    }

    /// Operands, barriers of the stages, sums of columns, and candidates.
    const fn shared_bytes(self) -> usize {
        let row = self.head_dim * size_of::<bf16>();
        // Reference, weight and a partial result of each of 4 warps.
        let column = 6 * size_of::<f32>();
        let token = (self.candidates + 1) * size_of::<[u32; 2]>();
        self.stages * (2 * BLOCKS * row + 2 * size_of::<u64>())
            + self.warpgroups * (COLUMNS * (row + column) + self.tokens() * token)
    }

    const fn defines(self) -> [Define; 6] {
        [
            ("HEAD_DIM", self.head_dim as i64),
            ("GROUP", self.group as i64),
            ("WARPGROUPS", self.warpgroups as i64),
            ("STAGES", self.stages as i64),
            ("CANDIDATES", self.candidates as i64),
            ("SHARED_BYTES", self.shared_bytes() as i64),
        ]
    }
}

/// Writes the selection of every token.
pub(super) fn select(
    gpu: &Gpu,
    call: &SelectionCall<'_>,
    variant: Variant,
) -> Result<BlockIndices> {
    let &SelectionCall { q, documents, options, shape, slots, .. } = call;
    let block_size = options.budget.block_size();
    let defines = variant.defines();
    let threads = variant.warpgroups * WARPGROUP;
    let mean_tiles = documents.blocks(block_size).div_ceil(BLOCKS);
    let means = tile_means(gpu, call, mean_tiles, threads, &defines)?;
    let mut indices = gpu.alloc(shape.total_tokens() * shape.kv_heads * slots)?;
    let tiles = tiles(documents, gpu, variant.warpgroups * variant.tokens())?;
    let document_start = documents.device_starts(gpu)?;
    let first_block = device_first_blocks(documents, gpu, block_size)?;
    gpu.launch(
        Launch::new([tiles.len() / 2, shape.kv_heads, 1], threads)
            .shared(variant.shared_bytes())
            .defines(&defines),
        SelectByTiles {
            q: q.input()?,
            means: means.input(),
            tiles: tiles.groups(),
            document_start: document_start.input(),
            first_block: first_block.input(),
            indices: indices.output(),
            mean_tiles: int("mean_tiles", mean_tiles)?,
            kv_heads: int("kv_heads", shape.kv_heads)?,
            block_size: int("block_size", block_size)?,
            slots: int("slots", slots)?,
        },
    )?;
    Ok(BlockIndices::from_device(indices, documents, shape.kv_heads, block_size, slots))
}

/// The means, times what makes scores exponents of 2, as operands of products.
fn tile_means(
    gpu: &Gpu,
    call: &SelectionCall<'_>,
    mean_tiles: usize,
    threads: usize,
    defines: &[Define],
) -> Result<Buffer<bf16>> {
    let (means, head_dim, kv_heads) = (call.k_pooled, call.shape.head_dim, call.shape.kv_heads);
    let padded = mean_tiles * BLOCKS * kv_heads * head_dim;
    let mut buffer = gpu.alloc(2 * padded)?;
    let launch = Launch::new([(padded / 8).div_ceil(threads), 1, 1], threads).defines(defines);
    let (rows, tiles) = (int("rows", means.rows() / kv_heads)?, int("tiles", mean_tiles)?);
    let (split, factor) = (buffer.output(), call.softmax_scale * LOG2_E);
    let kv_heads = int("kv_heads", kv_heads)?;
    match means.dtype() {
        DType::F32 => {
            let means = means.input::<f32>()?;
            gpu.launch(launch, TileMeans { means, split, rows, tiles, kv_heads, factor })?;
        }
        _ => {
            let means = means.input::<bf16>()?;
            gpu.launch(launch, TileMeans { means, split, rows, tiles, kv_heads, factor })?;
        }
    }
    Ok(buffer)
}
