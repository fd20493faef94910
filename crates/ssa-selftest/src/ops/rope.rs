//! The rotation of positions, both ways, with positions that restart.

use ssa_kernels::Documents;
use ssa_kernels::ops::rope::{RopeScaling, RopeTable, reference, rope_bwd, rope_fwd};

use crate::{Context, Result, round};

const THETA: f64 = 10_000.0;

/// B, T, heads and head dimension.
const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 1, 2],
    [2, 63, 3, 6],
    [1, 1000, 5, 64],
    [1, 100, 32, 64],
    [2, 500, 2, 128],
    [1, 63, 1, 256],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [batch, tokens, heads, head_dim] in SHAPES {
        let count = batch * tokens;
        let lengths = context.random().cu_seqlens(count, tokens.min(97));
        for documents in [Documents::rows(batch, tokens)?, Documents::from_cu_seqlens(lengths)?] {
            let packed = documents.len();
            context
                .case(format!("{count} tokens, {packed} documents, {heads} heads of {head_dim}"));
            let table = RopeTable::new(head_dim, THETA, &RopeScaling::None, tokens)?;
            let frequencies: Vec<f64> =
                RopeScaling::None.inverse_frequencies(head_dim, THETA).collect();
            let (x, exact) = context.normal(&[batch, tokens, heads, head_dim], 1.0)?;
            let (mut rotated, mut back) = (x.try_clone()?, x.try_clone()?);
            rope_fwd(&mut rotated, &documents, &table)?;
            rope_bwd(&mut back, &documents, &table)?;
            let positions: Vec<usize> = documents.positions().collect();
            let forward = reference::forward(&exact, &positions, heads, &frequencies)?;
            let backward = reference::backward(&exact, &positions, heads, &frequencies)?;
            context.compare("forward", &rotated, &forward, &round(&forward))?;
            context.compare("backward", &back, &backward, &round(&backward))?;
            let mut again = x;
            rope_fwd(&mut again, &documents, &table)?;
            context.compare_bits("forward", &rotated, &again)?;
        }
    }
    Ok(())
}
