//! The backward pass: probabilities computed again tile by tile, five products per tile.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::TiledSlices;
use super::tiles::{QueryTile, gather_rows, key_tile, split_by_tiles};
use crate::Result;
use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::cpu::ordered_sum::{Addend, add_in_order};
use crate::cpu::simd::{dispatch, dot_simd, exp_simd};
use crate::ops::attention::tiled::Visibility;

/// Tasks to aim for over all documents, whatever the machine. Each holds key gradients of its
/// document, so together they take at most `TASKS + 1` times the memory of `dk` and `dv`.
const TASKS: u128 = 16;

/// A query tile and its part of `dq`.
struct TileTask<'a> {
    tile: QueryTile,
    dq: &'a mut [f32],
}

/// What the backward reads in addition to the inputs of the forward.
pub(crate) struct Upstream<'a> {
    /// `[N, HQ, D]`.
    pub(crate) dout: &'a [f32],
    /// `[N, HQ, D]`.
    pub(crate) out: &'a [f32],
    /// `[N, HQ]`.
    pub(crate) lse: &'a [f32],
}

/// Adds to the gradients of q, k and v.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(crate) fn backward(
    call: &TiledSlices<'_>,
    upstream: Upstream<'_>,
    grads: [&mut [f32]; 3],
) -> Result<()> {
    let shape = &call.shape;
    let [dq, dk, dv] = grads;
    let tiles = QueryTile::partition(call);
    let dq = split_by_tiles(dq, &tiles, shape.q_heads * shape.head_dim);
    let tasks = tiles.into_iter().zip(dq).map(|(tile, dq)| TileTask { tile, dq }).collect();
    let addends = distribute(call, tasks);
    add_in_order([dk, dv], addends, |tasks, [dk, dv]| {
        for task in tasks {
            for kv_head in 0..shape.kv_heads {
                let mut rows = BackwardRows::new(call, &upstream, &task.tile, kv_head);
                for keys in task.tile.key_tiles(call.visibility) {
                    rows.attend(call, &task.tile, kv_head, &keys, dk, dv);
                }
                rows.add_to(call, kv_head, task.dq);
            }
        }
    })
}

/// Deals the tiles of each document to a number of tasks in proportion to its share of the work.
///
/// A tile's work grows with its position, so tiles go out in the order 0 1 2 .. 2 1 0 0 1 2 ..
fn distribute<'a>(
    call: &TiledSlices<'_>,
    tasks: Vec<TileTask<'a>>,
) -> Vec<Addend<Vec<TileTask<'a>>>> {
    let work = |document: &Range<usize>| {
        let seen = call.visibility.seen(document.len() - 1).len();
        (document.len() * seen.max(1)) as u128
    };
    let total: u128 = call.documents.ranges().map(|document| work(&document)).sum();
    let width = call.shape.kv_heads * call.shape.head_dim;
    let mut addends = Vec::new();
    let mut tasks = tasks.into_iter().peekable();
    while let Some(TileTask { tile: QueryTile { document, keys, .. }, .. }) = tasks.peek() {
        let (document, keys) = (document.clone(), keys.clone());
        let tiles: Vec<_> =
            std::iter::from_fn(|| tasks.next_if(|task| task.tile.document == document)).collect();
        let splits = ((TASKS * work(&document)).div_ceil(total) as usize).min(tiles.len());
        let first = addends.len();
        let range = keys.start * width..keys.end * width;
        addends.extend((0..splits).map(|_| Addend { range: range.clone(), task: Vec::new() }));
        for (index, task) in tiles.into_iter().enumerate() {
            let round = index % (2 * splits);
            addends[first + round.min(2 * splits - 1 - round)].task.push(task);
        }
    }
    addends
}

/// The rows `(token, head of the group)` of one query tile and key/value head.
struct BackwardRows {
    /// `[rows, D]`.
    q: Vec<f32>,
    /// `[rows, D]`.
    dout: Vec<f32>,
    /// `[rows, D]`.
    dq: Vec<f32>,
    /// `[rows, keys of a tile]`: scores, then probabilities.
    scores: Vec<f32>,
    /// `[rows, keys of a tile]`: gradients of the probabilities, then of the scores.
    dscores: Vec<f32>,
    state: Vec<ScoreState>,
}

#[derive(Clone, Copy)]
struct ScoreState {
    lse: f32,
    /// `dout . out`, which is also the mean of the probabilities' gradients under the
    /// probabilities.
    delta: f32,
}

impl BackwardRows {
    fn new(
        call: &TiledSlices<'_>,
        upstream: &Upstream<'_>,
        tile: &QueryTile,
        kv_head: usize,
    ) -> Self {
        let shape = &call.shape;
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let rows = tile.queries.len() * group;
        let gather = |x: &[f32]| {
            let mut packed = vec![0.0; rows * head_dim];
            let x = &x[tile.queries.start * shape.q_heads * head_dim..];
            gather_rows(&mut packed, x, shape, kv_head);
            packed
        };
        let dout = gather(upstream.dout);
        let out = gather(upstream.out);
        let state = (0..rows).map(|row| {
            let head =
                (tile.queries.start + row / group) * shape.q_heads + kv_head * group + row % group;
            let row = row * head_dim..(row + 1) * head_dim;
            ScoreState {
                lse: upstream.lse[head],
                delta: dispatch(Dot(&dout[row.clone()], &out[row])),
            }
        });
        let state = state.collect();
        let longest = tile.key_tiles(call.visibility).map(|keys| keys.len()).max().unwrap_or(0);
        Self {
            q: gather(call.q),
            dq: vec![0.0; dout.len()],
            dout,
            scores: vec![0.0; rows * longest],
            dscores: vec![0.0; rows * longest],
            state,
        }
    }

