//! The forward pass: online softmax over key tiles.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::TiledSlices;
use super::tiles::{QueryTile, gather_rows, key_tile, split_by_tiles};
use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{dispatch, exp_row_simd, max_row_simd};
use crate::ops::attention::tiled::Visibility;

/// Writes `out` and `lse` of every token.
pub(crate) fn forward(call: &TiledSlices<'_>, out: &mut [f32], lse: &mut [f32]) {
    let shape = &call.shape;
    let tiles = QueryTile::partition(call);
    let out = split_by_tiles(out, &tiles, shape.q_heads * shape.head_dim);
    let lse = split_by_tiles(lse, &tiles, shape.q_heads);
    // Tiles differ in work and each is large, so each gets its own task.
    (&tiles, out, lse).into_par_iter().with_max_len(1).for_each(|(tile, out, lse)| {
        for kv_head in 0..shape.kv_heads {
            let mut rows = ForwardRows::new(call, tile, kv_head);
            for keys in tile.key_tiles(call.visibility) {
                rows.attend(call, tile, kv_head, &keys);
            }
            rows.finish(call, kv_head, out, lse);
        }
    });
}

/// The rows `(token, head of the group)` of one query tile and key/value head, and their softmax so
/// far.
struct ForwardRows {
    /// `[rows, D]`.
    q: Vec<f32>,
    /// `[rows, keys of a tile]`: scores, then probabilities relative to `max`.
    scores: Vec<f32>,
    /// `[rows, D]`: sum of values under these probabilities.
    out: Vec<f32>,
    state: Vec<SoftmaxState>,
}

#[derive(Clone, Copy)]
struct SoftmaxState {
    /// Largest score seen.
    max: f32,
    /// Sum of `e^(score - max)`.
    sum: f32,
}

impl ForwardRows {
    fn new(call: &TiledSlices<'_>, tile: &QueryTile, kv_head: usize) -> Self {
        let rows = tile.queries.len() * call.shape.group();
        let mut q = vec![0.0; rows * call.shape.head_dim];
        let token = call.shape.q_heads * call.shape.head_dim;
        gather_rows(&mut q, &call.q[tile.queries.start * token..], &call.shape, kv_head);
        let longest = tile.key_tiles(call.visibility).map(|keys| keys.len()).max().unwrap_or(0);
        Self {
            out: vec![0.0; q.len()],
            q,
            scores: vec![0.0; rows * longest],
            state: vec![SoftmaxState { max: f32::NEG_INFINITY, sum: 0.0 }; rows],
        }
    }

    /// Takes in one tile of keys.
    fn attend(
        &mut self,
        call: &TiledSlices<'_>,
        tile: &QueryTile,
        kv_head: usize,
        keys: &Range<usize>,
    ) {
        let shape = &call.shape;
        let (rows, head_dim) = (self.state.len(), shape.head_dim);
        let scores = &mut self.scores[..rows * keys.len()];
        matmul(
            HostMatrixMut::new(scores, rows, keys.len()),
            Output::Overwrite,
            call.softmax_scale,
            HostMatrix::new(&self.q, rows, head_dim),
            key_tile(call.k, shape, kv_head, keys).t(),
            Threads::One,
        );
        dispatch(OnlineSoftmax {
            scores,
            out: &mut self.out,
            state: &mut self.state,
            head_dim,
            group: shape.group(),
            tile,
            keys,
            visibility: call.visibility,
        });
        matmul(
            HostMatrixMut::new(&mut self.out, rows, head_dim),
            Output::Add,
            1.0,
            HostMatrix::new(scores, rows, keys.len()),
            key_tile(call.v, shape, kv_head, keys),
            Threads::One,
        );
    }

    /// Divides by the softmax sums and writes the tile's part of the results.
    fn finish(&self, call: &TiledSlices<'_>, kv_head: usize, out: &mut [f32], lse: &mut [f32]) {
        let (group, head_dim) = (call.shape.group(), call.shape.head_dim);
        for (row, state) in self.state.iter().enumerate() {
            let head = row / group * call.shape.q_heads + kv_head * group + row % group;
            lse[head] = state.max + state.sum.ln();
            let source = &self.out[row * head_dim..][..head_dim];
            // Without a visible key the sum is zero, and so is the output.
            let factor = if state.sum > 0.0 { 1.0 / state.sum } else { 0.0 };
            for (out, x) in out[head * head_dim..][..head_dim].iter_mut().zip(source) {
                *out = factor * x;
            }
        }
    }
}

/// Turns a tile of scores into probabilities relative to the largest score so far, and rescales
/// the sums and the output of earlier tiles to match.
struct OnlineSoftmax<'a> {
    scores: &'a mut [f32],
    out: &'a mut [f32],
    state: &'a mut [SoftmaxState],
    head_dim: usize,
    group: usize,
    tile: &'a QueryTile,
    keys: &'a Range<usize>,
    visibility: Visibility,
}

impl WithSimd for OnlineSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self
            .scores
            .chunks_exact_mut(self.keys.len())
            .zip(self.out.chunks_exact_mut(self.head_dim));
        for (index, ((scores, out), state)) in rows.zip(self.state).enumerate() {
            let query = self.tile.queries.start + index / self.group;
            let seen = self.tile.visible(self.visibility, query, self.keys);
            scores[..seen.start].fill(0.0);
            scores[seen.end..].fill(0.0);
            let scores = &mut scores[seen];
            let max = max_row_simd(simd, scores);
            if max > state.max {
                let rescale = (state.max - max).exp();
                state.sum *= rescale;
                state.max = max;
                out.iter_mut().for_each(|out| *out *= rescale);
            }
            state.sum += exp_row_simd(simd, scores, 1.0, state.max);
        }
    }
}
