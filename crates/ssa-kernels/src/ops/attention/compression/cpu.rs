//! Attention over block means on the CPU: matrix products of tiles of tokens.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::CompressionGrads;
use crate::Documents;
use crate::cpu::gemm::{Matrix, MatrixMut, Output, Threads, matmul};
use crate::cpu::ordered_sum::{Addend, add_in_order};
use crate::cpu::simd::{dispatch, dot_simd, exp_row_simd, max_row_simd};
use crate::ops::attention::blocks::{Blocks, Tile, split_by_tile};
use crate::ops::attention::pooled::{complete_blocks, gather_group, means, score, tokens_per_tile};
use crate::ops::attention::shape::{AttentionOutput, AttentionShape};

/// Parts of the tokens with private gradients of the means in the backward: enough to keep many threads busy; the
/// copies are as small as the means, a block size smaller than k.
const BACKWARD_PARTS: usize = 32;

/// What all tiles share.
struct Call<'a> {
    q: &'a [f32],
    k_pooled: &'a [f32],
    v_pooled: &'a [f32],
    shape: AttentionShape,
    block_size: usize,
    softmax_scale: f32,
}

/// Buffers of one tile and key/value head: rows `[tokens * G, D]`, scores `[tokens * G, complete blocks]`.
#[derive(Default)]
struct Scratch {
    q: Vec<f32>,
    dout: Vec<f32>,
    /// Scores, then probabilities.
    p: Vec<f32>,
    ds: Vec<f32>,
    /// Output or dq.
    sum: Vec<f32>,
}

pub(super) fn forward(
    [q, k_pooled, v_pooled]: [&[f32]; 3],
    shape: AttentionShape,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let call = Call { q, k_pooled, v_pooled, shape, block_size, softmax_scale };
    let tiles = Blocks::new(documents, block_size).tiles(tokens_per_tile(shape));
    let out = split_by_tile(out, tiles.clone(), shape.q_heads * shape.head_dim);
    let lse = split_by_tile(lse, tiles, shape.q_heads);
    out.into_par_iter().zip(lse).for_each_init(Scratch::default, |scratch, ((tile, out), (_, lse))| {
        call.forward_tile(&tile, out, lse, scratch);
    });
}

#[expect(clippy::too_many_arguments, reason = "those of the op")]
pub(super) fn backward(
    dout: &[f32],
    [q, k_pooled, v_pooled]: [&[f32]; 3],
    output: &AttentionOutput,
    shape: AttentionShape,
    documents: &Documents,
    block_size: usize,
    softmax_scale: f32,
    grads: &mut CompressionGrads,
) {
    let call = Call { q, k_pooled, v_pooled, shape, block_size, softmax_scale };
    let CompressionGrads { dq, dk_pooled, dv_pooled } = grads;
    let tiles = Blocks::new(documents, block_size).tiles(tokens_per_tile(shape));
    let mut tiles = split_by_tile(dq.as_mut_slice(), tiles, shape.q_heads * shape.head_dim);
    let tiles_per_part = tiles.len().div_ceil(BACKWARD_PARTS).max(1);
    let width = shape.kv_heads * shape.head_dim;
    let parts = tiles.chunks_mut(tiles_per_part).map(|part| {
        // The blocks a part sees reach from the first document it touches to the last block it completes.
        let start = part.first().map_or(0, |(tile, _)| tile.first_block);
        let seen = |tile: &Tile| tile.first_block + complete_blocks(tile, tile.tokens.end - 1, block_size);
        let end = part.iter().map(|(tile, _)| seen(tile)).max().unwrap_or(start);
        Addend { range: start * width..end * width, task: (start, part) }
    });
    add_in_order(
        [dk_pooled.as_mut_slice(), dv_pooled.as_mut_slice()],
        parts.collect(),
        |(first_block, part), mut buffers| {
            let mut scratch = Scratch::default();
            for (tile, dq) in part {
                // The buffers begin with the part's first block.
                let offset = (tile.first_block - first_block) * width;
                let pooled = buffers.each_mut().map(|buffer| &mut buffer[offset..]);
                call.backward_tile(
                    tile,
                    [dout, output.out.as_slice(), output.lse.as_slice()],
                    dq,
                    pooled,
                    &mut scratch,
                );
            }
        },
    );
}