    /// Takes in one tile of keys; `dk` and `dv` begin at the document's first key.
    fn attend(
        &mut self,
        call: &TiledSlices<'_>,
        tile: &QueryTile,
        kv_head: usize,
        keys: &Range<usize>,
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let shape = &call.shape;
        let (rows, columns, head_dim) = (self.state.len(), keys.len(), shape.head_dim);
        let token = shape.kv_heads * head_dim;
        let offset = (keys.start - tile.keys.start) * token + kv_head * head_dim;
        let dk = HostMatrixMut::with_row_stride(&mut dk[offset..], columns, head_dim, token);
        let dv = HostMatrixMut::with_row_stride(&mut dv[offset..], columns, head_dim, token);
        let [k, v] = [call.k, call.v].map(|x| key_tile(x, shape, kv_head, keys));
        let scores = &mut self.scores[..rows * columns];
        let dscores = &mut self.dscores[..rows * columns];
        let q = HostMatrix::new(&self.q, rows, head_dim);
        let dout = HostMatrix::new(&self.dout, rows, head_dim);
        let scale = call.softmax_scale;

        let out = HostMatrixMut::new(scores, rows, columns);
        matmul(out, Output::Overwrite, scale, q, k.t(), Threads::One);
        let out = HostMatrixMut::new(dscores, rows, columns);
        matmul(out, Output::Overwrite, 1.0, dout, v.t(), Threads::One);
        dispatch(SoftmaxGradient {
            scores,
            dscores,
            state: &self.state,
            group: shape.group(),
            tile,
            keys,
            visibility: call.visibility,
        });
        let probabilities = HostMatrix::new(scores, rows, columns);
        let dscores = HostMatrix::new(dscores, rows, columns);
        matmul(dv, Output::Add, 1.0, probabilities.t(), dout, Threads::One);
        matmul(dk, Output::Add, scale, dscores.t(), q, Threads::One);
        let dq = HostMatrixMut::new(&mut self.dq, rows, head_dim);
        matmul(dq, Output::Add, scale, dscores, k, Threads::One);
    }

    /// Adds the gradient of the queries to the tile's part of `dq`.
    fn add_to(&self, call: &TiledSlices<'_>, kv_head: usize, dq: &mut [f32]) {
        let width = call.shape.group() * call.shape.head_dim;
        let tokens = dq.chunks_exact_mut(call.shape.q_heads * call.shape.head_dim);
        for (token, row) in tokens.zip(self.dq.chunks_exact(width)) {
            token[kv_head * width..][..width].iter_mut().zip(row).for_each(|(out, x)| *out += x);
        }
    }
}

/// `a . b`.
struct Dot<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        dot_simd(simd, self.0, self.1)
    }
}

/// Turns scores into probabilities, `p = e^(s - lse)`, and their gradients into those of the
/// scores, `ds = p (dp - delta)`.
struct SoftmaxGradient<'a> {
    scores: &'a mut [f32],
    dscores: &'a mut [f32],
    state: &'a [ScoreState],
    group: usize,
    tile: &'a QueryTile,
    keys: &'a Range<usize>,
    visibility: Visibility,
}

impl WithSimd for SoftmaxGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.keys.len();
        let rows =
            self.scores.chunks_exact_mut(columns).zip(self.dscores.chunks_exact_mut(columns));
        for (index, ((p, ds), state)) in rows.zip(self.state).enumerate() {
            let query = self.tile.queries.start + index / self.group;
            let seen = self.tile.visible(self.visibility, query, self.keys);
            for x in [&mut *p, &mut *ds] {
                x[..seen.start].fill(0.0);
                x[seen.end..].fill(0.0);
            }
            softmax_gradient_row(simd, &mut p[seen.clone()], &mut ds[seen], state);
        }
    }
}

#[inline(always)]
fn softmax_gradient_row<S: Simd>(simd: S, p: &mut [f32], ds: &mut [f32], state: &ScoreState) {
    let (p_head, p_tail) = S::as_mut_simd_f32s(p);
    let (ds_head, ds_tail) = S::as_mut_simd_f32s(ds);
    for (p, ds) in p_head.iter_mut().zip(ds_head) {
        (*p, *ds) = softmax_gradient_simd(simd, *p, *ds, state);
    }
    let [p, ds] = [&*p_tail, &*ds_tail].map(|tail| simd.partial_load_f32s(tail));
    let (p, ds) = softmax_gradient_simd(simd, p, ds, state);
    simd.partial_store_f32s(p_tail, p);
    simd.partial_store_f32s(ds_tail, ds);
}

/// A function because a closure here would not be compiled for the instruction set of its caller.
#[inline(always)]
fn softmax_gradient_simd<S: Simd>(
    simd: S,
    score: S::f32s,
    dp: S::f32s,
    state: &ScoreState,
) -> (S::f32s, S::f32s) {
    let p = exp_simd(simd, simd.sub_f32s(score, simd.splat_f32s(state.lse)));
    (p, simd.mul_f32s(p, simd.sub_f32s(dp, simd.splat_f32s(state.delta))))
}
