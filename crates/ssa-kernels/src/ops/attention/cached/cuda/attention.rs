//! Attention over pages, cut into parts where there are many keys.

use half::bf16;

use super::{DeviceQueries, tokens_at_once};
use crate::cuda::{
    Buffer, Define, Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel,
    parameter_group, structs,
};
use crate::kv_cache::{CachedTokens, DeviceTables, KvShape, MEANS_PER_PAGE};
use crate::ops::attention::headers;
use crate::{Result, Tensor};

pub(super) static MODULE: Module = Module {
    name: "cached_attention",
    source: include_str!("attention.cu"),
    headers: &[&headers::CACHED, &headers::LANE_RING, &headers::ONLINE_SOFTMAX, &headers::ROWS],
    constants: constants![MOST_PARTS, MEANS_PER_PAGE, ALL, LAST, PAGES, MEANS],
    structs: structs![CachedTokens, AttentionResult, CachedAttention, AttendParts, CombineParts],
    variants: &[
        &Tiling { head_dim: 64, page_size: 16, group: 16, keys: ALL }.defines(),
        &Tiling { head_dim: 64, page_size: 16, group: 16, keys: LAST }.defines(),
        &Tiling { head_dim: 64, page_size: 16, group: 16, keys: PAGES }.defines(),
        &Tiling { head_dim: 64, page_size: 16, group: 16, keys: MEANS }.defines(),
        &Tiling { head_dim: 128, page_size: 64, group: 4, keys: ALL }.defines(),
        &Tiling { head_dim: 80, page_size: 5, group: 3, keys: PAGES }.defines(),
        &Tiling { head_dim: 256, page_size: 16, group: 20, keys: ALL }.defines(),
        &Tiling { head_dim: 256, page_size: 16, group: 2, keys: MEANS }.defines(),
    ],
};

/// The most parts that the keys of a token are cut into: with two key/value heads they occupy 128
/// multiprocessors.
const MOST_PARTS: usize = 64;
/// The fewest keys of a part: a step of 16 for each warp, twice.
const LEAST_KEYS: usize = 128;
/// The same for selected pages, few as they are: combining parts would cost more than it saves.
const LEAST_SELECTED_KEYS: usize = 1024;
/// Shared memory for keys and values that are on their way, of a block.
const RING_BYTES: usize = 80 << 10;

// The keys that a token sees.
const ALL: i64 = 0;
const LAST: i64 = 1;
const PAGES: i64 = 2;
const MEANS: i64 = 3;

parameter_group! {
    /// Where results go, and the gate that they are multiplied by.
    struct AttentionResult<'a> {
        /// `[N, HQ, D]`.
        out: Output<'a, bf16>,
        /// `[N, HQ]`.
        lse: Option<Output<'a, f32>>,
        /// Scores of gates: HQ of each row, from `first_gate` on.
        gates: Option<Input<'a, f32>>,
        /// HQ.
        heads: i32,
        /// Length of a row of `gates`.
        gate_row: i32,
        first_gate: i32,
        /// Whether the result is added to `out`.
        add: i32,
    }
}

parameter_group! {
    /// Queries, keys, parts and result.
    struct CachedAttention<'a> {
        /// `[N, HQ, D]`.
        q: Input<'a, bf16>,
        pages: Input<'a, bf16>,
        key_means: Input<'a, f32>,
        value_means: Option<Input<'a, f32>>,
        /// Selected pages, `[N, H, slots]`.
        indices: Option<Input<'a, i32>>,
        /// `[tokens, HQ, parts, D]`.
        parts: Output<'a, f32>,
        /// Maximum and sum of exponentials, `[tokens, HQ, parts]`.
        part_statistics: Output<'a, [f32; 2]>,
        tokens: CachedTokens<'a>,
        result: AttentionResult<'a>,
        window: i32,
        slots: i32,
        least_keys: i32,
        /// Parts of a row of `parts`.
        most_parts: i32,
        /// `softmax_scale / ln 2`.
        scale: f32,
    }
}

kernel! {
    /// The results of the parts, or of the only one.
    "cached_attention" in MODULE:
    struct AttendParts<'a> {
        attention: CachedAttention<'a>,
    }
}

kernel! {
    /// The result from those of the parts.
    "combine_parts" in MODULE:
    struct CombineParts<'a> {
        attention: CachedAttention<'a>,
    }
}

