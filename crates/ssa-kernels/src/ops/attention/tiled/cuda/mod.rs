//! The kernels of a GPU.

mod kernels;
mod tables;

pub(crate) use kernels::{
    FORWARD, FORWARD_SM90, GRADIENTS, KEYS, KEYS_SM90, QUERIES, QUERIES_SM90,
};
pub(in crate::ops::attention) use tables::{KeyTiles, entries, row_tiles};

use std::sync::Arc;

use kernels::{Define, Variant, check_scale, check_shared, row_bytes, sizes};

use super::{TiledCall, Visibility};
use crate::cuda::{Buffer, Gpu};
use crate::ops::attention::padding::PaddedHeads;
use crate::ops::attention::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::{Result, Tensor};

/// Elements of a head that kernels load at once.
const STEP: usize = 8;

/// Writes `out` and `lse` of every token.
pub(super) fn forward(gpu: &Gpu, call: &TiledCall<'_>, output: &mut AttentionOutput) -> Result<()> {
    let shape = &call.shape;
    check_scale(call.op, call.softmax_scale)?;
    if let Some(padded) = PaddedHeads::new(call.op, gpu, [call.q, call.k, call.v], shape, STEP)? {
        return padded.forward(output, |output| forward(gpu, &call.with(&padded), output));
    }
    let variant = Variant::forward(gpu, shape.head_dim);
    let (tiles, shared) = query_tiles(gpu, call, &variant, 1)?;
    gpu.kernel(variant.module, "tiled_attention_fwd", &defines(call, &variant))?
        .launch([entries(&tiles) * shape.kv_heads, 1, 1], variant.threads())
        .shared(shared)
        .input(call.q)
        .input(call.k)
        .input(call.v)
        .output(&mut output.out)
        .output(&mut output.lse)
        .buffer(&tiles)
        .i32(shape.kv_heads)
        .i32(reach(call.visibility))
        .f32(call.softmax_scale)
        .run()
}

/// The tiles of query rows, and the bytes of shared memory of a block that keeps `resident` tensors
/// of such rows beside its ring of keys and values.
fn query_tiles(
    gpu: &Gpu,
    call: &TiledCall<'_>,
    variant: &Variant,
    resident: usize,
) -> Result<(Arc<Buffer<i32>>, usize)> {
    let shape = &call.shape;
    let tiles =
        row_tiles(gpu, call.documents, call.visibility, shape.group(), variant.tile_rows())?;
    let rows = resident * variant.tile_rows() + variant.get("STAGES") * 2 * variant.get("KEYS");
    let shared = rows * row_bytes(shape.head_dim) + variant.barrier_bytes();
    Ok((tiles, check_shared(call.op, gpu, shape, shared)?))
}

/// Adds to the gradients.
pub(super) fn backward(
    gpu: &Gpu,
    call: &TiledCall<'_>,
    dout: &Tensor,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    check_scale(call.op, call.softmax_scale)?;
    if let Some(padded) =
        PaddedHeads::new(call.op, gpu, [call.q, call.k, call.v], &call.shape, STEP)?
    {
        return padded.backward(dout, output, grads, |dout, output, grads| {
            backward(gpu, &call.with(&padded), dout, output, grads)
        });
    }
    let statistics = row_statistics(gpu, &call.shape, output, dout)?;
    backward_queries(gpu, call, dout, &statistics, &mut grads.dq)?;
    backward_keys(gpu, call, dout, &statistics, grads)
}

/// Of every query the logarithm of its softmax sum and `dout . out`.
pub(in crate::ops::attention) fn row_statistics(
    gpu: &Gpu,
    shape: &AttentionShape,
    output: &AttentionOutput,
    dout: &Tensor,
) -> Result<Buffer<[f32; 2]>> {
    let rows = shape.total_tokens() * shape.q_heads;
    let mut statistics = gpu.alloc::<[f32; 2]>(rows)?;
    let rows_of_a_block = 256 / (shape.head_dim / 8).next_power_of_two();
    gpu.kernel(&GRADIENTS, "attention_row_statistics", &sizes(shape))?
        .launch([rows.div_ceil(rows_of_a_block), 1, 1], 256)
        .input(&output.out)
        .input(dout)
        .input(&output.lse)
        .buffer_mut(&mut statistics)
        .i32(shape.total_tokens())
        .i32(shape.kv_heads)
        .run()?;
    Ok(statistics)
}

fn backward_queries(
    gpu: &Gpu,
    call: &TiledCall<'_>,
    dout: &Tensor,
    statistics: &Buffer<[f32; 2]>,
    dq: &mut Tensor,
) -> Result<()> {
    let shape = &call.shape;
    let variant = Variant::backward_queries(gpu, shape.head_dim);
    let (tiles, shared) = query_tiles(gpu, call, &variant, 2)?;
    gpu.kernel(variant.module, "tiled_attention_bwd_queries", &defines(call, &variant))?
        .launch([entries(&tiles) * shape.kv_heads, 1, 1], variant.threads())
        .shared(shared)
        .input(call.q)
        .input(call.k)
        .input(call.v)
        .input(dout)
        .buffer(statistics)
        .accumulate(dq)
        .buffer(&tiles)
        .i32(shape.total_tokens())
        .i32(shape.kv_heads)
        .i32(reach(call.visibility))
        .f32(call.softmax_scale)
        .run()
}

