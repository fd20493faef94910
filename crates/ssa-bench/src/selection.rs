//! Block selections like those of trained models.

use ssa_kernels::ops::attention::selection::BlockIndices;
use ssa_kernels::{Documents, KernelError};
use ssa_model::SparseBudget;
use ssa_testkit::Random;

/// Tokens for which a far block stays selected, and tokens that share the candidate blocks.
const STAY: usize = 3;
const RUN: usize = 64;
/// Number of far candidate blocks, in multiples of the blocks of a token.
const POOL: usize = 4;

/// Creates a block selection for one row of `tokens` tokens, shared between neighbors to the same
/// degree as in trained models.
///
/// In models of 18 million parameters at 16x16, 8 neighboring tokens select about 1.8 times as many
/// distinct blocks as one token, and 64 about 3.7 times; about three quarters are among the last
/// 16. So each token here selects three quarters of its blocks, including its own, at random from
/// the most recent ones (as many as it selects in total). The other quarter stays the same for
/// three tokens and comes from a pool of four times the number of selected blocks, redrawn every 64
/// tokens from all earlier blocks.
///
/// # Errors
/// [`KernelError::Argument`] if there are no tokens or no heads.
pub fn local_selection(
    tokens: usize,
    kv_heads: usize,
    budget: SparseBudget,
) -> Result<BlockIndices, KernelError> {
    let documents = Documents::rows(1, tokens)?;
    let size = budget.block_size();
    // No token selects more blocks than exist.
    let counts = budget.block_counts().min(tokens.div_ceil(size));
    let near = (3 * counts).div_ceil(4);
    let mut random = Random::new(2);
    let mut below = |bound: usize| random.below(bound.max(1) as u32, 1)[0] as usize;
    let mut indices = vec![-1; tokens * kv_heads * counts];
    let mut pools = vec![vec![0; POOL * counts]; kv_heads];
    let mut far = vec![vec![0; counts - near]; kv_heads];
    let mut recent = Vec::with_capacity(counts);
    let mut row = Vec::with_capacity(counts);
    for (place, slots) in indices.chunks_mut(counts).enumerate() {
        let (token, head) = (place / kv_heads, place % kv_heads);
        let current = token / size;
        let first_recent = (current + 1).saturating_sub(counts);
        if token % RUN == 0 {
            pools[head].iter_mut().for_each(|block| *block = below(first_recent));
        }
        row.clear();
        row.push(current);
        recent.clear();
        recent.extend(first_recent..current);
        while row.len() < near && !recent.is_empty() {
            row.push(recent.swap_remove(below(recent.len())));
        }
        for (slot, block) in far[head].iter_mut().enumerate() {
            if (token + slot) % STAY == 0 || token % RUN == 0 {
                *block = pools[head][below(POOL * counts)];
            }
            // Near the start of the row there are no earlier blocks.
            if *block < first_recent {
                row.push(*block);
            }
        }
        row.sort_unstable();
        row.dedup();
        slots.iter_mut().zip(&row).for_each(|(slot, &block)| *slot = block as i32);
    }
    BlockIndices::from_vec(indices, &documents, kv_heads, size, counts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ssa_kernels::ops::attention::selection::HostBlockIndices;

    use super::*;

    fn selection(tokens: usize, kv_heads: usize, budget: [usize; 2]) -> HostBlockIndices {
        let budget = SparseBudget::new(budget[0], budget[1]).unwrap();
        local_selection(tokens, kv_heads, budget).unwrap().to_host().unwrap()
    }

    /// Mean size of the union of the blocks of adjacent tokens, in multiples of the blocks of one
    /// token.
    fn union_of(
        indices: &HostBlockIndices,
        tokens: std::ops::Range<usize>,
        neighbors: usize,
    ) -> f64 {
        let groups: Vec<usize> = tokens.step_by(neighbors).collect();
        let union = |&first: &usize| {
            let blocks = (first..first + neighbors).flat_map(|token| indices.selected(token, 1));
            blocks.collect::<BTreeSet<_>>().len() as f64
        };
        groups.iter().map(union).sum::<f64>() / groups.len() as f64 / indices.block_counts() as f64
    }

    #[test]
    fn neighbors_share_blocks_as_in_trained_models() {
        let indices = selection(4096, 2, [16, 16]);
        let measured = [(2, 1.22), (4, 1.47), (8, 1.79), (16, 2.19), (32, 2.83), (64, 3.78)];
        for (neighbors, expected) in measured {
            let union = union_of(&indices, 2048..4096, neighbors);
            assert!(
                (union / expected - 1.0).abs() < 0.1,
                "{neighbors} neighbors: {union}, not {expected}"
            );
        }
    }

    #[test]
    fn any_size_is_a_selection() {
        for (tokens, [size, counts]) in
            [(1, [16, 16]), (100, [16, 4]), (63, [64, 1]), (1000, [7, 3])]
        {
            selection(tokens, 2, [size, counts]);
        }
        assert_eq!(selection(5, 1, [2, 2]).selected(0, 0), [0]);
    }
}