/// The keys that each token sees.
#[derive(Clone, Copy)]
pub(crate) enum DeviceKeys<'a> {
    All,
    Last(usize),
    /// Indices `[N, H, slots]`.
    Pages(&'a Buffer<i32>, usize),
    Means,
}

/// A gate for each query head: the sigmoid of the scores `[N, ..]`, from column `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Gates<'a> {
    pub(crate) scores: &'a Tensor,
    pub(crate) first: usize,
}

impl AttentionResult<'_> {
    /// The same result for a shorter time, for another kernel.
    fn reborrow(&mut self) -> AttentionResult<'_> {
        AttentionResult {
            out: self.out.reborrow(),
            lse: self.lse.as_mut().map(Output::reborrow),
            gates: self.gates,
            heads: self.heads,
            gate_row: self.gate_row,
            first_gate: self.first_gate,
            add: self.add,
        }
    }
}

impl DeviceKeys<'_> {
    fn kind(self) -> i64 {
        match self {
            Self::All => ALL,
            Self::Last(_) => LAST,
            Self::Pages(..) => PAGES,
            Self::Means => MEANS,
        }
    }

    /// The most keys of a token in sequences of up to `blocks` blocks.
    fn most(self, shape: &KvShape, blocks: usize) -> usize {
        let all = blocks * shape.page_size;
        match self {
            Self::All => all,
            Self::Last(window) => window.min(all),
            Self::Pages(_, slots) => (slots * shape.page_size).min(all),
            Self::Means => blocks,
        }
    }

    fn least(self) -> usize {
        if matches!(self, Self::Pages(..)) { LEAST_SELECTED_KEYS } else { LEAST_KEYS }
    }

    /// The most parts.
    fn parts(self, shape: &KvShape, blocks: usize) -> usize {
        self.most(shape, blocks).div_ceil(self.least()).clamp(1, MOST_PARTS)
    }
}

/// Results of parts.
pub(crate) struct PartsScratch {
    /// Tokens of a launch.
    tokens: usize,
    parts: Buffer<f32>,
    statistics: Buffer<[f32; 2]>,
}

impl PartsScratch {
    /// For attention to some keys, or to any with no more parts.
    pub(crate) fn new(
        gpu: &Gpu,
        shape: &KvShape,
        tables: &DeviceTables,
        query_heads: usize,
        keys: DeviceKeys<'_>,
    ) -> Result<Self> {
        let parts = keys.parts(shape, tables.blocks());
        // The only part is the result.
        let rows = if parts == 1 { 0 } else { query_heads * parts };
        let bytes = rows * (shape.head_dim + 2) * size_of::<f32>();
        let tokens = tokens_at_once(tables.len(), bytes);
        Ok(Self {
            tokens,
            parts: gpu.alloc(tokens * rows * shape.head_dim)?,
            statistics: gpu.alloc(tokens * rows)?,
        })
    }
}

/// What attention writes.
pub(crate) struct Attended<'a> {
    /// `[N, HQ, D]`.
    pub(crate) out: &'a mut Tensor,
    /// `[N, HQ]`.
    pub(crate) lse: Option<&'a mut Tensor>,
    pub(crate) gates: Option<Gates<'a>>,
    /// Whether the gated result is added to `out`.
    pub(crate) add: bool,
}

