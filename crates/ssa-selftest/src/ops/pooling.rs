//! Block means and their gradient.

use ssa_kernels::ops::attention::pooling::{
    mean_pool_bwd, mean_pool_f32_fwd, mean_pool_fwd, reference,
};
use ssa_kernels::{Documents, Tensor};

use crate::{Context, Result, round, twice};

/// Tokens, heads, head size, block size, longest document.
const SHAPES: [[usize; 5]; 8] = [
    [1, 1, 16, 16, 1],
    [63, 2, 64, 16, 63],
    [100, 2, 64, 1, 20],
    [1000, 2, 64, 16, 1000],
    [1000, 3, 80, 7, 90],
    [1000, 1, 128, 300, 1000],
    // Rows that are no whole vectors.
    [90, 3, 20, 8, 90],
    [100, 1, 255, 16, 40],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [tokens, heads, head_dim, block_size, longest] in SHAPES {
        context.case(format!(
            "T {tokens} H {heads} D {head_dim} blocks of {block_size}, documents to {longest}"
        ));
        let documents = Documents::from_cu_seqlens(context.random().cu_seqlens(tokens, longest))?;
        let (width, shape) = (heads * head_dim, [1, tokens, heads, head_dim]);
        let (x, exact_x) = context.normal(&shape, 1.0)?;
        let exact = reference::forward(&exact_x, &documents, block_size, width)?;
        let pooled = mean_pool_fwd(&x, &documents, block_size)?;
        context.compare("pooled", &pooled, &exact, &round(&exact))?;
        context.compare_bits("pooled", &pooled, &mean_pool_fwd(&x, &documents, block_size)?)?;

        // Sums in f32 of up to block_size values of order one.
        let means = mean_pool_f32_fwd(&x, &documents, block_size)?.to_vec()?;
        context.compare_within("pooled in f32", &means, &exact, 1e-6);

        let (dpooled, exact_dpooled) =
            context.normal(&[documents.blocks(block_size), heads, head_dim], 1.0)?;
        let backward = || -> Result<Tensor> {
            let mut dx = Tensor::zeros_like(&x)?;
            for _ in 0..2 {
                mean_pool_bwd(&dpooled, &documents, block_size, &mut dx)?;
            }
            Ok(dx)
        };
        let exact = reference::backward(&exact_dpooled, &documents, block_size, width)?;
        let dx = backward()?;
        context.compare("dx", &dx, &twice(&exact), &twice(&round(&exact)))?;
        context.compare_bits("dx", &dx, &backward()?)?;
    }
    Ok(())
}
