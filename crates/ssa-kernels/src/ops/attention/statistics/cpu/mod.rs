//! Statistics on the CPU: tiles of queries against tiles of keys, in one pass over the keys.
//!
//! A row of a tile is one query head at one token, so that the heads that share a key/value head
//! share every product with it. Both softmax are online: each is relative to its largest score so
//! far.

mod rows;

use rayon::prelude::*;

use self::rows::TileRows;
use super::AttentionStatistics;
use crate::Result;
use crate::host_memory::{collected, reserved, zeros};
use crate::ops::attention::blocks::{Blocks, Tile, split_by_tile};
use crate::ops::attention::selection::HostBlockIndices;
use crate::ops::attention::shape::AttentionShape;

/// Rows of a tile: enough to share the conversion and packing of a tile of keys.
const TILE_ROWS: usize = 256;
/// Tokens of a tile: on the diagonal, a query computes half as many scores in vain.
const MAX_TILE_TOKENS: usize = 64;
/// Keys of a tile: its scores take 256 KiB, which fit the L2 cache.
const TILE_KEYS: usize = 128;

/// A checked call on the CPU.
pub(super) struct SparseSlices<'a> {
    /// `[N, HQ, D]`.
    pub(super) q: &'a [f32],
    /// `[N, H, D]`.
    pub(super) k: &'a [f32],
    /// `[N, H, D]`.
    pub(super) v: &'a [f32],
    pub(super) block_indices: &'a HostBlockIndices,
    pub(super) softmax_scale: f32,
    pub(super) shape: AttentionShape,
}

/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn compare(call: &SparseSlices<'_>) -> Result<AttentionStatistics> {
    let shape = &call.shape;
    let values = call.v.par_chunks(shape.head_dim);
    let mut norms = reserved(values.len())?;
    values.map(|v| norm(v.iter().map(|&x| f64::from(x)))).collect_into_vec(&mut norms);
    let mut results = zeros::<HeadStatistics>(shape.total_tokens() * shape.q_heads)?;
    let blocks = Blocks::new(call.block_indices.documents(), call.block_indices.block_size());
    let tiles = blocks.tiles((TILE_ROWS / shape.group()).clamp(1, MAX_TILE_TOKENS));
    // Tiles differ in work and each is large, so each gets its own task.
    split_by_tile(&mut results, tiles, shape.q_heads).into_par_iter().with_max_len(1).for_each(
        |(tile, results)| {
            for kv_head in 0..shape.kv_heads {
                compare_tile(call, &norms, &tile, kv_head, results);
            }
        },
    );
    let column = |value: fn(&HeadStatistics) -> f64| {
        collected(results.iter().map(|result| value(result) as f32))
    };
    Ok(AttentionStatistics {
        sparsity: column(|result| result.sparsity)?,
        entropy_bits: column(|result| result.entropy_bits)?,
        dropped_mass: column(|result| result.dropped_mass)?,
        max_dropped_value_norm: column(|result| result.max_dropped_value_norm)?,
        distance: column(|result| result.distance)?,
        bound: column(|result| result.bound)?,
        identity_error: column(|result| result.identity_error)?,
    })
}

/// The statistics of one token and query head.
#[derive(Clone, Default)]
struct HeadStatistics {
    sparsity: f64,
    entropy_bits: f64,
    dropped_mass: f64,
    max_dropped_value_norm: f64,
    distance: f64,
    bound: f64,
    identity_error: f64,
}

/// Writes the results of one key/value head's query heads; `norms` are `|v|`, `[N, H]`.
fn compare_tile(
    call: &SparseSlices<'_>,
    norms: &[f64],
    tile: &Tile,
    kv_head: usize,
    results: &mut [HeadStatistics],
) {
    let (group, q_heads) = (call.shape.group(), call.shape.q_heads);
    let mut rows = TileRows::new(call, norms, tile, kv_head);
    let end = tile.tokens.end;
    for first in (tile.document_start..end).step_by(TILE_KEYS) {
        rows.attend(first..end.min(first + TILE_KEYS));
    }
    for row in 0..tile.tokens.len() * group {
        results[row / group * q_heads + kv_head * group + row % group] = rows.finish(row);
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}
