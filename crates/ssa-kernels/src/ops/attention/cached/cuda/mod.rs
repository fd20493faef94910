//! Attention over pages on a GPU.

mod append;
mod attention;
mod gather;
mod selection;
mod totals;

pub use append::HeadMaps;
pub(super) use append::append;
pub(crate) use append::rope_append;
pub(crate) use attention::{Attended, DeviceKeys, Gates, PartsScratch};
pub(crate) use selection::{PageCount, SelectionScratch};
pub(super) use totals::DeviceTotals;

use super::{CachedSequences, KvCache};
use crate::cuda::{Define, Gpu, Module};
use crate::kv_cache::{DeviceLayer, DeviceTables, KvShape};
use crate::{Result, Tensor};

/// All modules of this folder.
pub(crate) static MODULES: [&Module; 6] = [
    &append::MODULE,
    &selection::SCORES,
    &selection::TOP,
    &attention::MODULE,
    &gather::MODULE,
    &totals::MODULE,
];

/// The macros of kernels that read and write rows of pages.
const fn page_defines(head_dim: usize, page_size: usize) -> [Define; 2] {
    [("HEAD_DIM", head_dim as i64), ("PAGE_SIZE", page_size as i64)]
}

/// The queries of some tokens and what they are computed with.
#[derive(Clone, Copy)]
pub(crate) struct DeviceQueries<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) shape: &'a KvShape,
    pub(crate) layer: &'a DeviceLayer,
    pub(crate) tables: &'a DeviceTables,
    /// `[N, HQ, D]`.
    pub(crate) q: &'a Tensor,
    /// HQ.
    pub(crate) query_heads: usize,
    pub(crate) softmax_scale: f32,
}

impl<'a> DeviceQueries<'a> {
    /// The queries of an op.
    pub(super) fn new(
        op: &'static str,
        gpu: &'a Gpu,
        (cache, layer): (&'a KvCache, usize),
        sequences: &'a CachedSequences,
        q: &'a Tensor,
        softmax_scale: f32,
    ) -> Result<Self> {
        Ok(Self {
            gpu,
            shape: cache.shape(),
            layer: cache.device_pages()?.layer(layer),
            tables: cache.device_tables(op, gpu, sequences)?,
            q,
            query_heads: q.len() / (sequences.sequences().total_tokens().max(1) * q.last_dim()),
            softmax_scale,
        })
    }

    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.query_heads / self.shape.kv_heads
    }
}

/// Queries of a call from which on full and window attention share tiles of keys: fewer are those
/// of steps.
pub(super) const LEAST_TILED_QUERIES: usize = 65;

/// Bytes of intermediate results of a launch: calls with more take several.
const SCRATCH: usize = 64 << 20;

/// The tokens of a launch whose intermediate results take so many bytes each.
fn tokens_at_once(tokens: usize, bytes: usize) -> usize {
    // The third dimension of a grid has 16 bits.
    (SCRATCH / bytes.max(1)).clamp(1, 1 << 15).min(tokens)
}
