//! Writing keys and values to pages.

use half::bf16;

use super::page_defines;
use crate::cuda::{Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel, structs};
use crate::kv_cache::{CachedTokens, DeviceLayer, DeviceTables, KvShape, MEANS_PER_PAGE};
use crate::ops::attention::headers;
use crate::ops::rope::RopeTable;
use crate::{Result, Tensor};

pub(super) static MODULE: Module = Module {
    name: "append_kv",
    source: include_str!("append.cu"),
    headers: &[&headers::CACHED],
    constants: constants![THREADS, MEANS_PER_PAGE],
    structs: structs![CachedTokens, AppendKv, PageMeans, RopeAppend],
    variants: &[&page_defines(64, 16), &page_defines(128, 64), &page_defines(80, 5)],
};

/// Threads of a block.
const THREADS: usize = 128;

kernel! {
    /// Writes keys and values.
    "append_kv" in MODULE:
    struct AppendKv<'a> {
        k: Input<'a, bf16>,
        v: Input<'a, bf16>,
        pages: Output<'a, bf16>,
        tokens: CachedTokens<'a>,
        kv_heads: i32,
        /// N.
        count: i32,
    }
}

kernel! {
    /// Writes the means of pages that the tokens complete.
    "page_means" in MODULE:
    struct PageMeans<'a> {
        pages: Input<'a, bf16>,
        key_means: Output<'a, f32>,
        value_means: Option<Output<'a, f32>>,
        tokens: CachedTokens<'a>,
        kv_heads: i32,
        /// N.
        count: i32,
    }
}

kernel! {
    /// Turns the projections of some tokens of each sequence into queries, cached keys and values,
    /// and means.
    "rope_append" in MODULE:
    struct RopeAppend<'a> {
        /// `[N, row_length]`: HQ query heads, H keys, H values, and what is not used here.
        projected: Input<'a, f32>,
        /// Of queries, keys and values: `[HQ D]`, `[H D]`, `[H D]`.
        biases: [Option<Input<'a, bf16>>; 3],
        /// `[D]`.
        query_norm: Option<Input<'a, bf16>>,
        /// `[D]`.
        key_norm: Option<Input<'a, bf16>>,
        /// `[2, angle_positions, D / 2]`: cosines, then sines.
        angles: Input<'a, f32>,
        /// `[N, HQ, D]`.
        q: Output<'a, bf16>,
        pages: Output<'a, bf16>,
        key_means: Output<'a, f32>,
        value_means: Option<Output<'a, f32>>,
        tokens: CachedTokens<'a>,
        query_heads: i32,
        kv_heads: i32,
        row_length: i32,
        angle_positions: i32,
        /// Whether means are written: not if the tokens of a page are in the same launch.
        write_means: i32,
        eps: f32,
    }
}

/// Writes k and v `[N, H, D]` of all tokens of the tables, and the means of pages that they
/// complete.
pub(in super::super) fn append(
    gpu: &Gpu,
    shape: &KvShape,
    layer: &DeviceLayer,
    tables: &DeviceTables,
    [k, v]: [&Tensor; 2],
) -> Result<()> {
    let KvShape { kv_heads, head_dim, page_size, .. } = *shape;
    let (count, defines) = (tables.len(), page_defines(head_dim, page_size));
    let vectors = count * kv_heads * head_dim / 8;
    let [heads, tokens] = [int("H", kv_heads)?, int("N", count)?];
    gpu.launch(
        Launch::new([vectors.div_ceil(THREADS), 1, 1], THREADS).defines(&defines),
        AppendKv {
            k: k.input()?,
            v: v.input()?,
            pages: layer.pages.shared_output(),
            tokens: tables.tokens(0),
            kv_heads: heads,
            count: tokens,
        },
    )?;
    page_means(gpu, shape, layer, tables)
}

/// Writes the means of the pages that the tokens of the tables complete.
fn page_means(
    gpu: &Gpu,
    shape: &KvShape,
    layer: &DeviceLayer,
    tables: &DeviceTables,
) -> Result<()> {
    let KvShape { kv_heads, head_dim, page_size, .. } = *shape;
    let blocks = (tables.len() * kv_heads).div_ceil(THREADS / WARP);
    gpu.launch(
        Launch::new([blocks, 1, 1], THREADS)
            .defines(&page_defines(head_dim, page_size))
            .overlapping(),
        PageMeans {
            pages: layer.pages.input(),
            key_means: layer.key_means.shared_output(),
            value_means: layer.value_means.as_ref().map(|means| means.shared_output()),
            tokens: tables.tokens(0),
            kv_heads: int("H", kv_heads)?,
            count: int("N", tables.len())?,
        },
    )
}

/// What happens to the heads of a projection before the rotation.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadMaps<'a> {
    /// Added to queries `[HQ D]`, keys `[H D]` and values `[H D]`.
    pub biases: [Option<&'a Tensor>; 3],
    /// Weights `[D]` of RMS norms of each query and each key head.
    pub norms: [Option<&'a Tensor>; 2],
    /// Epsilon of the norms.
    pub eps: f32,
}

/// Rotates the queries and keys of some tokens of each sequence, writes queries to `q` and keys and
/// values to the pages, and the means of pages that become complete.
pub(crate) fn rope_append<'m>(
    gpu: &Gpu,
    (shape, layer): (&KvShape, &DeviceLayer),
    (tables, tokens_each): (&DeviceTables, usize),
    projected: &Tensor,
    maps: &HeadMaps<'m>,
    rope: &RopeTable,
    q: &mut Tensor,
) -> Result<()> {
    let KvShape { kv_heads, head_dim, page_size, .. } = *shape;
    let query_heads = q.len() / (tables.len() * head_dim);
    let heads = query_heads + 2 * kv_heads;
    let angles = rope.device(gpu)?;
    let input = |tensor: Option<&'m Tensor>| tensor.map(Tensor::input).transpose();
    let [query_norm, key_norm] = maps.norms;
    let [query_bias, key_bias, value_bias] = maps.biases;
    gpu.launch(
        Launch::new([heads.div_ceil(THREADS / WARP), tables.len(), 1], THREADS)
            .defines(&page_defines(head_dim, page_size))
            .overlapping(),
        RopeAppend {
            projected: projected.input()?,
            biases: [input(query_bias)?, input(key_bias)?, input(value_bias)?],
            query_norm: input(query_norm)?,
            key_norm: input(key_norm)?,
            angles: angles.input(),
            q: q.output()?,
            pages: layer.pages.shared_output(),
            key_means: layer.key_means.shared_output(),
            value_means: layer.value_means.as_ref().map(|means| means.shared_output()),
            tokens: tables.tokens(0),
            query_heads: int("HQ", query_heads)?,
            kv_heads: int("H", kv_heads)?,
            row_length: int("projections", projected.last_dim())?,
            angle_positions: int("positions", rope.positions())?,
            write_means: i32::from(tokens_each == 1),
            eps: maps.eps,
        },
    )?;
    if tokens_each > 1 { page_means(gpu, shape, layer, tables) } else { Ok(()) }
}
