//! `f64` definition of attention over cached keys: what the ops over whole texts compute, for some
//! of the queries.

use super::super::reference::{AttentionInputs, forward as attention_forward};
use super::CachedKeys;
use crate::Result;
use crate::contract::{Args, Axis, D, H, HIDDEN, HQ, N, S, Sizes};

/// One sequence, whole, as plain row-major slices.
#[derive(Clone, Copy, Debug)]
pub struct CachedSequence<'a> {
    /// The queries of the call `[N, HQ, D]`.
    pub q: &'a [f64],
    /// The position of the first query.
    pub first_position: usize,
    /// The keys of all tokens up to the last query `[S, H, D]`.
    pub keys: &'a [f64],
    /// Their values.
    pub values: &'a [f64],
    /// HQ.
    pub q_heads: usize,
    /// H.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Factor of every score.
    pub softmax_scale: f64,
}

/// Means `[pages, H, D]` of the complete pages of rows `[S, H, D]` of `width = H * D` elements.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn means(rows: &[f64], width: usize, page_size: usize) -> Result<Vec<f64>> {
    Args::new("cached::reference::means")
        .size("width", HIDDEN, width)
        .positive("page_size", page_size)
        .numbers("rows", rows, [S, HIDDEN])
        .check()?;
    let mut means = Vec::new();
    for page in rows.chunks_exact(page_size.saturating_mul(width)) {
        let mean = |column: usize| page[column..].iter().step_by(width).sum::<f64>();
        means.extend((0..width).map(|column| mean(column) / page_size as f64));
    }
    Ok(means)
}

/// Returns `(out, lse)` of the queries. `first_query` is the number of the first of them in the
/// call that a selection belongs to.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit,
/// [`KernelError::Cuda`](crate::KernelError::Cuda) if a selection cannot be read from a GPU.
pub fn forward(
    sequence: &CachedSequence<'_>,
    keys: CachedKeys<'_>,
    first_query: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let &CachedSequence { q, q_heads, kv_heads, head_dim, page_size, softmax_scale, .. } = sequence;
    let call = Args::new("cached::reference::forward")
        .size("q_heads", HQ, q_heads)
        .size("kv_heads", H, kv_heads)
        .size("head_dim", D, head_dim)
        .numbers("q", q, [N, HQ, D])
        .numbers("keys", sequence.keys, [S, H, D])
        .numbers("values", sequence.values, [S, H, D])
        .check()?;
    let [queries, tokens] = call.sizes([N, S])?;
    let last = Axis::Named("first_position + N", Sizes::Any);
    Args::new("cached::reference::forward")
        .size("keys", last, tokens)
        .size("first_position", last, sequence.first_position.saturating_add(queries))
        .check()?;
    let position = |query: usize| sequence.first_position + query;
    let width = kv_heads * head_dim;
    let pooled = [sequence.keys, sequence.values].map(|rows| means(rows, width, page_size));
    let [pooled_keys, pooled_values] = pooled;
    let (pooled_keys, pooled_values) = (pooled_keys?, pooled_values?);
    let (k, v) = match keys {
        CachedKeys::Means => (&pooled_keys[..], &pooled_values[..]),
        _ => (sequence.keys, sequence.values),
    };
    let selection = match keys {
        CachedKeys::Pages(pages) => Some(pages.to_host()?),
        _ => None,
    };
    let inputs = AttentionInputs { q, k, v, q_heads, kv_heads, head_dim, softmax_scale };
    attention_forward(&inputs, |query, kv_head| match keys {
        CachedKeys::All => (0..=position(query)).collect(),
        CachedKeys::Last(window) => {
            ((position(query) + 1).saturating_sub(window)..=position(query)).collect()
        }
        CachedKeys::Means => (0..(position(query) + 1) / page_size).collect(),
        CachedKeys::Pages(_) => {
            let tokens = |page: &i32| {
                let first = *page as usize * page_size;
                first..(first + page_size).min(position(query) + 1)
            };
            let selected = selection.as_ref().map(|it| it.selected(first_query + query, kv_head));
            selected.unwrap_or_default().iter().flat_map(tokens).collect()
        }
    })
}
