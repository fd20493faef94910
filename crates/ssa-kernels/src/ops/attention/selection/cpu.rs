//! Block selection on the CPU: one matrix product scores a tile of tokens against all blocks before them.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::SelectionOptions;
use super::top::Selector;
use crate::Documents;
use crate::cpu::gemm::{Matrix, MatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{axpy_simd, dispatch, exp_row_simd, max_row_simd};
use crate::ops::attention::blocks::{Blocks, Tile, split_by_tile};
use crate::ops::attention::shape::AttentionShape;

/// Query rows (tokens times heads of a group) of a tile: enough for the product to run at full speed, few enough for
/// its scores to stay in the core's own cache at a thousand blocks.
const ROWS_PER_TILE: usize = 128;

/// Returns the indices `[B, T, H, slots]`.
pub(super) fn select(
    q: &[f32],
    k_pooled: &[f32],
    shape: AttentionShape,
    documents: &Documents,
    options: &SelectionOptions,
    slots: usize,
    softmax_scale: f32,
) -> Vec<i32> {
    let call = Call { q, k_pooled, shape, options, slots, softmax_scale };
    let mut indices = vec![0; shape.total_tokens() * shape.kv_heads * slots];
    let tiles = Blocks::new(documents, options.block_size).tiles((ROWS_PER_TILE / shape.group()).max(1));
    split_by_tile(&mut indices, tiles, shape.kv_heads * slots)
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, (tile, indices)| {
            call.select_tile(&tile, indices, scratch)
        });
    indices
}

/// What all tiles share.
struct Call<'a> {
    q: &'a [f32],
    k_pooled: &'a [f32],
    shape: AttentionShape,
    options: &'a SelectionOptions,
    slots: usize,
    softmax_scale: f32,
}

/// Buffers of one tile.
#[derive(Default)]
struct Scratch {
    /// Scaled queries of one group `[tokens * G, D]`.
    q: Vec<f32>,
    /// `[tokens * G, complete blocks]`.
    scores: Vec<f32>,
    importance: Vec<f32>,
    selector: Selector,
}

impl Call<'_> {
    /// Fills `indices` `[tokens of the tile, H, slots]`.
    fn select_tile(&self, tile: &Tile, indices: &mut [i32], scratch: &mut Scratch) {
        let AttentionShape { kv_heads, .. } = self.shape;
        let complete = (tile.position(tile.tokens.end - 1) + 1) / self.options.block_size;
        let last_block = tile.position(tile.tokens.end - 1) / self.options.block_size;
        if last_block < self.slots {
            return self.select_all(tile, indices);
        }
        for kv_head in 0..kv_heads {
            self.score(tile, kv_head, complete, scratch);
            for (index, token) in tile.tokens.clone().enumerate() {
                let current = tile.position(token) / self.options.block_size;
                let rows = index * self.shape.group() * complete..(index + 1) * self.shape.group() * complete;
                scratch.importance.clear();
                scratch.importance.resize(current, 0.0);
                dispatch(Importance {
                    scores: &mut scratch.scores[rows],
                    row: complete,
                    complete: (tile.position(token) + 1) / self.options.block_size,
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
            let current = tile.position(token) / self.options.block_size;
            for row in rows.chunks_exact_mut(self.slots) {
                row.fill(-1);
                (0..).zip(&mut row[..=current]).for_each(|(block, slot)| *slot = block);
            }
        }
    }

    /// `scores[(token, h), c] = softmax_scale * q_h . k_pooled_c` for the heads of a group and the first `blocks` blocks.
    fn score(&self, tile: &Tile, kv_head: usize, blocks: usize, scratch: &mut Scratch) {
        let AttentionShape { q_heads, kv_heads, head_dim, .. } = self.shape;
        let group = self.shape.group();
        let rows = tile.tokens.len() * group;
        scratch.q.clear();
        for token in tile.tokens.clone() {
            let q = &self.q[(token * q_heads + kv_head * group) * head_dim..][..group * head_dim];
            scratch.q.extend(q.iter().map(|q| self.softmax_scale * q));
        }
        scratch.scores.resize(rows * blocks, 0.0);
        let k_pooled = &self.k_pooled[(tile.first_block * kv_heads + kv_head) * head_dim..];
        matmul(
            MatrixMut::new(&mut scratch.scores, rows, blocks),
            Output::Overwrite,
            1.0,
            Matrix::new(&scratch.q, rows, head_dim),
            Matrix::with_row_stride(k_pooled, blocks, head_dim, kv_heads * head_dim).t(),
            Threads::One,
        );
    }
}

/// `importance[c] += sum over rows of exp(score_c) / sum of exp over the first complete`; destroys the scores.
struct Importance<'a> {
    scores: &'a mut [f32],
    /// Elements of a row of scores.
    row: usize,
    complete: usize,
    importance: &'a mut [f32],
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
