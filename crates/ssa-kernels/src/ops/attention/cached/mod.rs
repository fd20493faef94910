//! Attention of new tokens over cached keys: decoding steps and chunks of prompts.
//!
//! The queries of a call belong to sequences of a [`KvCache`]. [`append_kv`] writes their keys and
//! values, [`select_pages`] chooses blocks for them, and [`cached_attention_fwd`] attends to all
//! keys, the last ones, the selected pages or the block means. All of them compute what the ops
//! over whole documents compute, one chunk after the other.
//!
//! On the CPU the result of a query has the same bits however its sequence is cut into chunks and
//! whatever else is in the call: products are chains of multiply-adds in fixed order
//! (`cpu/register_tile.rs`), and the softmax runs over segments of keys whose borders depend on
//! their positions alone.
//!
//! [`KvCache`]: crate::kv_cache::KvCache

mod append;
mod budget;
mod cpu;
pub(crate) mod cuda;
mod keys;
mod page_indices;
mod page_totals;
pub mod reference;
mod select;
#[cfg(test)]
mod tests;

pub use append::append_kv;
pub use budget::{PageBudget, PageOptions};
pub use keys::CachedKeys;
pub use page_indices::{HostPageIndices, PageIndices};
pub use page_totals::{LayerTotals, PageTotals};
pub use select::select_pages;

use self::cuda::{Attended, DeviceKeys, DeviceQueries, LEAST_TILED_QUERIES, PartsScratch};
use super::shape::{AttentionOutput, AttentionShape};
use crate::contract::{Args, B, Checked, D, H, HQ, T};
use crate::kv_cache::{CachedSequences, KvCache};
use crate::{Device, KernelError, Result, Tensor};

/// Attention over cached keys: `out = sum_j p_j v_j`, `p = softmax_j(softmax_scale * q . k_j)` over
/// the keys j that `keys` names.
///
/// # Shapes
/// `q` `[B, T, HQ, D]` after RoPE, N = B * T queries of `sequences`; the cache has H key/value
/// heads of D elements, H a divisor of HQ. The keys and values of the queries are in the cache
/// already.
///
/// # Dtypes
/// `f32`; scores accumulate over D and outputs over keys, both in `f32`. On a GPU `q`, the cache
/// and `out` are `bf16`, `lse` is `f32`.
///
/// # Edge cases
/// [`CachedKeys::All`] is full attention, and so is [`CachedKeys::Last`] with at least as many
/// tokens as the sequence has. A query without a complete block has no means: its output is zero
/// and its `lse` negative infinity. No queries: an empty result.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type or is on another
/// device; if a sequence has changed since it was extended; if there is no such layer; if
/// the selection is for other sequences or heads; if `Last` is 0; for [`CachedKeys::Means`] if the
/// cache keeps no means of values.
///
/// # Determinism
/// On the CPU the result of a query depends on its sequence alone: bit for bit the same for any
/// number of threads, any chunks and any other sequences in the call.
///
/// # Source
/// Sections 3 and 4 of the SSA paper (arXiv 2511.20102); paged storage as in
/// <https://arxiv.org/abs/2309.06180>.
pub fn cached_attention_fwd(
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    sequences: &CachedSequences,
    keys: CachedKeys<'_>,
    softmax_scale: f32,
) -> Result<AttentionOutput> {
    const OP: &str = "cached_attention_fwd";
    let checked = check_queries(OP, q, cache, layer, sequences)?;
    let shape = AttentionShape::of(&checked)?;
    match keys {
        CachedKeys::All => {}
        CachedKeys::Last(0) => return Err(KernelError::value(OP, "keys", "at least 1 token", 0)),
        CachedKeys::Last(_) => {}
        CachedKeys::Pages(indices) => indices.check_fits(OP, sequences, shape.kv_heads)?,
        CachedKeys::Means if cache.shape().value_means => {}
        CachedKeys::Means => {
            let expected = "a cache that keeps means of values";
            return Err(KernelError::value(OP, "keys", expected, "a cache without them"));
        }
    }
    let mut output = AttentionOutput::for_output(q, shape)?;
    match checked.device() {
        Device::Cuda(gpu) => {
            let queries = DeviceQueries::new(OP, gpu, (cache, layer), sequences, q, softmax_scale)?;
            let window = match keys {
                CachedKeys::All => Some(usize::MAX),
                CachedKeys::Last(window) => Some(window),
                CachedKeys::Means | CachedKeys::Pages(_) => None,
            };
            if let Some(window) = window
                && shape.total_tokens() >= LEAST_TILED_QUERIES
            {
                let sequences = sequences.sequences();
                queries.attend_tiled(OP, sequences, window, shape, &mut output)?;
                return Ok(output);
            }
            let keys = match keys {
                CachedKeys::All => DeviceKeys::All,
                CachedKeys::Last(window) => DeviceKeys::Last(window),
                CachedKeys::Pages(pages) => DeviceKeys::Pages(pages.device(OP)?, pages.slots()),
                CachedKeys::Means => DeviceKeys::Means,
            };
            let DeviceQueries { shape, tables, query_heads, .. } = queries;
            let mut scratch = PartsScratch::new(gpu, shape, tables, query_heads, keys)?;
            let AttentionOutput { out, lse } = &mut output;
            let attended = Attended { out, lse: Some(lse), gates: None, add: false };
            queries.attend(keys, &mut scratch, attended)?;
        }
        Device::Cpu => {
            let selection = match keys {
                CachedKeys::Pages(pages) => Some(pages.host(OP)?),
                _ => None,
            };
            let call = cpu::AttentionQueries {
                q: q.as_slice()?,
                pages: cache.host_pages()?,
                tables: cache.page_tables(OP, sequences)?,
                layer,
                sequences: sequences.sequences(),
                keys,
                selection,
                shape,
                softmax_scale,
            };
            cpu::attend(&call, output.out.as_mut_slice()?, output.lse.as_mut_slice()?);
        }
    }
    Ok(output)
}

/// Checks queries of cached sequences.
fn check_queries(
    op: &'static str,
    q: &Tensor,
    cache: &KvCache,
    layer: usize,
    sequences: &CachedSequences,
) -> Result<Checked> {
    let checked = Args::new(op)
        .act("q", q, [B, T, HQ, D])
        .sequences(sequences.sequences())
        .size("cache", H, cache.shape().kv_heads)
        .size("cache", D, cache.shape().head_dim)
        .check()?;
    cache.check(op, checked.device(), layer, sequences)?;
    Ok(checked)
}