impl Call<'_> {
    /// Fills out `[tokens, HQ, D]` and lse `[tokens, HQ]` of the tile.
    fn forward_tile(&self, tile: &Tile, out: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
        let AttentionShape { q_heads, head_dim, .. } = self.shape;
        let (group, blocks) = (self.shape.group(), self.blocks(tile));
        if blocks == 0 {
            out.fill(0.0);
            lse.fill(f32::NEG_INFINITY);
            return;
        }
        for kv_head in 0..self.shape.kv_heads {
            gather_group(&mut scratch.q, self.q, self.shape, tile, kv_head, self.softmax_scale);
            let k_pooled = means(self.k_pooled, self.shape, tile, kv_head, blocks);
            score(&mut scratch.p, &scratch.q, k_pooled, self.shape, blocks);
            for (row, scores) in scratch.p.chunks_exact_mut(blocks).enumerate() {
                let (index, head) = (row / group, kv_head * group + row % group);
                let complete = complete_blocks(tile, tile.tokens.start + index, self.block_size);
                lse[index * q_heads + head] = dispatch(Softmax { scores, complete });
            }
            let v_pooled = means(self.v_pooled, self.shape, tile, kv_head, blocks);
            self.weigh(&mut scratch.sum, &scratch.p, v_pooled, blocks);
            for (row, sum) in scratch.sum.chunks_exact(head_dim).enumerate() {
                let row = row / group * q_heads + kv_head * group + row % group;
                out[row * head_dim..(row + 1) * head_dim].copy_from_slice(sum);
            }
        }
    }

    /// Adds to dq `[tokens, HQ, D]` of the tile and to the gradients of its document's means.
    fn backward_tile(
        &self,
        tile: &Tile,
        [dout, out, lse]: [&[f32]; 3],
        dq: &mut [f32],
        [dk_pooled, dv_pooled]: [&mut [f32]; 2],
        scratch: &mut Scratch,
    ) {
        let AttentionShape { q_heads, head_dim, .. } = self.shape;
        let (group, blocks) = (self.shape.group(), self.blocks(tile));
        if blocks == 0 {
            return;
        }
        for kv_head in 0..self.shape.kv_heads {
            gather_group(&mut scratch.q, self.q, self.shape, tile, kv_head, self.softmax_scale);
            gather_group(&mut scratch.dout, dout, self.shape, tile, kv_head, 1.0);
            let k_pooled = means(self.k_pooled, self.shape, tile, kv_head, blocks);
            let v_pooled = means(self.v_pooled, self.shape, tile, kv_head, blocks);
            score(&mut scratch.p, &scratch.q, k_pooled, self.shape, blocks);
            score(&mut scratch.ds, &scratch.dout, v_pooled, self.shape, blocks);
            let rows = scratch.p.chunks_exact_mut(blocks).zip(scratch.ds.chunks_exact_mut(blocks));
            for (row, (p, ds)) in rows.enumerate() {
                let token = tile.tokens.start + row / group;
                let query = token * q_heads + kv_head * group + row % group;
                let elements = query * head_dim..(query + 1) * head_dim;
                dispatch(ScoreGradient {
                    p,
                    ds,
                    complete: complete_blocks(tile, token, self.block_size),
                    lse: lse[query],
                    out: &out[elements.clone()],
                    dout: &dout[elements],
                });
            }
            self.weigh(&mut scratch.sum, &scratch.ds, k_pooled, blocks);
            for (row, sum) in scratch.sum.chunks_exact(head_dim).enumerate() {
                let row = row / group * q_heads + kv_head * group + row % group;
                let dq = &mut dq[row * head_dim..(row + 1) * head_dim];
                dq.iter_mut().zip(sum).for_each(|(dq, sum)| *dq += self.softmax_scale * sum);
            }
            // The queries are scaled already, so their products with ds are the whole gradient.
            self.add_to_means(dk_pooled, kv_head, &scratch.ds, &scratch.q, blocks);
            self.add_to_means(dv_pooled, kv_head, &scratch.p, &scratch.dout, blocks);
        }
    }

    /// Blocks that the last token of the tile sees.
    fn blocks(&self, tile: &Tile) -> usize {
        complete_blocks(tile, tile.tokens.end - 1, self.block_size)
    }

    /// `sum = weights means` `[rows, D]`.
    fn weigh(&self, sum: &mut Vec<f32>, weights: &[f32], means: Matrix<'_>, blocks: usize) {
        let (rows, dim) = (weights.len() / blocks, self.shape.head_dim);
        sum.resize(rows * dim, 0.0);
        let out = MatrixMut::new(sum, rows, dim);
        matmul(out, Output::Overwrite, 1.0, Matrix::new(weights, rows, blocks), means, Threads::One);
    }

    /// `grad[c, kv_head] += sum over rows of weights[row, c] * x[row]`.
    fn add_to_means(&self, grad: &mut [f32], kv_head: usize, weights: &[f32], x: &[f32], blocks: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        let rows = weights.len() / blocks;
        let grad = &mut grad[kv_head * head_dim..];
        matmul(
            MatrixMut::with_row_stride(grad, blocks, head_dim, kv_heads * head_dim),
            Output::Add,
            1.0,
            Matrix::new(weights, rows, blocks).t(),
            Matrix::new(x, rows, head_dim),
            Threads::One,
        );
    }
}

/// Turns the first `complete` scores of a row into probabilities and the rest into zeros; returns lse.
struct Softmax<'a> {
    scores: &'a mut [f32],
    complete: usize,
}

impl WithSimd for Softmax<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (scores, behind) = self.scores.split_at_mut(self.complete);
        behind.fill(0.0);
        if scores.is_empty() {
            return f32::NEG_INFINITY;
        }
        let max = max_row_simd(simd, scores);
        let sum = exp_row_simd(simd, scores, 1.0, max);
        let inverse = 1.0 / sum;
        scores.iter_mut().for_each(|p| *p *= inverse);
        max + sum.ln()
    }
}

/// Turns scores into probabilities `p = exp(s - lse)` and `ds = dout . v_pooled` into `p (ds - dout . out)`.
struct ScoreGradient<'a> {
    p: &'a mut [f32],
    ds: &'a mut [f32],
    complete: usize,
    lse: f32,
    out: &'a [f32],
    dout: &'a [f32],
}

impl WithSimd for ScoreGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (p, behind) = self.p.split_at_mut(self.complete);
        behind.fill(0.0);
        let (ds, behind) = self.ds.split_at_mut(self.complete);
        behind.fill(0.0);
        exp_row_simd(simd, p, 1.0, self.lse);
        let delta = dot_simd(simd, self.dout, self.out);
        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = *p * (*ds - delta));
    }
}
