//! The attention of all queries of a call.

use std::ops::Range;

use rayon::prelude::*;

use super::pages::{HeadPages, KeyPage};
use super::softmax::{Partial, Segment};
use super::{Tile, split_by_tile};
use crate::Sequences;
use crate::cpu::register_tile::padded;
use crate::cpu::simd::dispatch;
use crate::kv_cache::{HostPages, MEANS_PER_PAGE, MatrixPages, PageTable};
use crate::ops::attention::cached::{CachedKeys, HostPageIndices};
use crate::ops::attention::shape::AttentionShape;

/// Rows of a tile: enough to share what is read of the keys, few enough to stay in the L1 cache.
const TILE_ROWS: usize = 48;
/// Keys of a segment, over which one softmax runs. Scores of a tile stay in the L2 cache.
const SEGMENT_KEYS: usize = 512;
/// Rows up to which a tile computes its segments in parallel: those of decoding steps.
const FEW_ROWS: usize = 32;

/// A call of cached attention whose tensors are on the CPU.
pub(crate) struct AttentionQueries<'a> {
    /// `[N, HQ, D]`.
    pub(crate) q: &'a [f32],
    pub(crate) pages: &'a HostPages,
    /// The pages of each sequence.
    pub(crate) tables: Vec<&'a PageTable>,
    pub(crate) layer: usize,
    pub(crate) sequences: &'a Sequences,
    pub(crate) keys: CachedKeys<'a>,
    /// The selected pages, for keys that are selected.
    pub(crate) selection: Option<&'a HostPageIndices>,
    pub(crate) shape: AttentionShape,
    pub(crate) softmax_scale: f32,
}

/// Writes `out` `[N, HQ, D]` and `lse` `[N, HQ]`.
pub(crate) fn attend(call: &AttentionQueries<'_>, out: &mut [f32], lse: &mut [f32]) {
    let AttentionShape { q_heads, kv_heads, head_dim, .. } = call.shape;
    let tokens = match call.keys {
        // Every query has keys of its own.
        CachedKeys::Pages(_) => 1,
        _ => (TILE_ROWS / call.shape.group()).max(1),
    };
    let tiles = Tile::partition(call.sequences, tokens);
    let out = split_by_tile(out, &tiles, q_heads * head_dim);
    let lse = split_by_tile(lse, &tiles, q_heads);
    // Where there are few tiles, their heads are computed in parallel as well.
    let few = tiles.len() < 4 * rayon::current_num_threads();
    (&tiles, out, lse).into_par_iter().for_each_init(Vec::new, |scores, (tile, out, lse)| {
        let mut write = |kv_head, part: &Partial| write(&call.shape, kv_head, part, out, lse);
        if few && kv_heads > 1 {
            let heads = (0..kv_heads).into_par_iter().with_max_len(1);
            let parts: Vec<_> =
                heads.map(|head| call.attend_head(tile, head, &mut Vec::new())).collect();
            parts.iter().enumerate().for_each(|(head, part)| write(head, part));
        } else {
            (0..kv_heads).for_each(|head| write(head, &call.attend_head(tile, head, scores)));
        }
    });
}

/// Divides by the softmax sums and writes a head's part of the results of a tile.
fn write(shape: &AttentionShape, kv_head: usize, part: &Partial, out: &mut [f32], lse: &mut [f32]) {
    let (group, head_dim) = (shape.group(), shape.head_dim);
    let rows = part.out.chunks_exact(padded(head_dim)).zip(part.max.iter().zip(&part.sum));
    for (row, (values, (max, sum))) in rows.enumerate() {
        let head = row / group * shape.q_heads + kv_head * group + row % group;
        lse[head] = max + sum.ln();
        // Without a visible key the sum is zero, and so is the output.
        let factor = if *sum > 0.0 { 1.0 / sum } else { 0.0 };
        let out = &mut out[head * head_dim..][..head_dim];
        out.iter_mut().zip(values).for_each(|(out, x)| *out = factor * x);
    }
}

impl AttentionQueries<'_> {
    /// The keys, counted over the sequence, that the query at a position sees.
    fn visible(&self, position: usize) -> Range<usize> {
        match self.keys {
            CachedKeys::All | CachedKeys::Pages(_) => 0..position + 1,
            CachedKeys::Last(window) => (position + 1).saturating_sub(window)..position + 1,
            CachedKeys::Means => 0..(position + 1) / self.pages.tokens().page_rows(),
        }
    }

    /// The pages of keys, and which of them a tile needs for a head.
    fn key_pages(&self, tile: &Tile, kv_head: usize) -> (&MatrixPages, Vec<KeyPage>) {
        let table = self.tables[tile.sequence];
        let (storage, pages) = match self.keys {
            CachedKeys::Means => (self.pages.means(), table.mean_pages()),
            _ => (self.pages.tokens(), table.pages()),
        };
        let key_page = |number: usize| KeyPage { page: pages[number], number };
        let needed = if let Some(selection) = self.selection {
            let selected = selection.selected(tile.queries.start, kv_head);
            selected.iter().map(|&number| key_page(number as usize)).collect()
        } else {
            let first = self.visible(tile.position).start / storage.page_rows();
            let end = self.visible(tile.end_position() - 1).end.div_ceil(storage.page_rows());
            (first..end).map(key_page).collect()
        };
        (storage, needed)
    }

    /// The rows of a tile for one key/value head. `scores` is a buffer.
    fn attend_head(&self, tile: &Tile, kv_head: usize, scores: &mut Vec<f32>) -> Partial {
        let AttentionShape { head_dim, .. } = self.shape;
        let group = self.shape.group();
        let rows = tile.queries.len() * group;
        let q = tile.gather(self.q, &self.shape, kv_head, self.softmax_scale);
        let (storage, pages) = self.key_pages(tile, kv_head);
        let end = self.visible(tile.end_position() - 1).end;
        let attend = |pages: &[KeyPage], scores: &mut Vec<f32>, partial: &mut Partial| {
            let layer = self.layer;
            dispatch(Segment {
                q: &q,
                pages: HeadPages { storage, layer, kv_head, head_dim, pages, end },
                visible: |row| self.visible(tile.position_of(row, group)),
                scores,
                partial,
            });
        };
        let segments = self.segments(&pages, storage.page_rows());
        let mut total = Partial::empty(rows, head_dim);
        if rows <= FEW_ROWS && segments.len() > 1 {
            let segments = segments.into_par_iter().with_max_len(1);
            let parts = segments.map(|pages| {
                let mut part = Partial::empty(rows, head_dim);
                attend(pages, &mut Vec::new(), &mut part);
                part
            });
            parts.collect::<Vec<_>>().iter().for_each(|part| total.join(part));
        } else {
            let mut part = Partial::empty(rows, head_dim);
            for pages in segments {
                attend(pages, scores, &mut part);
                total.join(&part);
            }
        }
        total
    }

    /// Cuts pages into segments. The borders of consecutive pages depend on their numbers alone, so
    /// that the result of a query does not depend on the tile it is in.
    fn segments<'p>(&self, pages: &'p [KeyPage], page_rows: usize) -> Vec<&'p [KeyPage]> {
        let len = (SEGMENT_KEYS / padded(page_rows)).max(1);
        match self.keys {
            CachedKeys::Pages(_) => pages.chunks(len).collect(),
            _ => pages.chunk_by(|a, b| a.number / len == b.number / len).collect(),
        }
    }
}

// A page of means must not be cut: their segments are whole pages too.
const _: () = assert!(SEGMENT_KEYS.is_multiple_of(MEANS_PER_PAGE));
