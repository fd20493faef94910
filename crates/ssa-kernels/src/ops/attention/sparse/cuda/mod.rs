//! Sparse attention on a GPU; the sources explain their designs.

mod inverse_index;

pub(crate) use inverse_index::MODULE as INVERSE_INDEX;

use self::inverse_index::InverseIndex;
use super::super::padding::PaddedHeads;
use super::super::selection::BlockIndices;
use super::super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::cuda::{Buffer, Gpu, Module};
use crate::ops::attention::blocks::device_block_starts;
use crate::{Result, Tensor};

/// Shapes whose registers are checked: the paper's at several block sizes, and a larger head.
const VARIANTS: &[&[(&str, i64)]] = &[
    &[("HEAD_DIM", 64), ("GROUP", 16), ("BLOCK_SIZE", 16), ("SLICE", 64)],
    &[("HEAD_DIM", 64), ("GROUP", 16), ("BLOCK_SIZE", 32), ("SLICE", 64)],
    &[("HEAD_DIM", 64), ("GROUP", 16), ("BLOCK_SIZE", 64), ("SLICE", 64)],
    &[("HEAD_DIM", 64), ("GROUP", 16), ("BLOCK_SIZE", 128), ("SLICE", 64)],
    &[("HEAD_DIM", 128), ("GROUP", 16), ("BLOCK_SIZE", 16), ("SLICE", 128)],
];

pub(crate) static FORWARD: Module =
    Module { name: "sparse_forward", source: include_str!("../forward.cu"), variants: VARIANTS };
pub(crate) static BACKWARD_QUERIES: Module = Module {
    name: "sparse_backward_queries",
    source: include_str!("../backward_queries.cu"),
    variants: VARIANTS,
};
pub(crate) static BACKWARD_KEYS: Module = Module {
    name: "sparse_backward_keys",
    source: include_str!("../backward_keys.cu"),
    variants: VARIANTS,
};

/// Warps of a block of the kernels, and threads of a warp.
const WARPS: usize = 4;
const WARP: usize = 32;
/// Rows of a product, heads or keys, and elements of a head that it takes at once.
const ROWS: usize = 16;
/// Pairs of a segment of the inverse index, at least, and segments of a large one, about.
const SEGMENT: usize = 128;
const SEGMENTS: usize = 4096;

/// Inputs, as the kernels take them.
pub(super) struct Inputs<'a> {
    pub(super) q: &'a Tensor,
    pub(super) k: &'a Tensor,
    pub(super) v: &'a Tensor,
    pub(super) block_indices: &'a BlockIndices,
    pub(super) shape: AttentionShape,
    pub(super) softmax_scale: f32,
}

impl<'a> Inputs<'a> {
    /// Copies whose heads are whole steps of products, where these are not.
    fn padded<'g>(&self, op: &'static str, gpu: &'g Gpu) -> Result<Option<PaddedHeads<'g>>> {
        PaddedHeads::new(op, gpu, [self.q, self.k, self.v], &self.shape, ROWS)
    }

    /// The same inputs with padded heads.
    fn with(&self, padded: &'a PaddedHeads<'_>) -> Self {
        Self { q: &padded.q, k: &padded.k, v: &padded.v, shape: padded.shape, ..*self }
    }

    /// Elements of the head that one warp accumulates: all, or a divisor where registers do not
    /// hold them.
    fn slice(&self) -> usize {
        let head_dim = self.shape.head_dim;
        if head_dim <= 128 {
            return head_dim;
        }
        (1..=4)
            .rev()
            .map(|rows| rows * ROWS)
            .find(|slice| head_dim.is_multiple_of(*slice))
            .unwrap_or(ROWS)
    }

    fn defines(&self) -> [(&'static str, i64); 4] {
        [
            ("HEAD_DIM", self.shape.head_dim as i64),
            ("GROUP", self.shape.group() as i64),
            ("BLOCK_SIZE", self.block_indices.block_size() as i64),
            ("SLICE", self.slice() as i64),
        ]
    }

    fn slices(&self) -> usize {
        self.shape.head_dim / self.slice()
    }

    /// One warp for each token, 16 heads of a group and slice.
    fn query_grid(&self) -> [usize; 3] {
        let groups = self.shape.kv_heads * self.shape.group().div_ceil(ROWS);
        [self.shape.total_tokens().div_ceil(WARPS), groups, self.slices()]
    }

    fn key_tiles(&self) -> usize {
        self.block_indices.block_size().div_ceil(ROWS)
    }
}

pub(super) fn forward(
    op: &'static str,
    gpu: &Gpu,
    inputs: &Inputs<'_>,
    output: &mut AttentionOutput,
) -> Result<()> {
    if let Some(padded) = inputs.padded(op, gpu)? {
        return padded.forward(output, |output| forward(op, gpu, &inputs.with(&padded), output));
    }
    let Inputs { q, k, v, block_indices, shape, softmax_scale } = inputs;
    gpu.kernel(&FORWARD, "sparse_fwd", &inputs.defines())?
        .launch(inputs.query_grid(), WARPS * WARP)
        .input(q)
        .input(k)
        .input(v)
        .buffer(&*block_indices.on_gpu(op, gpu)?)
        .buffer(&*block_indices.documents().device_starts(gpu)?)
        .output(&mut output.out)
        .output(&mut output.lse)
        .i32(shape.total_tokens())
        .i32(shape.kv_heads)
        .i32(block_indices.block_counts())
        .f32(*softmax_scale)
        .run()
}

pub(super) fn backward(
    op: &'static str,
    gpu: &Gpu,
    dout: &Tensor,
    inputs: &Inputs<'_>,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    if let Some(padded) = inputs.padded(op, gpu)? {
        return padded.backward(dout, output, grads, |dout, output, grads| {
            backward(op, gpu, dout, &inputs.with(&padded), output, grads)
        });
    }
    let AttentionGrads { dq, dk, dv } = grads;
    let indices = inputs.block_indices.on_gpu(op, gpu)?;
    let delta = backward_queries(gpu, dout, inputs, output, &indices, dq)?;
    let index = InverseIndex::new(op, gpu, inputs.block_indices, &indices)?;
    backward_keys(gpu, dout, inputs, &output.lse, &delta, &index, [dk, dv])
}

