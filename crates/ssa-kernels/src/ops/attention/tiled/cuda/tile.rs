//! Tile sizes of the kernels.
//!
//! Times are milliseconds on an H100 at T 8192 with 32 query and 2 key/value heads, of the choice
//! and of what was tried instead (`benchmarks/results/2026-11-25-h100-attention-kernels.json`).

use crate::cuda::{Define, WARP};

/// What a block keeps in shared memory besides the ring of streamed tiles.
#[derive(Clone, Copy)]
enum Owned {
    /// Rows of q.
    Queries,
    /// Rows of q and dout.
    QueriesAndDout,
    /// Rows of k and v; with the streamed rows come their statistics.
    KeysAndValues,
}

/// Sizes that a kernel is compiled with. A block owns the rows of one side of a tile of scores,
/// packed query rows or keys, and streams tiles of the other side past them.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    owned: Owned,
    /// Packed query rows.
    pub(super) rows: usize,
    /// Keys.
    pub(super) keys: usize,
    /// Rows of a streamed tile whose scores are in registers at a time.
    step: usize,
    /// Warps of a block.
    warps: usize,
    /// Streamed tiles in shared memory.
    stages: usize,
    /// Blocks that share a multiprocessor, which bounds the registers of a thread.
    min_blocks: usize,
    /// Owned operands that stay in registers, up to two; the others are read for every tile.
    in_registers: usize,
    /// Parts of the head's columns, each accumulated by a block of its own.
    pub(super) parts: usize,
    /// Whether products are those of warpgroups, which wait for tiles at barriers in shared memory.
    warpgroups: bool,
}

/// What most tiles have in common.
const BASE: Tile = Tile {
    owned: Owned::Queries,
    rows: 128,
    keys: 64,
    step: 64,
    warps: 4,
    stages: 2,
    min_blocks: 1,
    in_registers: 0,
    parts: 1,
    warpgroups: false,
};

/// 0.80; three stages 0.83, 32 keys 0.87 to 0.91, one block of 8 warps 0.85. At 16 rows a warp
/// (0.88) reading keys and values from shared memory bounds the kernel.
pub(super) const FORWARD_64: Tile = Tile { min_blocks: 2, in_registers: 1, ..BASE };
/// 1.60; 64 keys 2.43, 64 keys with 16 rows a warp 1.64. q does not fit into registers.
pub(super) const FORWARD_128: Tile = Tile { keys: 32, step: 32, stages: 3, min_blocks: 2, ..BASE };
/// Outputs take half the registers of a thread: 16 rows a warp, one block.
pub(super) const FORWARD_256: Tile = Tile { rows: 64, keys: 32, step: 32, stages: 3, ..BASE };
/// 0.67; three or five stages 0.70, 128 keys 0.70, three warpgroups in one block 0.76. Two small
/// blocks drift apart: exponentials of one overlap with products of the other.
pub(super) const FORWARD_SM90_64: Tile =
    Tile { warps: 8, stages: 4, min_blocks: 2, warpgroups: true, ..BASE };
/// 1.04; 64 keys 1.16, three warpgroups with 64 keys 1.11.
pub(super) const FORWARD_SM90_128: Tile =
    Tile { keys: 128, step: 128, warps: 8, stages: 3, warpgroups: true, ..BASE };

/// 0.98 with 64 keys and three stages; 16 rows a warp 1.12, steps of 16 keys 1.01. Tiles of 32 keys
/// need 64 KiB of shared memory where those took 80.
pub(super) const QUERIES_64: Tile = Tile {
    owned: Owned::QueriesAndDout,
    keys: 32,
    step: 32,
    stages: 4,
    min_blocks: 2,
    in_registers: 2,
    ..BASE
};
/// 2.21; steps of 16 keys 2.26, 32 rows a warp 2.58: then q and dout do not fit into registers.
pub(super) const QUERIES_128: Tile = Tile {
    owned: Owned::QueriesAndDout,
    rows: 64,
    step: 32,
    min_blocks: 2,
    in_registers: 2,
    ..BASE
};
/// Gradients take half the registers of a thread.
pub(super) const QUERIES_256: Tile =
    Tile { owned: Owned::QueriesAndDout, rows: 64, keys: 32, step: 16, ..BASE };
/// 0.78; four stages 0.82, two warpgroups 0.87, or 0.78 with 128 keys.
pub(super) const QUERIES_SM90_64: Tile = Tile {
    owned: Owned::QueriesAndDout,
    rows: 192,
    warps: 12,
    stages: 6,
    warpgroups: true,
    ..BASE
};
/// 1.22; three stages 1.42, three warpgroups 1.79.
pub(super) const QUERIES_SM90_128: Tile =
    Tile { owned: Owned::QueriesAndDout, warps: 8, stages: 4, warpgroups: true, ..BASE };

