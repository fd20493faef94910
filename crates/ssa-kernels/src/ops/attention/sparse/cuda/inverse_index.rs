//! Which tokens selected a block.

use crate::cuda::{
    Buffer, Gpu, Input, Launch, Module, Output, WARP, constants, device_struct, int, kernel,
    structs,
};
use crate::ops::attention::blocks::device_first_blocks;
use crate::ops::attention::selection::BlockIndices;
use crate::{KernelError, Result};

pub(crate) static MODULE: Module = Module {
    name: "inverse_index",
    source: include_str!("../inverse_index.cu"),
    headers: &[],
    constants: constants![THREADS, TILE, DIGITS, SHARED_BYTES],
    structs: structs![Pair, CountDigits, ScanTiles, ScatterPairs, ListStarts],
    variants: &[&[]],
};

/// Threads of a block of the kernels, and pairs that one sorts.
const THREADS: usize = 256;
const TILE: usize = THREADS * 8;
/// Bits of a list's number that a pass sorts by.
const RADIX_BITS: usize = 11;
const DIGITS: usize = 1 << RADIX_BITS;
/// Shared memory of the last kernel of a pass: counts of every warp, and where digits begin.
const SHARED_BYTES: usize = (THREADS / WARP + 1) * DIGITS * size_of::<i32>();

device_struct! {
    /// A token that selected a block, and the list of the block and key/value head.
    pub(super) struct Pair {
        list: u32,
        token: u32,
    }
}

kernel! {
    /// How often each digit occurs in each tile.
    "count_digits" in MODULE:
    struct CountDigits<'a> {
        /// Selected blocks, `[N, H, slots]`, which the first pass sorts.
        indices: Input<'a, i32>,
        /// For every token the number of the first block of its document.
        first_block: Input<'a, i32>,
        /// What the pass before has sorted.
        sorted: Option<Input<'a, Pair>>,
        /// `[DIGITS, tiles]`.
        counts: Output<'a, i32>,
        pairs: i64,
        /// H.
        kv_heads: i32,
        slots: i32,
        lists: u32,
        /// Bits below the digit.
        shift: i32,
    }
}

kernel! {
    /// Exclusive sums along the tiles of a digit, and the total of each.
    "scan_tiles" in MODULE:
    struct ScanTiles<'a> {
        /// `[DIGITS, tiles]`.
        counts: Output<'a, i32>,
        /// `[DIGITS]`.
        totals: Output<'a, i32>,
        tiles: i32,
    }
}

kernel! {
    /// Moves the pairs to their places.
    "scatter_pairs" in MODULE:
    struct ScatterPairs<'a> {
        /// As in [`CountDigits`], and so all that have the same names.
        indices: Input<'a, i32>,
        first_block: Input<'a, i32>,
        sorted: Option<Input<'a, Pair>>,
        /// As in [`ScanTiles`].
        counts: Input<'a, i32>,
        totals: Input<'a, i32>,
        /// The pairs sorted by this digit.
        out: Output<'a, Pair>,
        pairs: i64,
        kv_heads: i32,
        slots: i32,
        lists: u32,
        shift: i32,
    }
}

kernel! {
    /// Where each list begins.
    "list_starts" in MODULE:
    struct ListStarts<'a> {
        sorted: Input<'a, Pair>,
        starts: Output<'a, i32>,
        pairs: i64,
        lists: i32,
    }
}

/// For every list (block times H plus head) the tokens that selected the block, ascending.
pub(super) struct InverseIndex {
    pub(super) sorted: Buffer<Pair>,
    /// First pair of every list, then the number of pairs that are used.
    pub(super) starts: Buffer<i32>,
    /// Number of lists.
    pub(super) lists: usize,
    /// Slots of the selection.
    pub(super) pairs: usize,
}

impl InverseIndex {
    /// Sorts a selection whose indices are also on the GPU.
    pub(super) fn new(
        op: &'static str,
        gpu: &Gpu,
        block_indices: &BlockIndices,
        indices: &Buffer<i32>,
    ) -> Result<Self> {
        let (documents, kv_heads) = (block_indices.documents(), block_indices.kv_heads());
        let slots = block_indices.block_counts();
        let pairs = documents.total_tokens() * kv_heads * slots;
        let lists = documents.blocks(block_indices.block_size()) * kv_heads;
        // Kernels keep positions in the index as `int`.
        if i32::try_from(pairs).is_err() {
            return Err(KernelError::value(op, "B * T * H * K", "below 2^31", pairs));
        }
        let first_block = device_first_blocks(documents, gpu, block_indices.block_size())?;
        let tiles = pairs.div_ceil(TILE);
        let mut counts = gpu.alloc::<i32>(DIGITS * tiles)?;
        let mut totals = gpu.alloc::<i32>(DIGITS)?;
        let mut sorted: Option<Buffer<Pair>> = None;
        let (kv_heads, slots) = (int("H", kv_heads)?, int("K", slots)?);
        let list_count = int("blocks * H", lists)?;
        let digit_blocks = if tiles == 0 { 0 } else { DIGITS };
        // Unused slots have the number `lists`.
        let bits = lists.checked_ilog2().map_or(1, |bits| bits as usize + 1);
        for shift in (0..bits).step_by(RADIX_BITS) {
            let mut out = gpu.alloc(pairs)?;
            gpu.launch(
                Launch::new([tiles, 1, 1], THREADS),
                CountDigits {
                    indices: indices.input(),
                    first_block: first_block.input(),
                    sorted: sorted.as_ref().map(Buffer::input),
                    counts: counts.output(),
                    pairs: pairs as i64,
                    kv_heads,
                    slots,
                    lists: list_count.cast_unsigned(),
                    shift: shift as i32,
                },
            )?;
            gpu.launch(
                Launch::new([digit_blocks, 1, 1], THREADS),
                ScanTiles {
                    counts: counts.output(),
                    totals: totals.output(),
                    tiles: int("tiles", tiles)?,
                },
            )?;
            gpu.launch(
                Launch::new([tiles, 1, 1], THREADS).shared(SHARED_BYTES),
                ScatterPairs {
                    indices: indices.input(),
                    first_block: first_block.input(),
                    sorted: sorted.as_ref().map(Buffer::input),
                    counts: counts.input(),
                    totals: totals.input(),
                    out: out.output(),
                    pairs: pairs as i64,
                    kv_heads,
                    slots,
                    lists: list_count.cast_unsigned(),
                    shift: shift as i32,
                },
            )?;
            sorted = Some(out);
        }
        let sorted = match sorted {
            Some(sorted) => sorted,
            None => gpu.alloc(0)?,
        };
        let mut starts = gpu.alloc(lists + 1)?;
        gpu.launch(
            Launch::new([(pairs + 1).div_ceil(THREADS), 1, 1], THREADS),
            ListStarts {
                sorted: sorted.input(),
                starts: starts.output(),
                pairs: pairs as i64,
                lists: list_count,
            },
        )?;
        Ok(Self { sorted, starts, lists, pairs })
    }
}
