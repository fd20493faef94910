//! Sparse attention on the CPU.
//!
//! Every (token, key/value head) is computed on its own: its G query rows against K blocks. A
//! pre-pass copies every block once into a padded matrix ([`packed`]), so that the products
//! ([`register_tile`](crate::cpu::register_tile)) run on whole vectors at any size; the copies take
//! as much memory as k and v and a small part of the time.
//!
//! Neighboring tokens could share the blocks they have in common in one larger product. But trained
//! selections of 8 neighbors have a union of about 1.8 times the blocks of one: that would cost 1.8
//! times the arithmetic, and the products of one token already run near the speed of a large one.

mod backward;
mod chunk;
mod forward;
mod keys;
mod packed;
mod queries;
mod tiles;

pub(super) use backward::backward;
pub(super) use chunk::Queries;
pub(super) use forward::forward;

use super::super::blocks::Blocks;
use super::super::selection::HostBlockIndices;
use super::super::shape::AttentionShape;
use crate::cpu::register_tile::padded;
use crate::tensor::addressable_len;
use crate::{KernelError, Result};

/// Fewest tokens of a parallel task: enough work to hide its scheduling at small budgets.
const TOKENS_PER_TASK: usize = 4;

/// What all tasks of a call share.
pub(super) struct SparseContext<'a> {
    shape: AttentionShape,
    block_indices: &'a HostBlockIndices,
    softmax_scale: f32,
    blocks: Blocks,
    /// First block of the document of every token.
    first_blocks: Vec<usize>,
    /// Tokens of a block, at most as many as the longest document has: what a packed block holds.
    block_size: usize,
}

impl<'a> SparseContext<'a> {
    /// # Errors
    /// Memory cannot hold the scores of a token.
    pub(super) fn new(
        op: &'static str,
        shape: AttentionShape,
        block_indices: &'a HostBlockIndices,
        softmax_scale: f32,
    ) -> Result<Self> {
        let documents = block_indices.documents();
        let block_size = block_indices.block_size().min(documents.longest().max(1));
        // A slot in `padded` elements and one vector more.
        let scores = [shape.q_heads, block_indices.block_counts(), padded(block_size) + padded(1)];
        if addressable_len(size_of::<f32>(), &scores).is_none() {
            let expected = format!("fewer slots for {} heads", shape.q_heads);
            let slots = format!("a selection of {} slots", block_indices.block_counts());
            return Err(KernelError::value(op, "block_indices", expected, slots));
        }
        let blocks = Blocks::new(documents, block_size);
        let first_blocks = blocks.first_blocks();
        Ok(Self { shape, block_indices, softmax_scale, blocks, first_blocks, block_size })
    }

    /// Elements of a padded row of q, v or out.
    fn dim(&self) -> usize {
        padded(self.shape.head_dim)
    }

    /// Elements of a slot, the scores of one selected block, in a row of scores.
    fn slot(&self) -> usize {
        padded(self.block_size)
    }

    /// Elements from one row of scores to the next. The extra vector keeps the rows of a group out
    /// of the same cache sets: block sizes and counts tend to be powers of two.
    fn scores_stride(&self) -> usize {
        self.block_indices.block_counts() * self.slot() + padded(1)
    }

    /// Writes the numbers of the packed matrices of the selected blocks to `matrices` and returns
    /// how many tokens of the last one, the token's own, the token sees.
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
    /// Only the last slot has later tokens: all others hold complete blocks.
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
