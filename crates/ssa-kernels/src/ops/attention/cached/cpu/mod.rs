//! Attention over cached keys on the CPU.

mod attend;
mod pages;
mod select;
mod softmax;

pub(super) use attend::{AttentionQueries, attend};
pub(super) use select::{SelectionQueries, select};

use std::ops::Range;

use rayon::prelude::*;

use crate::Sequences;
use crate::ops::attention::shape::AttentionShape;

/// Consecutive queries of one sequence that are computed together.
struct Tile {
    /// Index of the sequence in the call.
    sequence: usize,
    /// The queries, counted over the call.
    queries: Range<usize>,
    /// Position of the first of them.
    position: usize,
}

impl Tile {
    /// All queries in order, in tiles of at most `tokens`.
    fn partition(sequences: &Sequences, tokens: usize) -> Vec<Self> {
        let mut tiles = Vec::new();
        let ranges = sequences.ranges().zip(sequences.first_positions());
        for (sequence, (range, first)) in ranges.enumerate() {
            let (start, end) = (range.start, range.end);
            tiles.extend(range.step_by(tokens).map(|query| Self {
                sequence,
                queries: query..end.min(query + tokens),
                position: first + query - start,
            }));
        }
        tiles
    }

    /// One more than the position of the last query.
    fn end_position(&self) -> usize {
        self.position + self.queries.len()
    }

    /// The position of a row `(query, head of the group)`.
    fn position_of(&self, row: usize, group: usize) -> usize {
        self.position + row / group
    }

    /// Copies the rows `[(query, head of the group), D]` of one key/value head out of `q`, scaled.
    fn gather(&self, q: &[f32], shape: &AttentionShape, kv_head: usize, scale: f32) -> Vec<f32> {
        let width = shape.group() * shape.head_dim;
        let mut rows = Vec::with_capacity(self.queries.len() * width);
        for query in self.queries.clone() {
            let q = &q[(query * shape.kv_heads + kv_head) * width..][..width];
            rows.extend(q.iter().map(|q| scale * q));
        }
        rows
    }
}

/// Whether tiles are so few that their heads are computed in parallel as well: decoding steps.
fn heads_in_parallel(tiles: &[Tile]) -> bool {
    tiles.len() < 4 * rayon::current_num_threads()
}

/// Computes all key/value heads of a tile, in parallel or with one scratch buffer, and writes their
/// results in order.
fn for_each_head<S: Default, T: Send>(
    parallel: bool,
    kv_heads: usize,
    scratch: &mut S,
    compute: impl Fn(usize, &mut S) -> T + Sync,
    mut write: impl FnMut(usize, &T),
) {
    if parallel && kv_heads > 1 {
        let heads = (0..kv_heads).into_par_iter().with_max_len(1);
        let results: Vec<_> = heads.map(|head| compute(head, &mut S::default())).collect();
        results.iter().enumerate().for_each(|(head, result)| write(head, result));
    } else {
        (0..kv_heads).for_each(|head| write(head, &compute(head, scratch)));
    }
}

/// Splits a buffer of `width` elements per query into the parts of the tiles.
fn split_by_tile<'a, T>(mut data: &'a mut [T], tiles: &[Tile], width: usize) -> Vec<&'a mut [T]> {
    let part = |tile: &Tile| {
        let (part, rest) = std::mem::take(&mut data).split_at_mut(tile.queries.len() * width);
        data = rest;
        part
    };
    tiles.iter().map(part).collect()
}
