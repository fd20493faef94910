//! Block selection over cached keys.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::pages::{HeadPages, KeyPage, Keys};
use super::{Tile, for_each_head, heads_in_parallel, split_by_tile};
use crate::cpu::register_tile::Matrices;
use crate::cpu::simd::dispatch;
use crate::host_memory::zeros;
use crate::kv_cache::{MatrixPages, PageTable};
use crate::ops::attention::cached::PageIndices;
use crate::ops::attention::cached::budget::PageMass;
use crate::ops::attention::selection::{Importance, SelectionOptions, Selector};
use crate::ops::attention::shape::AttentionShape;
use crate::{Result, Sequences};

/// Rows of a tile: few enough for its scores to stay in the L2 cache at a thousand pages.
const TILE_ROWS: usize = 96;

/// A call of selection whose tensors are on the CPU.
pub(crate) struct SelectionQueries<'a> {
    /// `[N, HQ, D]`.
    pub(crate) q: &'a [f32],
    pub(crate) means: &'a MatrixPages,
    /// The pages of each sequence.
    pub(crate) tables: Vec<&'a PageTable>,
    pub(crate) layer: usize,
    pub(crate) sequences: &'a Sequences,
    pub(crate) page_size: usize,
    /// The largest number of pages, and the rule.
    pub(crate) selection: SelectionOptions,
    /// What stops a selection before that.
    pub(crate) mass: Option<PageMass>,
    pub(crate) shape: AttentionShape,
    pub(crate) softmax_scale: f32,
}

/// Buffers of a task.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    importance: Vec<f32>,
    selector: Selector,
}

/// Selects the pages of all queries.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(crate) fn select(call: &SelectionQueries<'_>) -> Result<PageIndices> {
    let (kv_heads, queries) = (call.shape.kv_heads, call.sequences.total_tokens());
    let pages = call.sequences.end_position().max(1).div_ceil(call.page_size);
    let slots = call.selection.selected_blocks().min(pages);
    let mut indices = zeros::<i32>((queries * kv_heads).saturating_mul(slots))?;
    let mut kept_mass = zeros::<f32>(queries * kv_heads)?;
    let tiles = Tile::partition(call.sequences, (TILE_ROWS / call.shape.group()).max(1));
    let parts = split_by_tile(&mut indices, &tiles, kv_heads * slots);
    let masses = split_by_tile(&mut kept_mass, &tiles, kv_heads);
    let parallel = heads_in_parallel(&tiles);
    (&tiles, parts, masses).into_par_iter().for_each_init(
        Scratch::default,
        |scratch, (tile, indices, kept_mass)| {
            let compute =
                |kv_head, scratch: &mut _| call.select_head(tile, kv_head, slots, scratch);
            let write = |kv_head, head: &HeadSelection| {
                let queries = head.indices.chunks_exact(slots).zip(&head.kept_mass).enumerate();
                for (query, (selected, &mass)) in queries {
                    let row = query * kv_heads + kv_head;
                    indices[row * slots..][..slots].copy_from_slice(selected);
                    kept_mass[row] = mass;
                }
            };
            for_each_head(parallel, kv_heads, scratch, compute, write);
        },
    );
    Ok(PageIndices::from_host(call.sequences, [kv_heads, slots], indices, kept_mass))
}

/// The selection of the queries of a tile for one key/value head.
struct HeadSelection {
    /// `[queries, slots]`.
    indices: Vec<i32>,
    /// `[queries]`.
    kept_mass: Vec<f32>,
}

impl SelectionQueries<'_> {
    fn select_head(
        &self,
        tile: &Tile,
        kv_head: usize,
        slots: usize,
        scratch: &mut Scratch,
    ) -> HeadSelection {
        let columns = self.score(tile, kv_head, &mut scratch.scores);
        let mut indices = vec![-1; tile.queries.len() * slots];
        let select = |(query, slots): (usize, &mut [i32])| {
            self.select_query(tile, query, columns, slots, scratch)
        };
        let kept_mass = indices.chunks_exact_mut(slots).enumerate().map(select).collect();
        HeadSelection { indices, kept_mass }
    }

    /// Computes the scores `[rows, columns]` of a tile against all means of its sequence for one
    /// key/value head, and returns the number of columns.
    fn score(&self, tile: &Tile, kv_head: usize, scores: &mut Vec<f32>) -> usize {
        let blocks = tile.end_position() / self.page_size;
        let table = self.tables[tile.sequence].mean_pages();
        let numbers = 0..blocks.div_ceil(self.means.page_rows());
        let pages: Vec<_> = numbers.map(|number| KeyPage { page: table[number], number }).collect();
        let (layer, head_dim) = (self.layer, self.shape.head_dim);
        let pages =
            HeadPages { storage: self.means, layer, kv_head, head_dim, pages: &pages, end: blocks };
        let q = tile.gather(self.q, &self.shape, kv_head, self.softmax_scale);
        let columns = pages.pages.len() * Keys(pages).width();
        let rows = q.len() / head_dim;
        scores.resize(rows * columns, 0.0);
        dispatch(Score { q: &q, pages, rows, columns, scores });
        columns
    }

    /// Fills the slots of one query and returns the estimated mass that they keep. The scores of
    /// its rows are used up.
    fn select_query(
        &self,
        tile: &Tile,
        query: usize,
        columns: usize,
        slots: &mut [i32],
        Scratch { scores, importance, selector }: &mut Scratch,
    ) -> f32 {
        let (group, position) = (self.shape.group(), tile.position + query);
        let current = position / self.page_size;
        let complete = (position + 1) / self.page_size;
        importance.clear();
        importance.resize(current, 0.0);
        if columns > 0 {
            let scores = &mut scores[query * group * columns..(query + 1) * group * columns];
            dispatch(Importance { scores, row: columns, complete, importance });
        }
        let all: f64 = importance.iter().map(|&importance| f64::from(importance)).sum();
        let total = group as f64;
        match self.mass {
            None => selector.select(importance, &self.selection, slots),
            Some(PageMass { mass, min }) => {
                // The page of the token itself counts in the softmax once it is complete.
                let own = if complete > current { total - all } else { 0.0 };
                let least = if complete > 0 { f64::from(mass) * total } else { 0.0 };
                selector.select_by_mass(importance, own, least, min, slots);
            }
        }
        let kept = slots.iter().filter_map(|&slot| importance.get(usize::try_from(slot).ok()?));
        let kept: f64 = kept.map(|&importance| f64::from(importance)).sum();
        (1.0 - (all - kept).max(0.0) / total) as f32
    }
}

/// Scores of queries against the keys of pages.
struct Score<'a> {
    q: &'a [f32],
    pages: HeadPages<'a>,
    rows: usize,
    columns: usize,
    scores: &'a mut [f32],
}

impl WithSimd for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, pages, rows, columns, scores } = self;
        pages.score(simd, q, rows, scores, columns);
    }
}
