//! The rows of one tile and what they have seen of the keys.

use std::f64::consts::LN_2;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{HeadStatistics, SparseSlices, TILE_KEYS, norm};
use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{dispatch, dot_f64_simd, exp_f64, max_row_f64_simd, sum_f64_simd};
use crate::ops::attention::blocks::Tile;

/// The rows `(token, head of the group)` of one tile and key/value head.
///
/// Everything is `f64`: the results are differences of nearly equal numbers. (Selection, which only
/// ranks, has its own softmax in `f32`.)
pub(super) struct TileRows<'a> {
    call: &'a SparseSlices<'a>,
    /// `|v|` of every token and key/value head.
    norms: &'a [f64],
    tile: &'a Tile,
    kv_head: usize,
    /// Scaled queries, `[rows, D]`.
    q: Vec<f64>,
    /// Keys of a tile, `[keys, D]`.
    k: Vec<f64>,
    /// Values of a tile, `[keys, D]`.
    v: Vec<f64>,
    /// `[rows, keys of a tile]`: scores, then the weights of dropped keys.
    scores: Vec<f64>,
    /// The weights of a row.
    weights: Vec<f64>,
    /// The values of dropped keys under the weights of `full`, `[rows, D]`.
    dropped: Vec<f64>,
    /// The values of selected keys under the weights of `full`, `[rows, D]`.
    kept: Vec<f64>,
    /// The values of selected keys under the weights of `sparse`, `[rows, D]`.
    sparse: Vec<f64>,
    states: Vec<RowState>,
    /// The largest `|v|` of a dropped key of each token.
    largest: Vec<f64>,
}

/// The softmax of one row over all keys and over the selected ones.
#[derive(Clone)]
struct RowState {
    full: Softmax,
    sparse: Softmax,
    /// The part of the sum of `full` that belongs to dropped keys.
    dropped_sum: f64,
    /// The sum of weight times score over all keys.
    score_sum: f64,
}

/// The sum of `e^(score - max)`; `max` is the largest score so far.
#[derive(Clone)]
struct Softmax {
    max: f64,
    sum: f64,
}

impl Softmax {
    const EMPTY: Self = Self { max: f64::NEG_INFINITY, sum: 0.0 };

    /// Raises the maximum. Returns the factor of everything that was relative to the old one, if it
    /// is not 1.
    #[inline(always)]
    fn raise(&mut self, max: f64) -> Option<f64> {
        (max > self.max).then(|| {
            let factor = (self.max - max).exp();
            self.max = max;
            self.sum *= factor;
            factor
        })
    }
}

impl<'a> TileRows<'a> {
    pub(super) fn new(
        call: &'a SparseSlices<'a>,
        norms: &'a [f64],
        tile: &'a Tile,
        kv_head: usize,
    ) -> Self {
        let (group, head_dim) = (call.shape.group(), call.shape.head_dim);
        let rows = tile.tokens.len() * group;
        let scale = f64::from(call.softmax_scale);
        let queries =
            head_rows(call.q, &tile.tokens, call.shape.kv_heads, kv_head, group * head_dim);
        let state = RowState {
            full: Softmax::EMPTY,
            sparse: Softmax::EMPTY,
            dropped_sum: 0.0,
            score_sum: 0.0,
        };
        Self {
            call,
            norms,
            tile,
            kv_head,
            q: queries.map(|q| scale * q).collect(),
            k: Vec::with_capacity(TILE_KEYS * head_dim),
            v: Vec::with_capacity(TILE_KEYS * head_dim),
            scores: vec![0.0; rows * TILE_KEYS],
            weights: vec![0.0; TILE_KEYS],
            dropped: vec![0.0; rows * head_dim],
            kept: vec![0.0; rows * head_dim],
            sparse: vec![0.0; rows * head_dim],
            states: vec![state; rows],
            largest: vec![0.0; tile.tokens.len()],
        }
    }

    /// Takes in one tile of keys.
    pub(super) fn attend(&mut self, keys: Range<usize>) {
        let shape = &self.call.shape;
        let (rows, columns, head_dim) = (self.states.len(), keys.len(), shape.head_dim);
        for (converted, x) in [(&mut self.k, self.call.k), (&mut self.v, self.call.v)] {
            converted.clear();
            converted.extend(head_rows(x, &keys, shape.kv_heads, self.kv_head, head_dim));
        }
        let q = HostMatrix::new(&self.q, rows, head_dim);
        let k = HostMatrix::new(&self.k, columns, head_dim);
        let scores = HostMatrixMut::new(&mut self.scores, rows, columns);
        matmul(scores, Output::Overwrite, 1.0, q, k.t(), Threads::One);
        dispatch(AddKeys { rows: self, keys: &keys });
        let weights = HostMatrix::new(&self.scores, rows, columns);
        let v = HostMatrix::new(&self.v, columns, head_dim);
        let dropped = HostMatrixMut::new(&mut self.dropped, rows, head_dim);
        matmul(dropped, Output::Add, 1.0, weights, v, Threads::One);
    }

    /// The columns of a tile of keys that a token selects, among those that it sees.
    fn selected(
        &self,
        token: usize,
        keys: &Range<usize>,
        seen: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let block_size = self.call.block_indices.block_size();
        let blocks = self.call.block_indices.selected(token, self.kv_head);
        // Positions in the document.
        let (first, end) = (self.tile.position(keys.start), self.tile.position(keys.start) + seen);
        let before = blocks.partition_point(|&block| (block as usize + 1) * block_size <= first);
        let range = move |&block: &i32| {
            let start = block as usize * block_size;
            start.max(first) - first..(start + block_size).min(end) - first
        };
        blocks[before..]
            .iter()
            .take_while(move |&&block| (block as usize) * block_size < end)
            .map(range)
    }

