//! `f64` definition of attention over cached keys: what the ops over whole texts compute, for some
//! of the queries.

use super::super::reference::{AttentionInputs, forward as attention_forward};
use super::CachedKeys;
use crate::Result;

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
pub fn means(rows: &[f64], width: usize, page_size: usize) -> Vec<f64> {
    let mut means = Vec::new();
    for page in rows.chunks_exact(page_size * width) {
        let mean = |column: usize| page[column..].iter().step_by(width).sum::<f64>();
        means.extend((0..width).map(|column| mean(column) / page_size as f64));
    }
    means
}

/// Returns `(out, lse)` of the queries. `first_query` is the number of the first of them in the
/// call that a selection belongs to.
///
/// # Errors
/// [`KernelError::Cuda`](crate::KernelError::Cuda) if a selection cannot be read from a GPU.
pub fn forward(
    sequence: &CachedSequence<'_>,
    keys: CachedKeys<'_>,
    first_query: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let &CachedSequence { q, q_heads, kv_heads, head_dim, page_size, softmax_scale, .. } = sequence;
    let position = |query: usize| sequence.first_position + query;
    let width = kv_heads * head_dim;
    let pooled = [sequence.keys, sequence.values].map(|rows| means(rows, width, page_size));
    let (k, v) = match keys {
        CachedKeys::Means => (&pooled[0][..], &pooled[1][..]),
        _ => (sequence.keys, sequence.values),
    };
    let selection = match keys {
        CachedKeys::Pages(pages) => Some(pages.to_host()?),
        _ => None,
    };
    let inputs = AttentionInputs { q, k, v, q_heads, kv_heads, head_dim, softmax_scale };
    Ok(attention_forward(&inputs, |query, kv_head| match keys {
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
    }))
}
