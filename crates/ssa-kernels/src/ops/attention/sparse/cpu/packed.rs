//! Blocks of keys or values, each copied into its own padded matrix.

use rayon::prelude::*;

use super::super::super::blocks::Blocks;
use crate::Result;
use crate::cpu::register_tile::{Matrices, padded};
use crate::host_memory::zeros;

/// One matrix per block and key/value head, `[C, H, rows, width]`. Padding is zero: the missing
/// tokens of a partial last block and the columns up to a whole vector.
pub(super) struct Packed {
    data: Vec<f32>,
    rows: usize,
    width: usize,
}

impl Packed {
    /// `x` `[N, H, D]` as matrices `[block_size, padded D]`.
    pub(super) fn blocks(
        x: &[f32],
        blocks: &Blocks,
        block_size: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self> {
        Self::new(blocks, heads, block_size, padded(dim), |block, head, width, matrix| {
            for (token, row) in blocks.range(block).zip(matrix.chunks_exact_mut(width)) {
                row[..dim].copy_from_slice(&x[(token * heads + head) * dim..][..dim]);
            }
        })
    }

    /// `x` `[N, H, D]` as matrices `[D, padded block_size]`.
    pub(super) fn transposed(
        x: &[f32],
        blocks: &Blocks,
        block_size: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self> {
        Self::new(blocks, heads, dim, padded(block_size), |block, head, width, matrix| {
            for (column, token) in blocks.range(block).enumerate() {
                let x = &x[(token * heads + head) * dim..][..dim];
                for (row, x) in matrix.chunks_exact_mut(width).zip(x) {
                    row[column] = *x;
                }
            }
        })
    }

    fn new(
        blocks: &Blocks,
        heads: usize,
        rows: usize,
        width: usize,
        fill: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
    ) -> Result<Self> {
        let mut data = zeros(blocks.len() * heads * rows * width)?;
        data.par_chunks_exact_mut(rows * width)
            .enumerate()
            .for_each(|(index, matrix)| fill(index / heads, index % heads, width, matrix));
        Ok(Self { data, rows, width })
    }

    /// The matrices of these numbers.
    pub(super) fn select<'a>(&'a self, numbers: &'a [usize]) -> Selected<'a> {
        Selected { packed: self, numbers }
    }

    /// The matrix of number `block * H + kv_head`.
    #[inline]
    pub(super) fn matrix(&self, index: usize) -> &[f32] {
        let len = self.rows * self.width;
        &self.data[index * len..(index + 1) * len]
    }
}

/// Some of the matrices of a [`Packed`], by number.
pub(super) struct Selected<'a> {
    packed: &'a Packed,
    numbers: &'a [usize],
}

impl Matrices for Selected<'_> {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    #[inline]
    fn matrix(&self, index: usize) -> &[f32] {
        self.packed.matrix(self.numbers[index])
    }

    fn rows(&self, _: usize) -> usize {
        self.packed.rows
    }

    fn width(&self) -> usize {
        self.packed.width
    }
}