    /// Adds the scores of a tile of keys to the rows of a token.
    #[inline(always)]
    fn add_token<S: Simd>(&mut self, simd: S, token: usize, keys: &Range<usize>) {
        let (kv_heads, group) = (self.call.shape.kv_heads, self.call.shape.group());
        let index = token - self.tile.tokens.start;
        let seen = (token + 1).clamp(keys.start, keys.end) - keys.start;
        let selected: Vec<Range<usize>> = self.selected(token, keys, seen).collect();
        let starts = [0].into_iter().chain(selected.iter().map(|range| range.end));
        let ends = selected.iter().map(|range| range.start).chain([seen]);
        for key in starts.zip(ends).flat_map(|(start, end)| start..end) {
            let norm = self.norms[(keys.start + key) * kv_heads + self.kv_head];
            self.largest[index] = self.largest[index].max(norm);
        }
        for row in index * group..(index + 1) * group {
            self.add_row(simd, row, keys.len(), seen, &selected);
        }
    }

    /// Adds a row of `columns` scores, of which the query sees the first `seen`. Leaves the weights
    /// of dropped keys in their place, and 0 elsewhere.
    #[inline(always)]
    fn add_row<S: Simd>(
        &mut self,
        simd: S,
        row: usize,
        columns: usize,
        seen: usize,
        selected: &[Range<usize>],
    ) {
        let head_dim = self.call.shape.head_dim;
        let RowState { full, sparse, dropped_sum, score_sum } = &mut self.states[row];
        let row = row * head_dim..(row + 1) * head_dim;
        let (scores, unseen) =
            self.scores[row.start / head_dim * columns..][..columns].split_at_mut(seen);
        unseen.fill(0.0);
        let value = |key: usize| &self.v[key * head_dim..][..head_dim];
        let selected_keys = || selected.iter().cloned().flatten();

        let sparse_out = &mut self.sparse[row.clone()];
        let mut max = f64::NEG_INFINITY;
        for range in selected {
            max = max_row_f64_simd(simd, &scores[range.clone()]).max(max);
        }
        if let Some(factor) = sparse.raise(max) {
            scale(sparse_out, factor);
        }
        for key in selected_keys() {
            let weight = exp_f64(scores[key] - sparse.max);
            sparse.sum += weight;
            add_scaled(sparse_out, weight, value(key));
        }

        let (dropped_out, kept_out) = (&mut self.dropped[row.clone()], &mut self.kept[row]);
        if let Some(factor) = full.raise(max_row_f64_simd(simd, scores)) {
            *dropped_sum *= factor;
            *score_sum *= factor;
            scale(dropped_out, factor);
            scale(kept_out, factor);
        }
        let weights = &mut self.weights[..seen];
        for (weight, score) in weights.iter_mut().zip(&*scores) {
            *weight = exp_f64(score - full.max);
        }
        full.sum += sum_f64_simd(simd, weights);
        *score_sum += dot_f64_simd(simd, weights, scores);
        for key in selected_keys() {
            add_scaled(kept_out, weights[key], value(key));
            weights[key] = 0.0;
        }
        *dropped_sum += sum_f64_simd(simd, weights);
        scores.copy_from_slice(weights);
    }

    /// The statistics of a row, after all of its keys.
    pub(super) fn finish(&self, row: usize) -> HeadStatistics {
        let head_dim = self.call.shape.head_dim;
        let RowState { full, sparse, dropped_sum, score_sum } = &self.states[row];
        let max_dropped_value_norm = self.largest[row / self.call.shape.group()];
        let row = row * head_dim..(row + 1) * head_dim;
        let (dropped, kept) = (&self.dropped[row.clone()], &self.kept[row.clone()]);
        let h_sparse: Vec<f64> = self.sparse[row].iter().map(|x| x / sparse.sum).collect();
        let dropped_mass = dropped_sum / full.sum;
        let lse = full.max + full.sum.ln();
        let h_full = dropped.iter().zip(kept).map(|(dropped, kept)| (dropped + kept) / full.sum);
        let difference: Vec<f64> =
            h_full.zip(&h_sparse).map(|(full, sparse)| full - sparse).collect();
        // delta * mu_tail is the dropped part of the full output.
        let predicted =
            dropped.iter().zip(&h_sparse).map(|(x, sparse)| x / full.sum - dropped_mass * sparse);
        HeadStatistics {
            sparsity: sparse.sum * (sparse.max - full.max).exp() / full.sum,
            entropy_bits: (lse - score_sum / full.sum) / LN_2,
            dropped_mass,
            max_dropped_value_norm,
            distance: norm(difference.iter().copied()),
            bound: dropped_mass * (max_dropped_value_norm + norm(h_sparse.iter().copied())),
            identity_error: norm(difference.iter().zip(predicted).map(|(a, b)| a - b)),
        }
    }
}

/// Adds the scores of a tile of keys to all rows, compiled for the instruction set of the
/// processor.
struct AddKeys<'r, 'a> {
    rows: &'r mut TileRows<'a>,
    keys: &'r Range<usize>,
}

impl WithSimd for AddKeys<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for token in self.rows.tile.tokens.clone() {
            self.rows.add_token(simd, token, self.keys);
        }
    }
}

/// `width` columns of a head in rows of `heads` heads, in `f64`.
fn head_rows(
    x: &[f32],
    tokens: &Range<usize>,
    heads: usize,
    head: usize,
    width: usize,
) -> impl Iterator<Item = f64> {
    let row = move |token: usize| &x[(token * heads + head) * width..][..width];
    tokens.clone().flat_map(row).map(|&x| f64::from(x))
}

#[inline(always)]
fn scale(out: &mut [f64], factor: f64) {
    out.iter_mut().for_each(|out| *out *= factor);
}

#[inline(always)]
fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}
