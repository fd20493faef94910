//! Block selection over cached keys.

use super::cuda::{DeviceQueries, PageCount, SelectionScratch};
use super::page_indices::DeviceIndices;
use super::{PageIndices, PageOptions, check_queries, cpu};
use crate::kv_cache::{CachedSequences, KvCache};
use crate::ops::attention::shape::AttentionShape;
use crate::{Device, Result, Tensor};

/// Selects pages for every query and key/value head by the means of their keys: the importance of
/// [`select_blocks`](crate::ops::attention::selection::select_blocks), where a page is a block.
///
/// ```text
/// s_hc  = softmax_scale * q_h . mean_c       for the G heads h of the group
/// lse_h = ln sum_c exp(s_hc)                 over complete pages, c < floor((t + 1) / page_size)
/// I_c   = sum_h exp(s_hc - lse_h)            for earlier pages, c < floor(t / page_size)
/// ```
///
/// The page of the token itself and the most important others are selected, of equal ones the
/// lower. [`PageBudget::Counts`](super::PageBudget::Counts) says how many there are in all.
/// [`PageBudget::Mass`](super::PageBudget::Mass) takes, between its bounds, the fewest whose I,
/// together with that of the token's own page if it is complete, sum to `mass * G`.
///
/// # Shapes
/// `q` `[B, T, HQ, D]` after RoPE, N = B * T queries of `sequences`; the cache has H key/value
/// heads of D elements, H a divisor of HQ. Returns indices `[B, T, H, K]`: K is the largest number
/// of pages of the budget (rounded up to a power of two by the reference rule), but no more than
/// the longest sequence has.
///
/// # Dtypes
/// `f32`, accumulated in `f32`; on a GPU `q` is `bf16` and means are `f32`.
///
/// # Edge cases
/// Fewer pages than the budget allows: all of them. A query without complete pages keeps all mass.
/// No queries: no indices.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type or is on another device; if a sequence has changed since it was extended; if there is no
/// such layer; if the budget is impossible, or not one of the rule.
///
/// # Determinism
/// As [`cached_attention_fwd`](super::cached_attention_fwd).
///
/// # Source
/// As [`select_blocks`](crate::ops::attention::selection::select_blocks).
pub fn select_pages(
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    sequences: &CachedSequences,
    options: &PageOptions,
    softmax_scale: f32,
) -> Result<PageIndices> {
    const OP: &str = "select_pages";
    let page_size = cache.shape().page_size;
    let (selection, mass) = options.selection(OP, page_size)?;
    let checked = check_queries(OP, q, cache, layer, sequences)?;
    match checked.device() {
        Device::Cuda(gpu) => {
            let queries = DeviceQueries::new(OP, gpu, (cache, layer), sequences, q, softmax_scale)?;
            let shape = AttentionShape::of(&checked)?;
            let (tables, kv_heads) = (queries.tables, shape.kv_heads);
            let count = PageCount::new(OP, &selection, mass, tables.blocks())?;
            let mut scratch = SelectionScratch::new(gpu, tables, kv_heads, shape.group())?;
            let rows = tables.len() * kv_heads;
            let mut selected = DeviceIndices {
                indices: gpu.alloc(rows * count.slots)?,
                kept_mass: gpu.alloc(rows)?,
            };
            let DeviceIndices { indices, kept_mass } = &mut selected;
            queries.select(&count, &mut scratch, indices, Some((kept_mass, 0)))?;
            let sequences = sequences.sequences();
            Ok(PageIndices::from_device(sequences, [kv_heads, count.slots], selected))
        }
        Device::Cpu => {
            let call = cpu::SelectionQueries {
                q: q.as_slice()?,
                means: cache.host_pages()?.means(),
                tables: cache.page_tables(OP, sequences)?,
                layer,
                sequences: sequences.sequences(),
                page_size,
                selection,
                mass,
                shape: AttentionShape::of(&checked)?,
                softmax_scale,
            };
            cpu::select(&call)
        }
    }
}
