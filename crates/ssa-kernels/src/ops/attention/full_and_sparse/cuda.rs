//! One pass over the keys for both streams.

use std::sync::Arc;

use super::Call;
use crate::cuda::{Buffer, Gpu, Module};
use crate::ops::attention::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::ops::attention::tiled::Visibility;
use crate::ops::attention::tiled::cuda::{
    Define, KeyGradients, KeyTiles, Variant, check, entries, has_warpgroups, row_bytes, row_statistics,
    row_tiles,
};
use crate::{Result, Tensor};

/// Full attention decides how a call is cut.
const VISIBILITY: Visibility = Visibility::Tokens { window_size: usize::MAX };

/// Tiles of 64 keys hold whole blocks, or lie in one.
const TILE_KEYS: usize = 64;

const FORWARD_64: [Define; 6] = rows([1, 4, 64, 64, 2, 3]);
const FORWARD_128: [Define; 6] = rows([1, 4, 64, 32, 2, 2]);
const QUERIES_64: [Define; 6] = rows([2, 4, 64, 16, 2, 2]);
const QUERIES_128: [Define; 6] = rows([1, 4, 64, 32, 2, 2]);
const KEYS_64: [Define; 5] = keys([2, 4, 32, 3, 2]);
const KEYS_128: [Define; 5] = keys([1, 8, 32, 3, 1]);
const ROWS_SM90: [Define; 4] = [("WARPGROUPS", 2), ("KEYS", 64), ("STAGES", 4), ("MIN_BLOCKS", 1)];
const KEYS_SM90: [Define; 2] = [("WARPGROUPS", 2), ("STAGES", 4)];

const fn rows([row_tiles, warps, keys, step_keys, stages, min_blocks]: [i64; 6]) -> [Define; 6] {
    [
        ("ROW_TILES", row_tiles),
        ("WARPS", warps),
        ("KEYS", keys),
        ("STEP_KEYS", step_keys),
        ("STAGES", stages),
        ("MIN_BLOCKS", min_blocks),
    ]
}

const fn keys([key_tiles, warps, tile_rows, stages, min_blocks]: [i64; 5]) -> [Define; 5] {
    [
        ("KEY_TILES", key_tiles),
        ("WARPS", warps),
        ("TILE_ROWS", tile_rows),
        ("STAGES", stages),
        ("MIN_BLOCKS", min_blocks),
    ]
}

const fn variant<const N: usize, const M: usize>(head_dim: i64, tiles: [Define; N]) -> [Define; M] {
    let mut defines = [("BLOCK_SIZE", 16); M];
    defines[0] = ("HEAD_DIM", head_dim);
    defines[1] = ("GROUP", 16);
    let mut index = 0;
    while index < N {
        defines[2 + index] = tiles[index];
        index += 1;
    }
    defines
}

pub(crate) static FORWARD: Module = Module {
    name: "full_and_sparse_forward",
    source: include_str!("forward.cu"),
    variants: &[&variant::<6, 9>(64, FORWARD_64), &variant::<6, 9>(128, FORWARD_128)],
};
pub(crate) static QUERIES: Module = Module {
    name: "full_and_sparse_backward_queries",
    source: include_str!("backward_queries.cu"),
    variants: &[&variant::<6, 9>(64, QUERIES_64), &variant::<6, 9>(128, QUERIES_128)],
};
pub(crate) static KEYS: Module = Module {
    name: "full_and_sparse_backward_keys",
    source: include_str!("backward_keys.cu"),
    variants: &[&variant::<5, 8>(64, KEYS_64), &variant::<5, 8>(128, KEYS_128)],
};
pub(crate) static FORWARD_SM90: Module = Module {
    name: "full_and_sparse_forward_sm90",
    source: include_str!("forward_sm90.cu"),
    variants: &[&variant::<4, 7>(64, ROWS_SM90)],
};
pub(crate) static QUERIES_SM90: Module = Module {
    name: "full_and_sparse_backward_queries_sm90",
    source: include_str!("backward_queries_sm90.cu"),
    variants: &[&variant::<4, 7>(64, ROWS_SM90)],
};
pub(crate) static KEYS_SM90_MODULE: Module = Module {
    name: "full_and_sparse_backward_keys_sm90",
    source: include_str!("backward_keys_sm90.cu"),
    variants: &[&variant::<2, 5>(64, KEYS_SM90)],
};
pub(crate) static BITS: Module =
    Module { name: "selection_bits", source: include_str!("selection_bits.cu"), variants: &[&[]] };

