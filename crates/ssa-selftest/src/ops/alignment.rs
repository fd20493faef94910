//! The alignment loss: every kind and direction, with tokens that do not count. A GPU computes it
//! in one pass with the gate, which `gated_pair` checks.

use ssa_kernels::ops::attention::alignment::{
    AlignmentDirection, AlignmentKind, AlignmentOptions, alignment_bwd, alignment_fwd, reference,
};
use ssa_kernels::{Device, Tensor};

use crate::{Context, Result, added_twice, twice};

/// Tokens, heads and head dimension; the last has more tokens than partial sums.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [63, 3, 20], [100, 16, 64], [2500, 2, 8]];

pub(super) fn every_option() -> impl Iterator<Item = AlignmentOptions> {
    let directions = [
        AlignmentDirection::Both,
        AlignmentDirection::FullToSparse,
        AlignmentDirection::SparseToFull,
    ];
    [AlignmentKind::SmoothL1, AlignmentKind::Mse]
        .into_iter()
        .flat_map(move |kind| directions.map(|direction| AlignmentOptions { kind, direction }))
}

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    if *context.device() != Device::Cpu {
        return Ok(());
    }
    for [tokens, heads, head_dim] in SHAPES {
        let shape = [1, tokens, heads, head_dim];
        let (full, full_exact) = context.normal(&shape, 1.0)?;
        let (sparse, sparse_exact) = context.normal(&shape, 1.0)?;
        for valid in [None, Some((0..tokens).map(|token| token % 3 != 1).collect::<Vec<_>>())] {
            let everywhere = valid.clone().unwrap_or(vec![true; tokens]);
            for options in every_option() {
                let masked = if valid.is_some() { ", some tokens" } else { "" };
                let AlignmentOptions { kind, direction } = options;
                context.case(format!(
                    "{kind:?} {direction:?}, {tokens} x {heads} x {head_dim}{masked}"
                ));
                let width = heads * head_dim;
                let valid = valid.as_deref();
                let sum = alignment_fwd(&full, &sparse, valid, &options)?.value()?;
                let exact =
                    reference::forward(&full_exact, &sparse_exact, &everywhere, width, &options)?;
                context.compare_number("sum", sum, exact, 1e-6);
                let again = alignment_fwd(&full, &sparse, valid, &options)?.value()?;
                context.check("sum, same bits", usize::from(sum.to_bits() != again.to_bits()));

                let [mut dfull, mut dsparse] =
                    [Tensor::zeros_like(&full)?, Tensor::zeros_like(&sparse)?];
                for _ in 0..2 {
                    alignment_bwd(&full, &sparse, valid, &options, 0.25, &mut dfull, &mut dsparse)?;
                }
                let exact = reference::backward(
                    &full_exact,
                    &sparse_exact,
                    &everywhere,
                    width,
                    &options,
                    0.25,
                )?;
                context.compare("dfull", &dfull, &twice(&exact.0), &added_twice(&exact.0))?;
                context.compare("dsparse", &dsparse, &twice(&exact.1), &added_twice(&exact.1))?;
            }
        }
    }
    Ok(())
}
