//! `f64` definition of block selection.

use super::{SelectionOptions, SelectionRule};
use crate::contract::{Args, C, D, H, HQ, N};
use crate::{Documents, Result};

/// The inputs of selection as plain row-major slices.
#[derive(Clone, Copy, Debug)]
pub struct SelectionInputs<'a> {
    /// `[N, HQ, D]`.
    pub q: &'a [f64],
    /// `[C, H, D]`.
    pub k_pooled: &'a [f64],
    /// HQ.
    pub q_heads: usize,
    /// H.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Factor of every score.
    pub softmax_scale: f64,
}

/// The importance of every block before the token's own, for every `token * H + kv_head`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn importance(
    inputs: &SelectionInputs<'_>,
    documents: &Documents,
    block_size: usize,
) -> Result<Vec<Vec<f64>>> {
    Args::new("selection::reference::importance")
        .size("q_heads", HQ, inputs.q_heads)
        .size("kv_heads", H, inputs.kv_heads)
        .size("head_dim", D, inputs.head_dim)
        .positive("block_size", block_size)
        .size("block_size", C, documents.blocks(block_size.max(1)))
        .numbers("q", inputs.q, [N, HQ, D])
        .numbers("k_pooled", inputs.k_pooled, [C, H, D])
        .entries("documents", documents.total_tokens(), "tokens", [N])
        .check()?;
    let group = inputs.q_heads / inputs.kv_heads;
    let mut importance = Vec::new();
    let mut first_block = 0;
    for document in documents.ranges() {
        for token in document.clone() {
            let position = token - document.start;
            for kv_head in 0..inputs.kv_heads {
                let mut sum = vec![0.0; position / block_size];
                for head in kv_head * group..(kv_head + 1) * group {
                    let score = |block| inputs.score(token, head, first_block + block, kv_head);
                    let complete = 0..(position + 1) / block_size;
                    let exponentials: Vec<f64> = complete.map(|block| score(block).exp()).collect();
                    let total: f64 = exponentials.iter().sum();
                    sum.iter_mut().zip(exponentials).for_each(|(sum, e)| *sum += e / total);
                }
                importance.push(sum);
            }
        }
        first_block += document.len().div_ceil(block_size);
    }
    Ok(importance)
}

/// The ascending blocks selected by a token with these importances; its own block is
/// `importance.len()`.
pub fn select(importance: &[f64], options: &SelectionOptions) -> Vec<i32> {
    let mut ranked: Vec<(i32, f64)> = importance
        .iter()
        .chain([&f64::INFINITY])
        .enumerate()
        .map(|(block, i)| (block as i32, *i))
        .collect();
    // Stable, so that equal blocks stay in ascending order.
    let sort = |list: &mut Vec<(i32, f64)>| list.sort_by(|a, b| b.1.total_cmp(&a.1));
    if options.rule == SelectionRule::Reference {
        let mut running = Vec::new();
        for chunk in ranked.chunks(options.budget.block_size()) {
            let mut chunk = chunk.to_vec();
            sort(&mut chunk);
            if !running.is_empty() {
                running.truncate(options.budget.block_size() / 2);
                chunk.truncate(options.budget.block_size() / 2);
            }
            running.extend(chunk);
            sort(&mut running);
        }
        ranked = running;
    }
    sort(&mut ranked);
    ranked.truncate(options.selected_blocks());
    let mut blocks: Vec<i32> = ranked.into_iter().map(|(block, _)| block).collect();
    blocks.sort();
    blocks
}

impl SelectionInputs<'_> {
    fn score(&self, token: usize, head: usize, block: usize, kv_head: usize) -> f64 {
        let q = &self.q[(token * self.q_heads + head) * self.head_dim..][..self.head_dim];
        let k =
            &self.k_pooled[(block * self.kv_heads + kv_head) * self.head_dim..][..self.head_dim];
        self.softmax_scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()
    }
}
