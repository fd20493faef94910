//! Scores, importances and the choice of pages.

use half::bf16;

use super::{DeviceQueries, tokens_at_once};
use crate::cuda::{
    Buffer, Define, Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel, structs,
};
use crate::kv_cache::{CachedTokens, DeviceTables, MEANS_PER_PAGE};
use crate::ops::attention::cached::budget::PageMass;
use crate::ops::attention::headers;
use crate::ops::attention::selection::{SelectionOptions, SelectionRule};
use crate::{KernelError, Result};

pub(super) static SCORES: Module = Module {
    name: "page_scores",
    source: include_str!("scores.cu"),
    headers: &[&headers::CACHED, &headers::ROWS],
    constants: constants![THREADS, SPLITS, MEANS_PER_PAGE],
    structs: structs![CachedTokens, PageScores, PageImportance],
    variants: &[&score_defines(64, 16, 16), &score_defines(128, 64, 4), &score_defines(80, 5, 3)],
};

pub(super) static TOP: Module = Module {
    name: "select_pages",
    source: include_str!("top.cu"),
    headers: &[&headers::CACHED],
    constants: constants![TOP_THREADS, MEANS_PER_PAGE],
    structs: structs![CachedTokens, SelectPages],
    variants: &[&top_defines(64, 16, 16, false, 16), &top_defines(64, 16, 16, true, 16)],
};

/// Threads of a block that scores.
const THREADS: usize = 128;
/// Pages that a block of threads scores at once.
const UNIT: usize = THREADS / WARP * MEANS_PER_PAGE;
/// Blocks of threads that share the pages of a token.
const SPLITS: usize = 64;
/// Threads of a block that chooses: more would not fit together with the products of a step.
const TOP_THREADS: usize = 512;
/// Keys that are ranked in shared memory, at least.
const CANDIDATES: usize = 2048;
/// The most pages of a selection: their keys lie in shared memory.
const MOST_SLOTS: usize = 4096;

kernel! {
    /// Scores of all complete blocks, and maximum and sum of exponentials of each split.
    "page_scores" in SCORES:
    struct PageScores<'a> {
        /// `[N, HQ, D]`.
        q: Input<'a, bf16>,
        key_means: Input<'a, f32>,
        /// `[tokens, H, blocks, heads]`.
        scores: Output<'a, f32>,
        /// `[tokens, H, SPLITS, heads]`.
        statistics: Output<'a, [f32; 2]>,
        tokens: CachedTokens<'a>,
        /// Tokens with no more blocks than this select all and need no scores.
        all_within: i32,
        /// `softmax_scale / ln 2`.
        scale: f32,
    }
}

kernel! {
    /// Importances of all complete blocks.
    "page_importance" in SCORES:
    struct PageImportance<'a> {
        /// As in [`PageScores`], and so `statistics`.
        scores: Input<'a, f32>,
        statistics: Input<'a, [f32; 2]>,
        /// `[tokens, H, blocks]`.
        importance: Output<'a, f32>,
        tokens: CachedTokens<'a>,
        /// As in [`PageScores`].
        all_within: i32,
    }
}

kernel! {
    /// The most important blocks.
    "select_pages" in TOP:
    struct SelectPages<'a> {
        /// `[tokens, H, blocks]`.
        importance: Input<'a, f32>,
        /// `[N, H, slots]`.
        indices: Output<'a, i32>,
        /// `[.., N, H]`, kept mass and number of pages.
        kept_mass: Option<Output<'a, [f32; 2]>>,
        /// The row of `kept_mass` that belongs to the first token.
        first_row: i64,
        tokens: CachedTokens<'a>,
        slots: i32,
        /// As in [`PageScores`].
        all_within: i32,
        /// The mass to keep, or 0 to fill all slots.
        mass: f32,
        /// The fewest blocks to keep.
        least: i32,
    }
}

/// How many pages are selected, and by which rule.
#[derive(Clone, Copy)]
pub(crate) struct PageCount {
    pub(crate) slots: usize,
    pub(crate) rule: SelectionRule,
    pub(crate) mass: Option<PageMass>,
}

impl PageCount {
    /// The selection in sequences of up to `blocks` blocks.
    pub(crate) fn new(
        op: &'static str,
        selection: &SelectionOptions,
        mass: Option<PageMass>,
        blocks: usize,
    ) -> Result<Self> {
        let slots = selection.selected_blocks().min(blocks);
        if slots > MOST_SLOTS {
            let expected = format!("at most {MOST_SLOTS} pages on a GPU");
            return Err(KernelError::value(op, "options.budget", expected, slots));
        }
        Ok(Self { slots, rule: selection.rule, mass })
    }
}