fn backward_keys(
    gpu: &Gpu,
    call: &TiledCall<'_>,
    dout: &Tensor,
    statistics: &Buffer<[f32; 2]>,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let shape = &call.shape;
    let variant = Variant::backward_keys(gpu, shape.head_dim);
    let tiles = KeyTiles {
        documents: call.documents,
        visibility: call.visibility,
        group: shape.group(),
        kv_heads: shape.kv_heads,
        tile_keys: variant.tile_keys(),
    };
    let pieces = tiles.pieces(gpu)?;
    let mut gradients = KeyGradients::new(gpu, shape, &tiles, grads)?;
    let stage = variant.streamed_rows() * (2 * row_bytes(shape.head_dim) + size_of::<[f32; 2]>());
    let shared = 2 * tiles.tile_keys * row_bytes(shape.head_dim) + variant.get("STAGES") * stage;
    let shared = check_shared(call.op, gpu, shape, shared + variant.barrier_bytes())?;
    let parts = if shape.head_dim <= 128 { 1 } else { 2 };
    gpu.kernel(variant.module, "tiled_attention_bwd_keys", &defines(call, &variant))?
        .launch([entries(&pieces) / 2 * shape.kv_heads, parts, 1], variant.threads())
        .shared(shared)
        .input(call.q)
        .input(call.k)
        .input(call.v)
        .input(dout)
        .buffer(statistics)
        .in_place(gradients.dk)
        .i32(gradients.add_dk)
        .in_place(gradients.dv)
        .i32(gradients.add_dv)
        .buffer_mut(&mut gradients.partial)
        .buffer(&pieces)
        .i32(shape.total_tokens())
        .i32(shape.kv_heads)
        .i32(reach(call.visibility))
        .f32(call.softmax_scale)
        .run()?;
    gradients.sum(gpu, shape, &tiles)
}

/// Where gradients of keys and values go. Two launches write them, each other tiles, so both need
/// to know whether there is something to add to.
pub(in crate::ops::attention) struct KeyGradients<'a> {
    pub(in crate::ops::attention) dk: &'a mut Tensor,
    pub(in crate::ops::attention) add_dk: usize,
    pub(in crate::ops::attention) dv: &'a mut Tensor,
    pub(in crate::ops::attention) add_dv: usize,
    /// `[slots, H, 2, keys of a tile, D]` of `f32`.
    pub(in crate::ops::attention) partial: Buffer<f32>,
}

impl<'a> KeyGradients<'a> {
    pub(in crate::ops::attention) fn new(
        gpu: &Gpu,
        shape: &AttentionShape,
        tiles: &KeyTiles<'_>,
        grads: &'a mut AttentionGrads,
    ) -> Result<Self> {
        let partial = gpu
            .alloc::<f32>(tiles.slots() * shape.kv_heads * 2 * tiles.tile_keys * shape.head_dim)?;
        let (_, add_dk) = grads.dk.device_accumulate()?;
        let (_, add_dv) = grads.dv.device_accumulate()?;
        let AttentionGrads { dk, dv, .. } = grads;
        Ok(Self { dk, add_dk: add_dk.into(), dv, add_dv: add_dv.into(), partial })
    }

    /// Adds up what was written to `partial`.
    pub(in crate::ops::attention) fn sum(
        self,
        gpu: &Gpu,
        shape: &AttentionShape,
        tiles: &KeyTiles<'_>,
    ) -> Result<()> {
        let sums = tiles.sums(gpu)?;
        let chunks = 2 * tiles.tile_keys * (shape.head_dim / 8);
        gpu.kernel(&GRADIENTS, "attention_sum_keys", &sizes(shape))?
            .launch([entries(&sums) * shape.kv_heads, chunks.div_ceil(256), 1], 256)
            .buffer(&self.partial)
            .in_place(self.dk)
            .i32(self.add_dk)
            .in_place(self.dv)
            .i32(self.add_dv)
            .buffer(&sums)
            .i32(tiles.tile_keys)
            .i32(shape.kv_heads)
            .run()
    }
}

impl<'a> TiledCall<'a> {
    /// The same call on padded heads.
    fn with(&self, padded: &'a PaddedHeads<'_>) -> Self {
        Self { q: &padded.q, k: &padded.k, v: &padded.v, shape: padded.shape, ..*self }
    }
}

fn defines(call: &TiledCall<'_>, variant: &Variant) -> Vec<Define> {
    let keys_are_blocks = matches!(call.visibility, Visibility::Blocks { .. });
    [variant.defines(&call.shape), vec![("KEYS_ARE_BLOCKS", keys_are_blocks.into())]].concat()
}

/// The window in tokens or the size of a block, as kernels take it.
fn reach(visibility: Visibility) -> usize {
    match visibility {
        Visibility::Tokens { window_size } => window_size.min(i32::MAX as usize),
        Visibility::Blocks { block_size } => block_size.min(i32::MAX as usize),
    }
}