/// 1.63; 1.95 with values in registers too, 16 keys a warp 1.75 or more, 32 rows 1.80 or more.
pub(super) const KEYS_64: Tile = Tile {
    owned: Owned::KeysAndValues,
    rows: 64,
    keys: 128,
    step: 16,
    stages: 3,
    min_blocks: 2,
    in_registers: 1,
    ..BASE
};
/// 3.5; two blocks of 4 warps 3.9, 16 rows 4.0 or more.
pub(super) const KEYS_128: Tile = Tile {
    owned: Owned::KeysAndValues,
    rows: 32,
    keys: 128,
    step: 16,
    warps: 8,
    stages: 3,
    in_registers: 2,
    ..BASE
};
/// As [`KEYS_128`], for cards with 100 KiB of shared memory: 81 KiB instead of 113.
pub(super) const KEYS_128_SMALL: Tile = Tile { keys: 64, warps: 4, ..KEYS_128 };
/// The gradients of half the columns take half the registers of a thread.
pub(super) const KEYS_256: Tile =
    Tile { owned: Owned::KeysAndValues, rows: 32, step: 16, parts: 2, ..BASE };
/// 1.15; six stages 1.17, keys and values from shared memory 1.17.
pub(super) const KEYS_SM90_64: Tile = Tile {
    owned: Owned::KeysAndValues,
    rows: 64,
    keys: 128,
    warps: 8,
    stages: 4,
    in_registers: 2,
    warpgroups: true,
    ..BASE
};
/// 2.13; four stages 2.30. Keys and values do not fit into registers.
pub(super) const KEYS_SM90_128: Tile = Tile { stages: 3, in_registers: 0, ..KEYS_SM90_64 };

impl Tile {
    /// Threads of a block.
    pub(super) const fn threads(self) -> usize {
        self.warps * WARP
    }

    /// Bytes of shared memory of a block.
    pub(super) const fn shared_bytes(self, head_dim: usize) -> usize {
        let (owned, streamed, statistics) = match self.owned {
            Owned::Queries => (self.rows, 2 * self.keys, 0),
            Owned::QueriesAndDout => (2 * self.rows, 2 * self.keys, 0),
            Owned::KeysAndValues => {
                (2 * self.keys, 2 * self.rows, self.rows * size_of::<[f32; 2]>())
            }
        };
        let barriers = if self.warpgroups { 2 * size_of::<u64>() } else { 0 };
        owned * row_bytes(head_dim)
            + self.stages * (streamed * row_bytes(head_dim) + statistics + barriers)
    }

    /// The macros of a kernel.
    pub(super) const fn defines(
        self,
        head_dim: usize,
        group: usize,
        keys_are_blocks: bool,
    ) -> [Define; 13] {
        let [head_dim_define, group] = row_defines(head_dim, group);
        [
            head_dim_define,
            group,
            ("KEYS_ARE_BLOCKS", keys_are_blocks as i64),
            ("ROW_BYTES", row_bytes(head_dim) as i64),
            ("TILE_ROWS", self.rows as i64),
            ("TILE_KEYS", self.keys as i64),
            ("STEP", self.step as i64),
            ("WARPS", self.warps as i64),
            ("STAGES", self.stages as i64),
            ("MIN_BLOCKS", self.min_blocks as i64),
            ("IN_REGISTERS", self.in_registers as i64),
            ("PARTS", self.parts as i64),
            ("SHARED_BYTES", self.shared_bytes(head_dim) as i64),
        ]
    }
}

/// The macros that describe rows.
pub(super) const fn row_defines(head_dim: usize, group: usize) -> [Define; 2] {
    [("HEAD_DIM", head_dim as i64), ("GROUP", group as i64)]
}

/// Bytes of a row in shared memory: whole steps of a product, and a power of two so that chunks can
/// be swapped within a row.
const fn row_bytes(head_dim: usize) -> usize {
    2 * head_dim.next_multiple_of(16).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that the kernels assert when they are compiled, for the largest heads.
    #[test]
    fn blocks_fit_the_shared_memory_that_they_are_made_for() {
        for (tile, head_dim, kib) in [
            (FORWARD_64, 64, 48),
            (FORWARD_128, 128, 80),
            (FORWARD_256, 256, 128),
            (FORWARD_SM90_64, 64, 81),
            (FORWARD_SM90_128, 128, 225),
            (QUERIES_64, 64, 64),
            (QUERIES_128, 128, 96),
            (QUERIES_256, 256, 128),
            (QUERIES_SM90_64, 64, 145),
            (QUERIES_SM90_128, 128, 193),
            (KEYS_64, 64, 82),
            (KEYS_128, 128, 113),
            (KEYS_128_SMALL, 128, 81),
            (KEYS_256, 256, 129),
            (KEYS_SM90_64, 64, 99),
            (KEYS_SM90_128, 128, 162),
        ] {
            assert_eq!(tile.shared_bytes(head_dim).div_ceil(1024), kib, "head_dim {head_dim}");
        }
    }
}
