//! Statistics on a GPU; the source explains its design.

use super::{AttentionStatistics, Comparison};
use crate::cuda::{Buffer, Gpu, Module};
use crate::ops::attention::tiled::Visibility;
use crate::ops::attention::tiled::cuda::{entries, row_tiles};
use crate::{KernelError, Result};

pub(crate) static MODULE: Module = Module {
    name: "statistics",
    source: include_str!("statistics.cu"),
    variants: &[
        &[("HEAD_DIM", 1)],
        &[("HEAD_DIM", 20)],
        &[("HEAD_DIM", 64)],
        &[("HEAD_DIM", 80)],
        &[("HEAD_DIM", 128)],
        &[("HEAD_DIM", 256)],
    ],
};

/// Warps of a block of the kernels, and threads of a warp.
const WARPS: usize = 4;
const WARP: usize = 32;
/// Packed rows and keys of a tile.
const ROWS: usize = 32;
const KEYS: usize = 32;
/// The largest head, and columns of a slice at most.
const LARGEST_HEAD: usize = 256;
const SLICE: usize = 64;
/// Fields of the statistics.
const FIELDS: usize = 7;

pub(super) fn compare(
    op: &'static str,
    gpu: &Gpu,
    comparison: &Comparison<'_>,
) -> Result<AttentionStatistics> {
    let &Comparison { q, k, v, block_indices, documents, softmax_scale, shape } = comparison;
    if shape.head_dim > LARGEST_HEAD {
        let expected = format!("up to {LARGEST_HEAD} on a GPU");
        return Err(KernelError::value(op, "head_dim", expected, shape.head_dim));
    }
    let rows = shape.total_tokens() * shape.q_heads;
    if rows == 0 {
        return Ok(AttentionStatistics::default());
    }
    let visibility = Visibility::Tokens { window_size: usize::MAX };
    let tiles = row_tiles(gpu, documents, visibility, shape.group(), ROWS)?;
    let norms = value_norms(gpu, comparison)?;
    let mut fields = gpu.alloc::<f32>(FIELDS * rows)?;
    gpu.kernel(&MODULE, "attention_statistics", &defines(comparison))?
        .launch([entries(&tiles), shape.kv_heads, 1], WARPS * WARP)
        .shared(shared_bytes(shape.head_dim))
        .input(q)
        .input(k)
        .input(v)
        .buffer(&norms)
        .buffer(&*block_indices.on_gpu(op, gpu)?)
        .buffer(&tiles)
        .buffer_mut(&mut fields)
        .i64(rows)
        .i32(shape.kv_heads)
        .i32(shape.group())
        .i32(block_indices.block_size())
        .i32(block_indices.block_counts())
        .f32(softmax_scale)
        .run()?;
    read(&fields, rows)
}

/// `|v|` of every token and key/value head, `f64` `[N, H]`.
fn value_norms(gpu: &Gpu, comparison: &Comparison<'_>) -> Result<Buffer> {
    let rows = comparison.shape.total_tokens() * comparison.shape.kv_heads;
    let mut norms = gpu.alloc::<f64>(rows)?;
    gpu.kernel(&MODULE, "value_norms", &defines(comparison))?
        .launch([rows.div_ceil(WARPS), 1, 1], WARPS * WARP)
        .input(comparison.v)
        .buffer_mut(&mut norms)
        .i64(rows)
        .run()?;
    Ok(norms)
}

/// Brings all fields to the host at once.
fn read(fields: &Buffer, rows: usize) -> Result<AttentionStatistics> {
    let mut values = vec![0.0; FIELDS * rows];
    fields.read(&mut values)?;
    let field = |index: usize| values[index * rows..(index + 1) * rows].to_vec();
    Ok(AttentionStatistics {
        sparsity: field(0),
        entropy_bits: field(1),
        dropped_mass: field(2),
        max_dropped_value_norm: field(3),
        distance: field(4),
        bound: field(5),
        identity_error: field(6),
    })
}

fn defines(comparison: &Comparison<'_>) -> [(&'static str, i64); 1] {
    [("HEAD_DIM", comparison.shape.head_dim as i64)]
}

/// What the kernel lays out in shared memory: keys, a slice of values and value norms in `f64`,
/// then queries in `bf16`. At most 98.25 KiB, which every card has.
fn shared_bytes(head_dim: usize) -> usize {
    let padded = head_dim.next_multiple_of(8);
    let slice = padded.div_ceil(padded.div_ceil(SLICE)).next_multiple_of(8);
    KEYS * (padded + 4 + slice + 2 + 1) * size_of::<f64>() + ROWS * (padded + 8) * size_of::<u16>()
}
