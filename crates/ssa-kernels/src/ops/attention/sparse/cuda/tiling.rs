//! How the kernels divide heads and blocks among warps.

use crate::cuda::{Define, WARP};

/// Warps of a block of the kernels.
pub(super) const WARPS: usize = 4;
/// Threads of a block of the kernels.
pub(super) const THREADS: usize = WARPS * WARP;
/// Rows of a product, heads or keys, and its depth in elements of a head.
pub(super) const ROWS: usize = 16;
/// The longest slice of a head that a warp accumulates: registers do not hold more.
const LONGEST_SLICE: usize = 128;

/// The sizes that kernels are compiled for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub(super) head_dim: usize,
    /// Query heads per key/value head.
    pub(super) group: usize,
    pub(super) block_size: usize,
}

impl Tiling {
    /// Tiles of 16 heads of a group.
    pub(super) const fn head_tiles(self) -> usize {
        self.group.div_ceil(ROWS)
    }

    /// Tiles of 16 keys of a block.
    pub(super) const fn key_tiles(self) -> usize {
        self.block_size.div_ceil(ROWS)
    }

    /// Key tiles that the warps of a block of threads hold together; warps that share one divide
    /// its tokens. A power of two, so that it divides the warps.
    pub(super) const fn key_tiles_at_once(self) -> usize {
        match self.key_tiles() {
            0 | 1 => 1,
            2 | 3 => 2,
            _ => WARPS,
        }
    }

    /// Elements of the head that one warp accumulates: all, or a divisor where registers do not
    /// hold them.
    pub(super) const fn slice(self) -> usize {
        if self.head_dim <= LONGEST_SLICE {
            return self.head_dim;
        }
        let mut slice = LONGEST_SLICE / 2;
        while !self.head_dim.is_multiple_of(slice) {
            slice -= ROWS;
        }
        slice
    }

    /// Slices of the head.
    pub(super) const fn slices(self) -> usize {
        self.head_dim / self.slice()
    }

    /// `f32` of a piece of a list: dk and dv of all keys of a block.
    pub(super) const fn piece_len(self) -> usize {
        self.key_tiles() * ROWS * 2 * self.head_dim
    }

    /// Blocks of threads that add up a slice of a key tile of a list, a word of two elements of 16
    /// rows a warp.
    pub(super) const fn sum_blocks(self) -> usize {
        2 * self.slice() / 8 / WARPS
    }

    /// Bytes of shared memory of the kernel that owns keys: k and v of 16 keys for each warp.
    pub(super) const fn shared_bytes(self) -> usize {
        WARPS * ROWS * 2 * self.head_dim * size_of::<u16>()
    }

    /// The macros of the kernels.
    pub(super) const fn defines(self) -> [Define; 10] {
        [
            ("HEAD_DIM", self.head_dim as i64),
            ("GROUP", self.group as i64),
            ("HEAD_TILES", self.head_tiles() as i64),
            ("BLOCK_SIZE", self.block_size as i64),
            ("KEY_TILES", self.key_tiles() as i64),
            ("TILES_AT_ONCE", self.key_tiles_at_once() as i64),
            ("SLICE", self.slice() as i64),
            ("SHARED_BYTES", self.shared_bytes() as i64),
            ("PIECE_LENGTH", self.piece_len() as i64),
            ("SUM_BLOCKS", self.sum_blocks() as i64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_divide_the_head() {
        for (head_dim, slice) in
            [(16, 16), (64, 64), (128, 128), (144, 48), (160, 32), (176, 16), (192, 64), (256, 64)]
        {
            assert_eq!(Tiling { head_dim, group: 1, block_size: 16 }.slice(), slice, "{head_dim}");
        }
    }

    #[test]
    fn warps_share_key_tiles_evenly() {
        for (block_size, key_tiles, at_once) in
            [(1, 1, 1), (16, 1, 1), (32, 2, 2), (48, 3, 2), (64, 4, 4), (128, 8, 4)]
        {
            let tiling = Tiling { head_dim: 64, group: 16, block_size };
            assert_eq!((tiling.key_tiles(), tiling.key_tiles_at_once()), (key_tiles, at_once));
        }
    }
}
