//! Block selection on the CPU: one matrix product scores a tile of tokens against all blocks before
//! them.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::scores::{complete_blocks, gather_group, means, score, tokens_per_tile};
use super::top::Selector;
use super::{SelectionCall, SelectionOptions};
use crate::Result;
use crate::cpu::simd::{axpy_simd, dispatch, exp_row_simd, max_row_simd};
use crate::host_memory::zeros;
use crate::ops::attention::blocks::{Blocks, Tile, split_by_tile};
use crate::ops::attention::shape::AttentionShape;

/// Returns the indices `[B, T, H, slots]`.
///
/// # Errors
/// A tensor is not on the CPU; [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn select(call: &SelectionCall<'_>) -> Result<Vec<i32>> {
    let &SelectionCall { q, k_pooled, documents, options, shape, slots, softmax_scale } = call;
    let (q, k_pooled) = (q.as_slice()?, k_pooled.as_slice()?);
    let selection = Selection { q, k_pooled, options, shape, slots, softmax_scale };
    let row = shape.kv_heads * slots;
    let mut indices = zeros(shape.total_tokens() * row)?;
    let tiles = Blocks::new(documents, options.budget.block_size()).tiles(tokens_per_tile(shape));
    split_by_tile(&mut indices, tiles, row)
        .into_par_iter()
        .for_each_init(SelectionScratch::default, |scratch, (tile, indices)| {
            selection.select_tile(&tile, indices, scratch)
        });
    Ok(indices)
}

/// A [`SelectionCall`] whose tensors are on the CPU.
struct Selection<'a> {
    q: &'a [f32],
    k_pooled: &'a [f32],
    options: &'a SelectionOptions,
    shape: AttentionShape,
    slots: usize,
    softmax_scale: f32,
}

/// Buffers of one tile.
#[derive(Default)]
struct SelectionScratch {
    /// Scaled queries of one group `[tokens * G, D]`.
    q: Vec<f32>,
    /// `[tokens * G, complete blocks]`.
    scores: Vec<f32>,
    importance: Vec<f32>,
    selector: Selector,
}

impl Selection<'_> {
    /// Fills `indices` `[tokens of the tile, H, slots]`.
    fn select_tile(&self, tile: &Tile, indices: &mut [i32], scratch: &mut SelectionScratch) {
        let AttentionShape { kv_heads, .. } = self.shape;
        let block_size = self.options.budget.block_size();
        let complete = complete_blocks(tile, tile.tokens.end - 1, block_size);
        let last_block = tile.position(tile.tokens.end - 1) / block_size;
        if last_block < self.slots {
            return self.select_all(tile, indices);
        }
        for kv_head in 0..kv_heads {
            gather_group(&mut scratch.q, self.q, self.shape, tile, kv_head, self.softmax_scale);
            let means = means(self.k_pooled, self.shape, tile, kv_head, complete);
            score(&mut scratch.scores, &scratch.q, means, self.shape, complete);
            for (index, token) in tile.tokens.clone().enumerate() {
                let current = tile.position(token) / block_size;
                let rows = index * self.shape.group() * complete
                    ..(index + 1) * self.shape.group() * complete;
                scratch.importance.clear();
                scratch.importance.resize(current, 0.0);
                dispatch(Importance {
                    scores: &mut scratch.scores[rows],
                    row: complete,
                    complete: complete_blocks(tile, token, block_size),
                    importance: &mut scratch.importance,
                });
                let slots = &mut indices[(index * kv_heads + kv_head) * self.slots..][..self.slots];
                scratch.selector.select(&scratch.importance, self.options, slots);
            }
        }
    }

    /// The selection of a tile whose tokens have no more blocks than slots.
    fn select_all(&self, tile: &Tile, indices: &mut [i32]) {
        let rows = indices.chunks_exact_mut(self.shape.kv_heads * self.slots);
        for (token, rows) in tile.tokens.clone().zip(rows) {
            let current = tile.position(token) / self.options.budget.block_size();
            for row in rows.chunks_exact_mut(self.slots) {
                row.fill(-1);
                (0..).zip(&mut row[..=current]).for_each(|(block, slot)| *slot = block);
            }
        }
    }
}

/// `importance[c] += sum over rows of exp(score_c) / sum of exp over the first complete`; destroys
/// the scores.
///
/// This softmax is `f32` with vectorized exponentials and keeps no outputs: only the ranking of its
/// sums over heads counts. That of the statistics op is `f64`, since its results are differences of
/// nearly equal numbers.
pub(crate) struct Importance<'a> {
    pub(crate) scores: &'a mut [f32],
    /// Elements of a row of scores.
    pub(crate) row: usize,
    pub(crate) complete: usize,
    pub(crate) importance: &'a mut [f32],
}

impl WithSimd for Importance<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for scores in self.scores.chunks_exact_mut(self.row) {
            let scores = &mut scores[..self.complete];
            let max = max_row_simd(simd, scores);
            let sum = exp_row_simd(simd, scores, 1.0, max);
            axpy_simd(simd, self.importance, 1.0 / sum, &scores[..self.importance.len()]);
        }
    }
}
