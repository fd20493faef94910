//! Sparse attention on the CPU.
//!
//! Every (token, key/value head) is computed on its own: its G query rows against K blocks. A
//! pre-pass copies every block once into a padded matrix ([`packed`]), so that the products
//! ([`tiles`]) run on whole vectors at any size; the copies take as much memory as k and v and a
//! small part of the time.
//!
//! Neighbouring tokens could share the blocks they have in common in one larger product. Trained
//! selections of 8 neighbours have a union of about 1.8 times the blocks of one, though, so that
//! would pay 1.8 times the arithmetic, and the products of one token already run near the speed of
//! a large one.

mod backward;
mod forward;
mod keys;
mod packed;
mod queries;
mod tiles;

pub(super) use backward::backward;
pub(super) use forward::forward;

use packed::padded;

use super::super::blocks::Blocks;
use super::super::selection::BlockIndices;
use super::super::shape::AttentionShape;
use crate::Documents;

/// Tokens of a parallel task at least: enough work to hide its scheduling at small budgets.
const TOKENS_PER_TASK: usize = 4;

/// What all tasks of a call share.
struct Call<'a> {
    shape: AttentionShape,
    block_indices: &'a BlockIndices,
    softmax_scale: f32,
    blocks: Blocks,
    /// First block of the document of every token.
    first_blocks: Vec<usize>,
    /// Tokens of a block, at most as many as the longest document has: what a packed block holds.
    block_size: usize,
}

impl<'a> Call<'a> {
    fn new(shape: AttentionShape, block_indices: &'a BlockIndices, softmax_scale: f32) -> Self {
        let documents: &Documents = block_indices.documents();
        let longest = documents.ranges().map(|range| range.len()).max().unwrap_or(1);
        let block_size = block_indices.block_size().min(longest);
        let blocks = Blocks::new(documents, block_size);
        let first_blocks = blocks.first_blocks();
        Self { shape, block_indices, softmax_scale, blocks, first_blocks, block_size }
    }

    /// Elements of a padded row of q, v or out.
    fn dim(&self) -> usize {
        padded(self.shape.head_dim)
    }

    /// Elements of a slot, the scores of one selected block, in a row of scores.
    fn slot(&self) -> usize {
        padded(self.block_size)
    }

    /// Elements from one row of scores to the next. The odd vector keeps the rows of a group out of
    /// the same cache sets, which the powers of two that block sizes and counts tend to be would
    /// fill.
    fn scores_stride(&self) -> usize {
        self.block_indices.block_counts() * self.slot() + padded(1)
    }

    /// Numbers of the packed matrices of the selected blocks, into `matrices`; returns how many
    /// tokens of the last one, the token's own, are not behind it.
    fn select(&self, token: usize, kv_head: usize, matrices: &mut Vec<usize>) -> usize {
        let first = self.first_blocks[token];
        let selected = self.block_indices.selected(token, kv_head);
        let matrix = |block: &i32| (first + *block as usize) * self.shape.kv_heads + kv_head;
        matrices.clear();
        matrices.extend(selected.iter().map(matrix));
        selected
            .last()
            .map_or(0, |last| token + 1 - self.blocks.range(first + *last as usize).start)
    }

    /// Sets the scores of padding and of later tokens in one row of scores to negative infinity.
    /// Only the last slot has later tokens: all others hold whole blocks.
    fn mask(&self, scores: &mut [f32], visible: usize) {
        let slot = self.slot();
        if self.block_size < slot {
            scores
                .chunks_exact_mut(slot)
                .for_each(|slot| slot[self.block_size..].fill(f32::NEG_INFINITY));
        }
        let last = scores.len() - slot + visible;
        scores[last..].fill(f32::NEG_INFINITY);
    }
}

/// Copies contiguous rows of `dim` elements into rows of `padded(dim)`, times `factor`; the padding
/// stays as it is.
#[inline(always)]
fn pad_rows(padded_rows: &mut [f32], rows: &[f32], dim: usize, factor: f32) {
    for (out, row) in padded_rows.chunks_exact_mut(padded(dim)).zip(rows.chunks_exact(dim)) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out = factor * x);
    }
}