impl DeviceQueries<'_> {
    /// Attends to `keys`.
    pub(crate) fn attend(
        &self,
        keys: DeviceKeys<'_>,
        scratch: &mut PartsScratch,
        attended: Attended<'_>,
    ) -> Result<()> {
        let &Self { gpu, shape, tables, query_heads, .. } = self;
        let tiling = Tiling {
            head_dim: shape.head_dim,
            page_size: shape.page_size,
            group: self.group(),
            keys: keys.kind(),
        };
        let (defines, threads) = (tiling.defines(), tiling.warps() * WARP);
        let parts = keys.parts(shape, tables.blocks());
        let shared = tiling.shared_bytes(keys.most(shape, tables.blocks()), keys.least());
        let Attended { out, lse, gates, add } = attended;
        let mut result = AttentionResult {
            out: if add { out.in_place()? } else { out.output()? },
            lse: lse.map(Tensor::output).transpose()?,
            gates: gates.map(|gates| gates.scores.input()).transpose()?,
            heads: int("HQ", query_heads)?,
            gate_row: int("gates", gates.map_or(0, |gates| gates.scores.last_dim()))?,
            first_gate: int("gates", gates.map_or(0, |gates| gates.first))?,
            add: i32::from(add),
        };
        for first in (0..tables.len()).step_by(scratch.tokens.max(1)) {
            let tokens = scratch.tokens.min(tables.len() - first);
            let grid = [parts, shape.kv_heads * tiling.head_tiles(), tokens];
            gpu.launch(
                Launch::new(grid, threads).shared(shared).defines(&defines).overlapping(),
                AttendParts { attention: self.attention(keys, scratch, result.reborrow(), first)? },
            )?;
            if parts > 1 {
                gpu.launch(
                    Launch::new([query_heads, tokens, 1], threads).defines(&defines).overlapping(),
                    CombineParts {
                        attention: self.attention(keys, scratch, result.reborrow(), first)?,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// The parameters for the tokens from `first` on.
    fn attention<'a>(
        &'a self,
        keys: DeviceKeys<'a>,
        scratch: &'a PartsScratch,
        result: AttentionResult<'a>,
        first: usize,
    ) -> Result<CachedAttention<'a>> {
        let &Self { shape, layer, tables, q, softmax_scale, .. } = self;
        let (indices, slots) = match keys {
            DeviceKeys::Pages(indices, slots) => (Some(indices.input()), slots),
            _ => (None, 0),
        };
        let window = if let DeviceKeys::Last(window) = keys { window } else { 0 };
        Ok(CachedAttention {
            q: q.input()?,
            pages: layer.pages.input(),
            key_means: layer.key_means.input(),
            value_means: layer.value_means.as_ref().map(Buffer::input),
            indices,
            parts: scratch.parts.shared_output(),
            part_statistics: scratch.statistics.shared_output(),
            tokens: tables.tokens(first),
            result,
            window: int("window", window.min(i32::MAX as usize))?,
            slots: int("K", slots)?,
            least_keys: int("least keys", keys.least())?,
            most_parts: int("parts", keys.parts(shape, tables.blocks()))?,
            scale: softmax_scale * std::f32::consts::LOG2_E,
        })
    }
}

/// The sizes that kernels are compiled for.
#[derive(Clone, Copy)]
struct Tiling {
    head_dim: usize,
    page_size: usize,
    group: usize,
    keys: i64,
}

impl Tiling {
    /// Tiles of 16 heads of a group.
    const fn head_tiles(self) -> usize {
        self.group.div_ceil(16)
    }

    /// Bytes of a stage of a warp: 16 keys and values, padded to whole vectors.
    const fn stage_bytes(self) -> usize {
        let element = if self.keys == MEANS { size_of::<f32>() } else { size_of::<bf16>() };
        2 * 16 * 32 * self.head_dim.div_ceil(32) * element
    }

    /// Warps of a block: with at least two stages each.
    const fn warps(self) -> usize {
        let two_stages = 2 * self.stage_bytes();
        if 4 * two_stages <= RING_BYTES {
            4
        } else if 2 * two_stages <= RING_BYTES {
            2
        } else {
            1
        }
    }

    const fn stages(self) -> usize {
        RING_BYTES / (self.warps() * self.stage_bytes())
    }

    /// Dynamic shared memory: the rings, then the pages of a part.
    fn shared_bytes(self, most_keys: usize, least_keys: usize) -> usize {
        let part = most_keys.div_ceil(MOST_PARTS).max(least_keys).next_multiple_of(16);
        let per_page = if self.keys == MEANS { MEANS_PER_PAGE } else { self.page_size };
        let pages = part.min(most_keys).div_ceil(per_page) + 1;
        self.warps() * self.stages() * self.stage_bytes() + pages * size_of::<i32>()
    }

    const fn defines(self) -> [Define; 6] {
        [
            ("HEAD_DIM", self.head_dim as i64),
            ("PAGE_SIZE", self.page_size as i64),
            ("GROUP", self.group as i64),
            ("KEYS", self.keys),
            ("WARPS", self.warps() as i64),
            ("STAGES", self.stages() as i64),
        ]
    }
}