/// The kernels of a call.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    forward: Variant,
    queries: Variant,
    keys: Variant,
}

impl Kernels {
    /// Those for these sizes, if one pass is what is fastest.
    pub(super) fn new(gpu: &Gpu, shape: &AttentionShape, block_size: usize) -> Option<Self> {
        let blocks_fit = block_size.is_multiple_of(16)
            && (block_size.is_multiple_of(TILE_KEYS) || TILE_KEYS.is_multiple_of(block_size));
        if shape.group() != 16 || !blocks_fit {
            return None;
        }
        let variant = |module, tiles| Variant { module, tiles };
        match (has_warpgroups(gpu), shape.head_dim) {
            (true, 64) => Some(Self {
                forward: variant(&FORWARD_SM90, &ROWS_SM90),
                queries: variant(&QUERIES_SM90, &ROWS_SM90),
                keys: variant(&KEYS_SM90_MODULE, &KEYS_SM90),
            }),
            (false, 64) => Some(Self {
                forward: variant(&FORWARD, &FORWARD_64),
                queries: variant(&QUERIES, &QUERIES_64),
                keys: variant(&KEYS, &KEYS_64),
            }),
            (false, 128) => Some(Self {
                forward: variant(&FORWARD, &FORWARD_128),
                queries: variant(&QUERIES, &QUERIES_128),
                keys: variant(&KEYS, &KEYS_128),
            }),
            _ => None,
        }
    }

    /// Writes both outputs.
    pub(super) fn forward(
        &self,
        gpu: &Gpu,
        call: &Call<'_>,
        full: &mut AttentionOutput,
        sparse: &mut AttentionOutput,
    ) -> Result<()> {
        let (shape, variant) = (&call.shape, &self.forward);
        check(call.op, shape, call.softmax_scale)?;
        let selection = Selection::new(gpu, call)?;
        let tiles = row_tiles(gpu, call.documents, VISIBILITY, shape.group(), variant.tile_rows())?;
        gpu.kernel(variant.module, "full_and_sparse_attention_fwd", &defines(call, variant))?
            .launch([entries(&tiles) * shape.kv_heads, 1, 1], variant.threads())
            .shared(row_kernel_shared(variant, shape, 1))
            .input(call.q)
            .input(call.k)
            .input(call.v)
            .buffer(&selection.bits)
            .output(&mut full.out)
            .output(&mut full.lse)
            .output(&mut sparse.out)
            .output(&mut sparse.lse)
            .buffer(&tiles)
            .i32(shape.kv_heads)
            .i32(selection.words)
            .f32(call.softmax_scale)
            .run()
    }

