//! Phase 2 of the backward pass: parallel over the blocks that a chunk of tokens selected.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::SparseContext;
use super::chunk::Chunk;
use super::tiles::TransposedSum;
use crate::cpu::register_tile::run;
use crate::cpu::simd::dispatch;

/// Queries whose rows every tile of the gradient reads: few enough to stay in the L2 cache.
const QUERIES_PER_PASS: usize = 8;

/// A query group that selected a block. The order is that of the work: by block, then key/value
/// head, then token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    block: u32,
    kv_head: u32,
    /// Counted from the start of the chunk.
    token: u32,
    slot: u32,
}

/// Adds what the first `tokens` tokens of the chunk contribute to dk and dv.
pub(super) fn run_phase(
    context: &SparseContext<'_>,
    chunk: &Chunk,
    tokens: usize,
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let entries = entries(context, chunk.start, tokens);
    let width = context.shape.kv_heads * context.shape.head_dim;
    let mut blocks = Vec::new();
    let (mut dk, mut dv, mut position) = (dk, dv, 0);
    for entries in entries.chunk_by(|a, b| a.block == b.block) {
        let range = context.blocks.range(entries[0].block as usize);
        let (skipped, len) = ((range.start - position) * width, range.len() * width);
        position = range.end;
        let (block_dk, block_dv);
        (block_dk, dk) = dk[skipped..].split_at_mut(len);
        (block_dv, dv) = dv[skipped..].split_at_mut(len);
        blocks.push((entries, block_dk, block_dv));
    }
    blocks.into_par_iter().for_each_init(
        || KeyScratch {
            rows: Vec::with_capacity(QUERIES_PER_PASS),
            sum: vec![0.0; context.block_size * context.dim()],
        },
        |scratch, (entries, dk, dv)| {
            for entries in entries.chunk_by(|a, b| a.kv_head == b.kv_head) {
                for (weights, x, out) in
                    [(&chunk.ds, &chunk.q, &mut *dk), (&chunk.p, &chunk.dout, &mut *dv)]
                {
                    dispatch(BlockGradient { context, entries, weights, x, out, scratch });
                }
            }
        },
    );
}

fn entries(context: &SparseContext<'_>, start: usize, tokens: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    for token in 0..tokens {
        for kv_head in 0..context.shape.kv_heads {
            let selected = context.block_indices.selected(start + token, kv_head);
            let first = context.first_blocks[start + token] as u32;
            entries.extend(selected.iter().enumerate().map(|(slot, block)| Entry {
                block: first + *block as u32,
                kv_head: kv_head as u32,
                token: token as u32,
                slot: slot as u32,
            }));
        }
    }
    // No two entries are equal, so an unstable sort has one result.
    entries.par_sort_unstable();
    entries
}

struct KeyScratch {
    /// Where the rows of the entries of a pass begin in weights and x.
    rows: Vec<(usize, usize)>,
    /// `[block_size, padded D]`.
    sum: Vec<f32>,
}

/// `out[j] += sum over entries and heads of weights[j] * x` for the tokens j of one block and
/// key/value head.
struct BlockGradient<'a> {
    context: &'a SparseContext<'a>,
    entries: &'a [Entry],
    /// `[tokens, HQ, scores_stride]`.
    weights: &'a [f32],
    /// `[tokens, HQ, padded D]`.
    x: &'a [f32],
    /// `[tokens of the block, H, D]`.
    out: &'a mut [f32],
    scratch: &'a mut KeyScratch,
}

impl WithSimd for BlockGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { context, entries, weights, x, out, scratch } = self;
        let (group, heads, dim) =
            (context.shape.group(), context.shape.kv_heads, context.shape.head_dim);
        scratch.sum.fill(0.0);
        for entries in entries.chunks(QUERIES_PER_PASS) {
            scratch.rows.clear();
            scratch.rows.extend(entries.iter().map(|entry| {
                let row =
                    entry.token as usize * context.shape.q_heads + entry.kv_head as usize * group;
                (
                    row * context.scores_stride() + entry.slot as usize * context.slot(),
                    row * context.dim(),
                )
            }));
            let mut product = TransposedSum {
                entries: &scratch.rows,
                weights,
                weights_stride: context.scores_stride(),
                x,
                rows: group,
                width: context.dim(),
                out: &mut scratch.sum,
            };
            run(simd, context.block_size, context.dim(), &mut product);
        }
        let kv_head = entries[0].kv_head as usize;
        for (out, sum) in
            out.chunks_exact_mut(heads * dim).zip(scratch.sum.chunks_exact(context.dim()))
        {
            let out = &mut out[kv_head * dim..(kv_head + 1) * dim];
            out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
        }
    }
}
