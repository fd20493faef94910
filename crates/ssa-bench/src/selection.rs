//! Selections that look like those of trained models.

use ssa_kernels::ops::attention::selection::BlockIndices;
use ssa_kernels::{Documents, KernelError};
use ssa_model::SparseBudget;
use ssa_testkit::Random;

/// Tokens for which a far block stays selected, and tokens that share the blocks to choose from.
const STAY: usize = 3;
const RUN: usize = 64;
/// Far blocks to choose from, in multiples of the blocks of a token.
const POOL: usize = 4;

/// Blocks for one row of `tokens` tokens that neighbours share to the degree they do in trained
/// models.
///
/// Measured on models of 18 million parameters at 16x16, 8 neighbouring tokens select about 1.8
/// times as many different blocks as one of them, 64 about 3.7 times; about three quarters lie
/// among the last 16. So here each token takes three quarters of its blocks, its own among them,
/// from as many last ones as it selects at all, at random; the other quarter stays the same for
/// three tokens each and comes from a pool of four times the number selected, drawn anew every 64
/// tokens from all blocks before.
///
/// # Errors
/// [`KernelError::Argument`] if there is no token or no head.
pub fn local_selection(
    tokens: usize,
    kv_heads: usize,
    budget: SparseBudget,
) -> Result<BlockIndices, KernelError> {
    let documents = Documents::rows(1, tokens)?;
    let size = budget.block_size();
    // No token has more blocks than there are.
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
            // Near the start of the row there is nothing before the last blocks.
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

    /// Mean size of the union of the blocks of so many neighbours, in multiples of the blocks of
    /// one.
    fn union_of(
        indices: &HostBlockIndices,
        tokens: std::ops::Range<usize>,
        neighbours: usize,
    ) -> f64 {
        let groups: Vec<usize> = tokens.step_by(neighbours).collect();
        let union = |&first: &usize| {
            let blocks = (first..first + neighbours).flat_map(|token| indices.selected(token, 1));
            blocks.collect::<BTreeSet<_>>().len() as f64
        };
        groups.iter().map(union).sum::<f64>() / groups.len() as f64 / indices.block_counts() as f64
    }

    #[test]
    fn neighbours_share_blocks_as_in_trained_models() {
        let indices = selection(4096, 2, [16, 16]);
        let measured = [(2, 1.22), (4, 1.47), (8, 1.79), (16, 2.19), (32, 2.83), (64, 3.78)];
        for (neighbours, expected) in measured {
            let union = union_of(&indices, 2048..4096, neighbours);
            assert!(
                (union / expected - 1.0).abs() < 0.1,
                "{neighbours} neighbours: {union}, not {expected}"
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
