//! Which tokens chose a block.

use crate::cuda::{Buffer, Gpu, Module, device_struct};
use crate::ops::attention::blocks::device_first_blocks;
use crate::ops::attention::headers;
use crate::ops::attention::selection::BlockIndices;
use crate::{KernelError, Result};

pub(crate) static MODULE: Module = Module {
    name: "inverse_index",
    source: include_str!("../inverse_index.cu"),
    headers: &[&headers::PAIR],
    constants: &[],
    structs: &[],
    variants: &[&[]],
};

/// Threads of a block of the kernels and pairs that one takes.
const THREADS: usize = 256;
const TILE: usize = THREADS * 8;
/// Bits of a list's number that a pass sorts by.
const RADIX_BITS: usize = 11;
const DIGITS: usize = 1 << RADIX_BITS;
/// Shared memory of the last kernel of a pass: counts of 8 warps and one row more.
const SHARED: usize = (THREADS / 32 + 1) * DIGITS * size_of::<i32>();

device_struct! {
    /// A token and the list of a block and key/value head that it chose.
    pub(super) struct Pair {
        list: u32,
        token: u32,
    }
}

/// For every list (block times H plus head) the tokens that chose the block, ascending.
pub(super) struct InverseIndex {
    pub(super) sorted: Buffer<Pair>,
    /// First pair of every list, then the number of pairs that are used, `i32`.
    pub(super) starts: Buffer<i32>,
    /// Number of lists.
    pub(super) lists: usize,
    /// Slots of the selection.
    pub(super) pairs: usize,
}

impl InverseIndex {
    /// Sorts a selection, whose indices lie in `indices`.
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
        let first_blocks = device_first_blocks(documents, gpu, block_indices.block_size())?;
        let tiles = pairs.div_ceil(TILE);
        let mut counts = gpu.alloc::<i32>(DIGITS * tiles)?;
        let mut totals = gpu.alloc::<i32>(DIGITS)?;
        let mut sorted: Option<Buffer<Pair>> = None;
        // Unused slots have the number `lists`.
        let bits = lists.checked_ilog2().map_or(1, |bits| bits as usize + 1);
        for shift in (0..bits).step_by(RADIX_BITS) {
            let mut next = gpu.alloc::<Pair>(pairs)?;
            let kernel = gpu.kernel(&MODULE, "count_digits", &[])?;
            let launch =
                kernel.launch([tiles, 1, 1], THREADS).buffer(indices).buffer(&first_blocks);
            let launch = match &sorted {
                Some(sorted) => launch.buffer(sorted),
                None => launch.null(),
            };
            launch
                .buffer_mut(&mut counts)
                .i64(pairs)
                .i32(kv_heads)
                .i32(slots)
                .i32(lists)
                .i32(shift)
                .run()?;
            gpu.kernel(&MODULE, "scan_tiles", &[])?
                .launch([if tiles == 0 { 0 } else { DIGITS }, 1, 1], THREADS)
                .buffer_mut(&mut counts)
                .buffer_mut(&mut totals)
                .i32(tiles)
                .run()?;
            let kernel = gpu.kernel(&MODULE, "scatter_pairs", &[])?;
            let launch = kernel
                .launch([tiles, 1, 1], THREADS)
                .shared(SHARED)
                .buffer(indices)
                .buffer(&first_blocks);
            let launch = match &sorted {
                Some(sorted) => launch.buffer(sorted),
                None => launch.null(),
            };
            launch
                .buffer(&counts)
                .buffer(&totals)
                .buffer_mut(&mut next)
                .i64(pairs)
                .i32(kv_heads)
                .i32(slots)
                .i32(lists)
                .i32(shift)
                .run()?;
            sorted = Some(next);
        }
        let sorted = match sorted {
            Some(sorted) => sorted,
            None => gpu.alloc::<Pair>(0)?,
        };
        let mut starts = gpu.alloc::<i32>(lists + 1)?;
        gpu.kernel(&MODULE, "list_starts", &[])?
            .launch([(pairs + 1).div_ceil(THREADS), 1, 1], THREADS)
            .buffer(&sorted)
            .buffer_mut(&mut starts)
            .i64(pairs)
            .i32(lists)
            .run()?;
        Ok(Self { sorted, starts, lists, pairs })
    }
}
