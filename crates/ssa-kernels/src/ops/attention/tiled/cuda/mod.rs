//! Attention tile by tile on a GPU.

mod parameters;
mod tables;
mod tile;
mod variant;

pub(crate) use parameters::{
    FORWARD, FORWARD_SM90, GRADIENTS, KEYS, KEYS_SM90, QUERIES, QUERIES_SM90,
};
pub(crate) use tables::{entries, row_tiles};

use std::sync::Arc;

use half::bf16;
use parameters::{
    AttentionInputs, AttentionRowStatistics, AttentionSumKeys, THREADS, TiledAttentionBwdKeys,
    TiledAttentionBwdQueries, TiledAttentionFwd, gradient_defines,
};
use tables::KeyTiles;
use variant::Variant;

use super::{TiledAttention, Visibility};
use crate::cuda::{Buffer, Gpu, Gradient, Launch, Parameters, RowLayout, int};
use crate::ops::attention::padding::PaddedHeads;
use crate::ops::attention::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::{KernelError, Result, Tensor};

/// Elements of a head in one load of a kernel.
const STEP: usize = 8;

/// Writes `out` and `lse` of every token.
pub(super) fn forward(
    gpu: &Gpu,
    call: &TiledAttention<'_>,
    output: &mut AttentionOutput,
) -> Result<()> {
    let shape = &call.shape;
    check_scale(call.op, call.softmax_scale)?;
    if let Some(padded) = PaddedHeads::new(call.op, gpu, [call.q, call.k, call.v], shape, STEP)? {
        return padded.forward(output, |output| forward(gpu, &call.with(&padded), output));
    }
    let variant = Variant::forward(gpu, shape.head_dim);
    let tiles = call.query_tiles(gpu, &variant)?;
    let grid = [entries(&tiles) * shape.kv_heads, 1, 1];
    let (out, lse) = (output.out.output()?, output.lse.output()?);
    let (inputs, tiles) = (call.inputs()?, tiles.groups());
    call.launch(gpu, &variant, grid, TiledAttentionFwd { inputs, out, lse, tiles })
}