    /// Adds to the gradients.
    pub(super) fn backward(
        &self,
        gpu: &Gpu,
        call: &Call<'_>,
        [full_dout, sparse_dout]: [&Tensor; 2],
        [full, sparse]: [&AttentionOutput; 2],
        grads: &mut AttentionGrads,
    ) -> Result<()> {
        let shape = &call.shape;
        check(call.op, shape, call.softmax_scale)?;
        let selection = Selection::new(gpu, call)?;
        let full_statistics = row_statistics(gpu, shape, full, full_dout)?;
        let sparse_statistics = row_statistics(gpu, shape, sparse, sparse_dout)?;

        let variant = &self.queries;
        let tiles = row_tiles(gpu, call.documents, VISIBILITY, shape.group(), variant.tile_rows())?;
        gpu.kernel(variant.module, "full_and_sparse_attention_bwd_queries", &defines(call, variant))?
            .launch([entries(&tiles) * shape.kv_heads, 1, 1], variant.threads())
            .shared(row_kernel_shared(variant, shape, 3))
            .input(call.q)
            .input(call.k)
            .input(call.v)
            .buffer(&selection.bits)
            .input(full_dout)
            .buffer(&full_statistics)
            .input(sparse_dout)
            .buffer(&sparse_statistics)
            .accumulate(&mut grads.dq)
            .buffer(&tiles)
            .i32(shape.total_tokens())
            .i32(shape.kv_heads)
            .i32(selection.words)
            .f32(call.softmax_scale)
            .run()?;

        let variant = &self.keys;
        let tiles = KeyTiles {
            documents: call.documents,
            visibility: VISIBILITY,
            group: shape.group(),
            kv_heads: shape.kv_heads,
            tile_keys: variant.tile_keys(),
        };
        let pieces = tiles.pieces(gpu)?;
        let mut gradients = KeyGradients::new(gpu, shape, &tiles, grads)?;
        let row = row_bytes(shape.head_dim);
        let stage = variant.streamed_rows() * (3 * row + 2 * size_of::<[f32; 2]>());
        gpu.kernel(variant.module, "full_and_sparse_attention_bwd_keys", &defines(call, variant))?
            .launch([entries(&pieces) / 2 * shape.kv_heads, 1, 1], variant.threads())
            .shared(2 * tiles.tile_keys * row + variant.get("STAGES") * stage + variant.barrier_bytes())
            .input(call.q)
            .input(call.k)
            .input(call.v)
            .buffer(&selection.bits)
            .input(full_dout)
            .buffer(&full_statistics)
            .input(sparse_dout)
            .buffer(&sparse_statistics)
            .in_place(gradients.dk)
            .i32(gradients.add_dk)
            .in_place(gradients.dv)
            .i32(gradients.add_dv)
            .buffer_mut(&mut gradients.partial)
            .buffer(&pieces)
            .i32(shape.total_tokens())
            .i32(shape.kv_heads)
            .i32(selection.words)
            .f32(call.softmax_scale)
            .run()?;
        gradients.sum(gpu, shape, &tiles)
    }
}

/// The selected blocks as bits, `[N, H, words]`.
struct Selection {
    bits: Buffer,
    words: usize,
}

impl Selection {
    fn new(gpu: &Gpu, call: &Call<'_>) -> Result<Self> {
        let indices: Arc<Buffer> = call.block_indices.on_gpu(call.op, gpu)?;
        let longest = call.documents.ranges().map(|range| range.len()).max().unwrap_or(0);
        let words = longest.div_ceil(call.block_indices.block_size()).div_ceil(32);
        let rows = call.shape.total_tokens() * call.shape.kv_heads;
        let mut bits = gpu.alloc::<u32>(rows * words)?;
        gpu.kernel(&BITS, "selection_bits", &[])?
            .launch([(rows * words).div_ceil(256), 1, 1], 256)
            .buffer(&indices)
            .buffer_mut(&mut bits)
            .i64(rows)
            .i32(call.block_indices.block_counts())
            .i32(words)
            .run()?;
        Ok(Self { bits, words })
    }
}

/// Shared memory of a kernel over query tiles that holds so many of them beside its ring.
fn row_kernel_shared(variant: &Variant, shape: &AttentionShape, tiles: usize) -> usize {
    let rows = tiles * variant.tile_rows() + variant.get("STAGES") * 2 * variant.get("KEYS");
    rows * row_bytes(shape.head_dim) + variant.barrier_bytes()
}

fn defines(call: &Call<'_>, variant: &Variant) -> Vec<Define> {
    let block_size = ("BLOCK_SIZE", call.block_indices.block_size() as i64);
    [variant.defines(&call.shape), vec![block_size]].concat()
}
