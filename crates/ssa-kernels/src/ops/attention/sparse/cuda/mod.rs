//! Sparse attention on a GPU; the sources explain their designs.

mod inverse_index;
mod parameters;
mod tiling;

pub(crate) use inverse_index::MODULE as INVERSE_INDEX;
pub(crate) use parameters::{BACKWARD_KEYS, BACKWARD_QUERIES, FORWARD};

use self::inverse_index::InverseIndex;
use self::parameters::{
    SparseBwdKeys, SparseBwdKeysSum, SparseBwdQueries, SparseFwd, SparseInputs,
};
use self::tiling::{ROWS, THREADS, Tiling, WARPS};
use super::SparseAttention;
use crate::cuda::{Buffer, Gpu, Launch, int};
use crate::ops::attention::blocks::device_block_starts;
use crate::ops::attention::padding::PaddedHeads;
use crate::ops::attention::shape::{AttentionGrads, AttentionOutput};
use crate::{Result, Tensor};

/// The shortest segment of the inverse index in pairs, and about how many segments a large index
/// has.
const SHORTEST_SEGMENT: usize = 128;
const SEGMENTS: usize = 4096;

impl<'a> SparseAttention<'a> {
    /// Copies whose heads are whole steps of products, where these are not.
    fn padded<'g>(&self, op: &'static str, gpu: &'g Gpu) -> Result<Option<PaddedHeads<'g>>> {
        PaddedHeads::new(op, gpu, [self.q, self.k, self.v], &self.shape, ROWS)
    }

    /// The same call with padded heads.
    fn with(&self, padded: &'a PaddedHeads<'_>) -> Self {
        Self { q: &padded.q, k: &padded.k, v: &padded.v, shape: padded.shape, ..*self }
    }

    fn tiling(&self) -> Tiling {
        Tiling {
            head_dim: self.shape.head_dim,
            group: self.shape.group(),
            block_size: self.block_indices.block_size(),
        }
    }

    fn inputs(&self) -> Result<SparseInputs<'a>> {
        Ok(SparseInputs { q: self.q.input()?, k: self.k.input()?, v: self.v.input()? })
    }

    /// One warp for each token, 16 heads of a group and slice.
    fn query_grid(&self) -> [usize; 3] {
        let tiling = self.tiling();
        let tokens = self.shape.total_tokens().div_ceil(WARPS);
        [tokens, self.shape.kv_heads * tiling.head_tiles(), tiling.slices()]
    }
}

pub(super) fn forward(
    op: &'static str,
    gpu: &Gpu,
    call: &SparseAttention<'_>,
    output: &mut AttentionOutput,
) -> Result<()> {
    if let Some(padded) = call.padded(op, gpu)? {
        return padded.forward(output, |output| forward(op, gpu, &call.with(&padded), output));
    }
    let &SparseAttention { block_indices, shape, softmax_scale, .. } = call;
    let indices = block_indices.on_gpu(op, gpu)?;
    let document_start = block_indices.documents().device_starts(gpu)?;
    gpu.launch(
        Launch::new(call.query_grid(), THREADS).defines(&call.tiling().defines()),
        SparseFwd {
            inputs: call.inputs()?,
            out: output.out.output()?,
            lse: output.lse.output()?,
            indices: indices.input(),
            document_start: document_start.input(),
            tokens: int("B * T", shape.total_tokens())?,
            kv_heads: int("H", shape.kv_heads)?,
            slots: int("K", block_indices.block_counts())?,
            softmax_scale,
        },
    )
}

pub(super) fn backward(
    op: &'static str,
    gpu: &Gpu,
    dout: &Tensor,
    call: &SparseAttention<'_>,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    if let Some(padded) = call.padded(op, gpu)? {
        return padded.backward(dout, output, grads, |dout, output, grads| {
            backward(op, gpu, dout, &call.with(&padded), output, grads)
        });
    }
    let AttentionGrads { dq, dk, dv } = grads;
    let indices = call.block_indices.on_gpu(op, gpu)?;
    let delta = backward_queries(gpu, dout, call, output, &indices, dq)?;
    let index = InverseIndex::new(op, gpu, call.block_indices, &indices)?;
    backward_keys(gpu, dout, call, &output.lse, &delta, &index, [dk, dv])
}