/// Adds to the gradients.
pub(super) fn backward(
    gpu: &Gpu,
    call: &TiledAttention<'_>,
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

/// lse / ln 2 and `dout . out` of every query, `[H, N, GROUP]`.
fn row_statistics(
    gpu: &Gpu,
    shape: &AttentionShape,
    output: &AttentionOutput,
    dout: &Tensor,
) -> Result<Buffer<[f32; 2]>> {
    let rows = shape.total_tokens() * shape.q_heads;
    let mut statistics = gpu.alloc(rows)?;
    let rows_per_block = THREADS / RowLayout::new(shape.head_dim).lanes();
    gpu.launch(
        Launch::new([rows.div_ceil(rows_per_block), 1, 1], THREADS)
            .defines(&gradient_defines(shape.head_dim, shape.group())),
        AttentionRowStatistics {
            out: output.out.input()?,
            lse: output.lse.input()?,
            dout: dout.input()?,
            statistics: statistics.output(),
            tokens: int("B * T", shape.total_tokens())?,
            kv_heads: int("H", shape.kv_heads)?,
        },
    )?;
    Ok(statistics)
}

fn backward_queries(
    gpu: &Gpu,
    call: &TiledAttention<'_>,
    dout: &Tensor,
    statistics: &Buffer<[f32; 2]>,
    dq: &mut Tensor,
) -> Result<()> {
    let variant = Variant::backward_queries(gpu, call.shape.head_dim);
    let tiles = call.query_tiles(gpu, &variant)?;
    let grid = [entries(&tiles) * call.shape.kv_heads, 1, 1];
    let parameters = TiledAttentionBwdQueries {
        inputs: call.inputs()?,
        dout: dout.input()?,
        statistics: statistics.input(),
        tiles: tiles.groups(),
        dq: dq.gradient()?,
    };
    call.launch(gpu, &variant, grid, parameters)
}

fn backward_keys(
    gpu: &Gpu,
    call: &TiledAttention<'_>,
    dout: &Tensor,
    statistics: &Buffer<[f32; 2]>,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let shape = &call.shape;
    let variant = Variant::backward_keys(gpu, shape.head_dim);
    let tiles = KeyTiles {
        documents: call.sequences.queries(),
        visibility: call.visibility,
        group: shape.group(),
        kv_heads: shape.kv_heads,
        tile_keys: variant.tile.keys,
    };
    let pieces = tiles.pieces(gpu)?;
    let partial_len = tiles.slots() * shape.kv_heads * 2 * tiles.tile_keys * shape.head_dim;
    let mut partial = gpu.alloc::<f32>(partial_len)?;
    let AttentionGrads { dk, dv, .. } = grads;
    // Two launches write the gradients, each different tiles, so both need to know whether there is
    // something to add to.
    let (mut dk, mut dv) = (dk.gradient()?, dv.gradient()?);
    let grid = [entries(&pieces) / 2 * shape.kv_heads, variant.tile.parts, 1];
    let parameters = TiledAttentionBwdKeys {
        inputs: call.inputs()?,
        dout: dout.input()?,
        statistics: statistics.input(),
        pieces: pieces.groups(),
        dk: dk.reborrow(),
        dv: dv.reborrow(),
        partial: partial.output(),
    };
    call.launch(gpu, &variant, grid, parameters)?;
    sum_keys(gpu, shape, &tiles, &partial, [dk, dv])
}

/// Adds the partial sums of key tiles whose rows were cut into pieces.
fn sum_keys(
    gpu: &Gpu,
    shape: &AttentionShape,
    tiles: &KeyTiles<'_>,
    partial: &Buffer<f32>,
    [dk, dv]: [Gradient<'_, bf16>; 2],
) -> Result<()> {
    let sums = tiles.sums(gpu)?;
    let chunks = 2 * tiles.tile_keys * RowLayout::new(shape.head_dim).vectors();
    gpu.launch(
        Launch::new([entries(&sums) * shape.kv_heads, chunks.div_ceil(THREADS), 1], THREADS)
            .defines(&gradient_defines(shape.head_dim, shape.group())),
        AttentionSumKeys {
            partial: partial.input(),
            tiles: sums.groups(),
            dk,
            dv,
            tile_keys: int("keys of a tile", tiles.tile_keys)?,
            kv_heads: int("H", shape.kv_heads)?,
        },
    )
}

impl<'a> TiledAttention<'a> {
    /// The same call on padded heads.
    fn with(&self, padded: &'a PaddedHeads<'_>) -> Self {
        Self { q: &padded.q, k: &padded.k, v: &padded.v, shape: padded.shape, ..*self }
    }

    /// The arguments of every pass.
    fn inputs(&self) -> Result<AttentionInputs<'a>> {
        let (Visibility::Tokens { window_size: window_or_block }
        | Visibility::Blocks { block_size: window_or_block }) = self.visibility;
        Ok(AttentionInputs {
            q: self.q.input()?,
            k: self.k.input()?,
            v: self.v.input()?,
            tokens: int("B * T", self.shape.total_tokens())?,
            kv_heads: int("H", self.shape.kv_heads)?,
            window_or_block: window_or_block.min(i32::MAX as usize) as i32,
            softmax_scale: self.softmax_scale,
        })
    }

    /// The tiles of query rows of a kernel.
    fn query_tiles(&self, gpu: &Gpu, variant: &Variant) -> Result<Arc<Buffer<i32>>> {
        row_tiles(gpu, self.sequences, self.visibility, self.shape.group(), variant.tile.rows)
    }

    /// Launches a kernel of a variant.
    fn launch<P: Parameters>(
        &self,
        gpu: &Gpu,
        variant: &Variant,
        grid: [usize; 3],
        parameters: P,
    ) -> Result<()> {
        let shape = &self.shape;
        let keys_are_blocks = matches!(self.visibility, Visibility::Blocks { .. });
        let defines = variant.tile.defines(shape.head_dim, shape.group(), keys_are_blocks);
        let launch = Launch::new(grid, variant.tile.threads())
            .kernel(variant.kernel)
            .shared(variant.shared_bytes(self.op, gpu, shape)?)
            .defines(&defines);
        gpu.launch(launch, parameters)
    }
}

/// Refuses a scale under which the largest product is not the largest score.
fn check_scale(op: &'static str, softmax_scale: f32) -> Result<()> {
    if softmax_scale <= 0.0 || !softmax_scale.is_finite() {
        return Err(KernelError::value(op, "softmax_scale", "positive on a GPU", softmax_scale));
    }
    Ok(())
}
