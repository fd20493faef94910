//! Statistics of full against sparse attention: every field of every query.
//!
//! Everything is `f64` but the results, which are `f32`: what may differ is their rounding, and
//! nothing else.

use ssa_kernels::ops::attention::statistics::{
    AttentionStatistics, attention_statistics, reference,
};

use super::attention::AttentionInputs;
use super::sparse::selection;
use crate::context::largest;
use crate::{Context, Result};

/// Tokens, query heads, key/value heads, head size, block size, block counts (0: all blocks),
/// longest document.
const SHAPES: [[usize; 7]; 12] = [
    [1, 16, 1, 64, 16, 4, 1],
    [63, 16, 1, 64, 16, 2, 63],
    [100, 32, 2, 64, 16, 3, 100],
    [400, 16, 1, 64, 16, 5, 60],
    [300, 16, 1, 64, 64, 2, 300],
    [150, 16, 1, 64, 16, 0, 150],
    [150, 16, 1, 64, 16, 30, 150],
    [200, 16, 1, 128, 16, 4, 150],
    [130, 3, 1, 20, 7, 5, 130],
    [100, 2, 2, 80, 24, 3, 100],
    [90, 4, 2, 256, 32, 2, 90],
    [120, 1, 1, 15, 1, 9, 80],
];

/// Of the largest value of a field: a rounding to `f32` each of the result and of the scale of a
/// score.
const TOLERANCE: f64 = 2e-7;
/// Of a field that is only the rounding of `f64` sums.
const NOTHING: f64 = 1e-12;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    SHAPES.iter().try_for_each(|&shape| check(context, shape))
}

fn check(context: &mut Context<'_>, shape: [usize; 7]) -> Result<()> {
    let [tokens, q_heads, kv_heads, head_dim, ..] = shape;
    let (documents, block_indices) = selection(context, &shape)?;
    let inputs = AttentionInputs::new(
        context,
        &[1, tokens, q_heads, head_dim],
        &[1, tokens, kv_heads, head_dim],
    )?;
    let statistics = || attention_statistics(&inputs.call(&documents), &block_indices);
    let (first, second) = (statistics()?, statistics()?);
    let exact = reference::statistics(&inputs.exact(), &block_indices.to_host()?)?;
    for ((name, actual), exact) in fields(&first).into_iter().zip(exact) {
        context.compare_within(name, actual, &exact, TOLERANCE * largest(&exact) + NOTHING);
    }
    context.check("same bits", usize::from(first != second));
    Ok(())
}

fn fields(statistics: &AttentionStatistics) -> [(&'static str, &[f32]); 7] {
    [
        ("sparsity", &statistics.sparsity),
        ("entropy", &statistics.entropy_bits),
        ("dropped mass", &statistics.dropped_mass),
        ("max dropped value norm", &statistics.max_dropped_value_norm),
        ("distance", &statistics.distance),
        ("bound", &statistics.bound),
        ("identity error", &statistics.identity_error),
    ]
}