/// Adds to dq and returns `dout . out` of every query.
fn backward_queries(
    gpu: &Gpu,
    dout: &Tensor,
    call: &SparseAttention<'_>,
    output: &AttentionOutput,
    indices: &Buffer<i32>,
    dq: &mut Tensor,
) -> Result<Buffer<f32>> {
    let &SparseAttention { block_indices, shape, softmax_scale, .. } = call;
    let mut delta = gpu.alloc(output.lse.len())?;
    let document_start = block_indices.documents().device_starts(gpu)?;
    gpu.launch(
        Launch::new(call.query_grid(), THREADS).defines(&call.tiling().defines()),
        SparseBwdQueries {
            inputs: call.inputs()?,
            out: output.out.input()?,
            lse: output.lse.input()?,
            dout: dout.input()?,
            indices: indices.input(),
            document_start: document_start.input(),
            delta: delta.output(),
            dq: dq.gradient()?,
            tokens: int("B * T", shape.total_tokens())?,
            kv_heads: int("H", shape.kv_heads)?,
            slots: int("K", block_indices.block_counts())?,
            softmax_scale,
        },
    )?;
    Ok(delta)
}

fn backward_keys(
    gpu: &Gpu,
    dout: &Tensor,
    call: &SparseAttention<'_>,
    lse: &Tensor,
    delta: &Buffer<f32>,
    index: &InverseIndex,
    [dk, dv]: [&mut Tensor; 2],
) -> Result<()> {
    let &SparseAttention { block_indices, shape, softmax_scale, .. } = call;
    let (block_size, tiling) = (block_indices.block_size(), call.tiling());
    // Pieces take memory in proportion to segments times block size: neither small segments nor
    // long blocks may make it more than a few times the index.
    let shortest = SHORTEST_SEGMENT.max(2 * block_size);
    let segment = (index.pairs / SEGMENTS).next_power_of_two().max(shortest);
    let segments = index.pairs.div_ceil(segment);
    let mut pieces = gpu.alloc::<f32>(2 * segments * tiling.piece_len())?;
    let block_start = device_block_starts(block_indices.documents(), gpu, block_size)?;
    let defines = tiling.defines();
    let (kv_heads, segment) = (int("H", shape.kv_heads)?, int("pairs of a segment", segment)?);
    // Both kernels write a part of the gradients each, so both need to know whether there is
    // something to add to.
    let (mut dk, mut dv) = (dk.gradient()?, dv.gradient()?);
    let key_tile_sets = tiling.key_tiles().div_ceil(tiling.key_tiles_at_once());
    gpu.launch(
        Launch::new([segments, key_tile_sets, tiling.slices()], THREADS)
            .shared(tiling.shared_bytes())
            .defines(&defines),
        SparseBwdKeys {
            inputs: call.inputs()?,
            lse: lse.input()?,
            dout: dout.input()?,
            delta: delta.input(),
            pairs: index.sorted.input(),
            starts: index.starts.input(),
            block_start: block_start.input(),
            pieces: pieces.output(),
            dk: dk.reborrow(),
            dv: dv.reborrow(),
            lists: int("blocks * H", index.lists)?,
            kv_heads,
            segment,
            softmax_scale,
        },
    )?;
    let sum_grid = [index.lists, tiling.key_tiles() * tiling.sum_blocks(), tiling.slices()];
    gpu.launch(
        Launch::new(sum_grid, THREADS).defines(&defines),
        SparseBwdKeysSum {
            pieces: pieces.input(),
            starts: index.starts.input(),
            block_start: block_start.input(),
            dk,
            dv,
            kv_heads,
            segment,
            softmax_scale,
        },
    )
}