/// Intermediate results of a selection.
pub(crate) struct SelectionScratch {
    /// Tokens of a launch.
    tokens: usize,
    scores: Buffer<f32>,
    statistics: Buffer<[f32; 2]>,
    importance: Buffer<f32>,
}

impl SelectionScratch {
    /// For queries of `kv_heads` groups of `group` heads.
    pub(crate) fn new(
        gpu: &Gpu,
        tables: &DeviceTables,
        kv_heads: usize,
        group: usize,
    ) -> Result<Self> {
        let (row, heads) = (kv_heads * tables.blocks(), group.next_multiple_of(8));
        let tokens = tokens_at_once(tables.len(), row * (heads + 1) * size_of::<f32>());
        Ok(Self {
            tokens,
            scores: gpu.alloc(tokens * row * heads)?,
            statistics: gpu.alloc(tokens * kv_heads * SPLITS * heads)?,
            importance: gpu.alloc(tokens * row)?,
        })
    }
}

impl DeviceQueries<'_> {
    /// Selects pages: `indices` `[N, H, slots]`; the mass that they keep and their number go to
    /// rows `[N, H]` of a buffer, from the given one on.
    pub(crate) fn select(
        &self,
        count: &PageCount,
        scratch: &mut SelectionScratch,
        indices: &mut Buffer<i32>,
        mut kept_mass: Option<(&mut Buffer<[f32; 2]>, usize)>,
    ) -> Result<()> {
        let &Self { gpu, shape, layer, tables, q, softmax_scale, .. } = self;
        let (head_dim, page_size, group) = (shape.head_dim, shape.page_size, self.group());
        let reference = count.rule == SelectionRule::Reference;
        let score_defines = score_defines(head_dim, page_size, group);
        let top_defines = top_defines(head_dim, page_size, group, reference, count.slots);
        // A budget by mass can drop blocks of short sequences, too.
        let all_within = if count.mass.is_none() { int("K", count.slots)? } else { 0 };
        let keys = candidates(count.slots) + count.slots + if reference { page_size } else { 0 };
        for first in (0..tables.len()).step_by(scratch.tokens.max(1)) {
            let tokens = scratch.tokens.min(tables.len() - first);
            let splits = tables.blocks().div_ceil(UNIT).clamp(1, SPLITS);
            let grid = [splits, shape.kv_heads, tokens];
            gpu.launch(
                Launch::new(grid, THREADS).defines(&score_defines).overlapping(),
                PageScores {
                    q: q.input()?,
                    key_means: layer.key_means.input(),
                    scores: scratch.scores.output(),
                    statistics: scratch.statistics.output(),
                    tokens: tables.tokens(first),
                    all_within,
                    scale: softmax_scale * std::f32::consts::LOG2_E,
                },
            )?;
            gpu.launch(
                Launch::new(grid, THREADS).defines(&score_defines).overlapping(),
                PageImportance {
                    scores: scratch.scores.input(),
                    statistics: scratch.statistics.input(),
                    importance: scratch.importance.output(),
                    tokens: tables.tokens(first),
                    all_within,
                },
            )?;
            gpu.launch(
                Launch::new([shape.kv_heads, tokens, 1], TOP_THREADS)
                    .shared(keys * size_of::<u64>())
                    .defines(&top_defines)
                    .overlapping(),
                SelectPages {
                    importance: scratch.importance.input(),
                    indices: indices.output(),
                    first_row: kept_mass.as_ref().map_or(0, |&(_, first)| first as i64),
                    kept_mass: kept_mass.as_mut().map(|(mass, _)| mass.output()),
                    tokens: tables.tokens(first),
                    slots: int("K", count.slots)?,
                    all_within,
                    mass: count.mass.map_or(0.0, |mass| mass.mass),
                    least: int("min", count.mass.map_or(0, |mass| mass.min))?,
                },
            )?;
        }
        Ok(())
    }
}

const fn candidates(slots: usize) -> usize {
    if slots > CANDIDATES { slots.next_power_of_two() } else { CANDIDATES }
}

const fn score_defines(head_dim: usize, page_size: usize, group: usize) -> [Define; 3] {
    [("HEAD_DIM", head_dim as i64), ("PAGE_SIZE", page_size as i64), ("GROUP", group as i64)]
}

const fn top_defines(
    head_dim: usize,
    page_size: usize,
    group: usize,
    reference: bool,
    slots: usize,
) -> [Define; 5] {
    [
        ("HEAD_DIM", head_dim as i64),
        ("PAGE_SIZE", page_size as i64),
        ("GROUP", group as i64),
        ("REFERENCE_RULE", reference as i64),
        ("CANDIDATES", candidates(slots) as i64),
    ]
}
