//! Writing the keys and values of new tokens.

use super::cuda;
use crate::contract::{Args, B, D, H, T};
use crate::kv_cache::{CachedSequences, KvCache};
use crate::{Device, Result, Tensor};

/// Writes the keys and values of the queries of a call into the pages of their sequences, and the
/// means of the pages that they complete: `mean = (k_0 + k_1 + ..) / page_size`, in token order.
///
/// # Shapes
/// `k` and `v` `[B, T, H, D]`, keys after RoPE; N = B * T queries of `sequences`.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; means are `f32` and accumulate in `f32`.
///
/// # Edge cases
/// A page that was completed before, then truncated, and is complete again gets its mean anew. No
/// queries: nothing happens.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type or is on another device, if a sequence has changed since it was extended, or if there is
/// no such layer.
///
/// # Determinism
/// Copies are exact. A mean depends on the keys of its page alone.
///
/// # Source
/// Paged storage as in <https://arxiv.org/abs/2309.06180>; block means of the SSA paper (arXiv
/// 2511.20102).
pub fn append_kv(
    cache: &mut KvCache,
    layer: usize,
    k: &Tensor,
    v: &Tensor,
    sequences: &CachedSequences,
) -> Result<()> {
    const OP: &str = "append_kv";
    let checked = Args::new(OP)
        .act("k", k, [B, T, H, D])
        .act("v", v, [B, T, H, D])
        .sequences(sequences.sequences())
        .size("cache", H, cache.shape().kv_heads)
        .size("cache", D, cache.shape().head_dim)
        .check()?;
    cache.check(OP, checked.device(), layer, sequences)?;
    match checked.device() {
        Device::Cuda(gpu) => {
            let (pages, tables) = (cache.device_pages()?, cache.device_tables(OP, gpu, sequences)?);
            cuda::append(gpu, cache.shape(), pages.layer(layer), tables, [k, v])
        }
        Device::Cpu => {
            let (k, v) = (k.as_slice()?, v.as_slice()?);
            let [kv_heads, head_dim] = checked.sizes([H, D])?;
            let page_size = cache.shape().page_size;
            let (pages, tables) = cache.host_pages_mut(OP, sequences)?;
            let queries = sequences.sequences();
            let ranges = queries.ranges().zip(queries.first_positions());
            for ((range, &first), table) in ranges.zip(tables) {
                let positions = first..first + range.len();
                for (token, position) in range.zip(positions.clone()) {
                    for head in 0..kv_heads {
                        let row = (token * kv_heads + head) * head_dim..;
                        let row = [&k[row.clone()][..head_dim], &v[row][..head_dim]];
                        pages.write(table, [layer, position, head], row);
                    }
                }
                for block in positions.start / page_size..positions.end / page_size {
                    pages.complete(table, layer, block);
                }
            }
            Ok(())
        }
    }
}