/// Adds to dq and returns `dout . out` of every query.
fn backward_queries(
    gpu: &Gpu,
    dout: &Tensor,
    inputs: &Inputs<'_>,
    output: &AttentionOutput,
    indices: &Buffer,
    dq: &mut Tensor,
) -> Result<Buffer> {
    let Inputs { q, k, v, block_indices, shape, softmax_scale } = inputs;
    let mut delta = gpu.alloc::<f32>(output.lse.len())?;
    gpu.kernel(&BACKWARD_QUERIES, "sparse_bwd_queries", &inputs.defines())?
        .launch(inputs.query_grid(), WARPS * WARP)
        .input(dout)
        .input(q)
        .input(k)
        .input(v)
        .input(&output.out)
        .input(&output.lse)
        .buffer(indices)
        .buffer(&*block_indices.documents().device_starts(gpu)?)
        .buffer_mut(&mut delta)
        .accumulate(dq)
        .i32(shape.total_tokens())
        .i32(shape.kv_heads)
        .i32(block_indices.block_counts())
        .f32(*softmax_scale)
        .run()?;
    Ok(delta)
}

fn backward_keys(
    gpu: &Gpu,
    dout: &Tensor,
    inputs: &Inputs<'_>,
    lse: &Tensor,
    delta: &Buffer,
    index: &InverseIndex,
    [dk, dv]: [&mut Tensor; 2],
) -> Result<()> {
    let Inputs { q, k, v, block_indices, shape, softmax_scale } = inputs;
    let (block_size, key_tiles) = (block_indices.block_size(), inputs.key_tiles());
    // Pieces take memory in proportion to segments times block size: neither small segments nor
    // long blocks may make it more than a few times the index.
    let segment = (index.pairs / SEGMENTS).next_power_of_two().max(SEGMENT).max(2 * block_size);
    let segments = index.pairs.div_ceil(segment);
    let mut pieces = gpu.alloc::<f32>(2 * segments * key_tiles * ROWS * 2 * shape.head_dim)?;
    let starts = device_block_starts(block_indices.documents(), gpu, block_size)?;
    let defines = inputs.defines();
    // Both kernels write a part of the gradients each, so whether they add is asked once.
    let (_, add_dk) = dk.device_accumulate()?;
    let (_, add_dv) = dv.device_accumulate()?;

    let tiles_at_once = if key_tiles >= WARPS { WARPS } else { key_tiles.min(2) };
    gpu.kernel(&BACKWARD_KEYS, "sparse_bwd_keys", &defines)?
        .launch([segments, key_tiles.div_ceil(tiles_at_once), inputs.slices()], WARPS * WARP)
        .shared(WARPS * WARP * 2 * shape.head_dim)
        .input(dout)
        .input(q)
        .input(k)
        .input(v)
        .input(lse)
        .buffer(delta)
        .buffer(&index.sorted)
        .buffer(&index.starts)
        .buffer(&starts)
        .buffer_mut(&mut pieces)
        .in_place(dk)
        .i32(usize::from(add_dk))
        .in_place(dv)
        .i32(usize::from(add_dv))
        .i32(index.lists)
        .i32(shape.kv_heads)
        .i32(segment)
        .f32(*softmax_scale)
        .run()?;
    let words = 2 * inputs.slice() / 8;
    gpu.kernel(&BACKWARD_KEYS, "sparse_bwd_keys_sum", &defines)?
        .launch([index.lists, key_tiles * words / WARPS, inputs.slices()], WARPS * WARP)
        .buffer(&pieces)
        .buffer(&index.starts)
        .buffer(&starts)
        .in_place(dk)
        .i32(usize::from(add_dk))
        .in_place(dv)
        .i32(usize::from(add_dv))
        .i32(shape.kv_heads)
        .i32(segment)
        .f32(*softmax_scale)
        .run()
}
