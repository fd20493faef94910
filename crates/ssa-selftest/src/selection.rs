//! Selections that a device makes within a model: which they are, and whether they are as good as
//! rounding lets them be.

use ssa_kernels::Documents;
use ssa_kernels::ops::attention::selection::reference::select;
use ssa_kernels::ops::attention::selection::{
    HostBlockIndices, SelectionOptions, SelectionRule, select_by_means,
};
use ssa_model::{AttentionOptions, DocumentMasking, Input, Model, ModelError};

use crate::Context;
use crate::plain::Importance;

/// The selection of every layer, from the queries and keys that the device computes there. A
/// training step computes the same ones, bit for bit: the
/// selection depends only on the stream that feeds the next layer.
pub(crate) fn of_device(
    model: &Model,
    input: &Input,
    options: &AttentionOptions,
) -> Result<Vec<HostBlockIndices>, ModelError> {
    let rows = Documents::rows(input.batch(), input.tokens())?;
    let documents = match options.document_masking {
        DocumentMasking::Both => input.documents(),
        DocumentMasking::FullOnly => &rows,
    };
    let mut selections = Vec::new();
    model.forward_observed(input, options, &mut |layer| {
        let (q, k, scale) = (layer.q, layer.k, layer.softmax_scale);
        selections.push(select_by_means(q, k, documents, &options.selection, scale)?.to_host()?);
        Ok(())
    })?;
    Ok(selections)
}

/// A block that is selected instead of a better one is as important, up to rounding: twice the
/// largest error of plain computations is allowed of the importance of either. Nothing to check
/// without sparse attention.
pub(crate) fn check(
    context: &mut Context<'_>,
    selections: &[HostBlockIndices],
    exact: &[Importance],
    plain: &[Vec<Importance>],
    options: &SelectionOptions,
) {
    if exact.iter().all(Vec::is_empty) {
        return;
    }
    let (mut worst, mut plain_error) = (0.0_f64, 0.0_f64);
    for (layer, (selection, exact)) in selections.iter().zip(exact).enumerate() {
        for (row, importance) in exact.iter().enumerate() {
            let best = select(importance, options);
            let (token, kv_head) = (row / selection.kv_heads(), row % selection.kv_heads());
            worst = worst.max(shortfall(
                importance,
                &best,
                selection.selected(token, kv_head),
                options,
            ));
            for &block in best.iter().filter(|&&block| (block as usize) < importance.len()) {
                for plain in plain {
                    let error =
                        plain[layer][row][block as usize] / importance[block as usize] - 1.0;
                    plain_error = plain_error.max(error.abs());
                }
            }
        }
    }
    context.outcome("importance that a selection lacks, relative", worst, 2.0 * 2.0 * plain_error);
}

/// How much less important, relatively, the least of the blocks in `selected` is than one that it
/// takes the place of; infinite if it takes nothing's place.
pub(crate) fn shortfall(
    importance: &[f64],
    best: &[i32],
    selected: &[i32],
    options: &SelectionOptions,
) -> f64 {
    if selected.len() != best.len() || selected.last() != best.last() {
        return f64::INFINITY;
    }
    // The released rule gives earlier blocks and those of the last chunk a share each.
    let share = |block: i32| match options.rule {
        SelectionRule::Exact => 0,
        SelectionRule::Reference => block as usize / options.budget.block_size(),
    };
    let only_in = |of: &[i32], other: &[i32]| -> Vec<i32> {
        of.iter().copied().filter(|block| !other.contains(block)).collect()
    };
    let (extra, missing) = (only_in(selected, best), only_in(best, selected));
    let lacks = |extra: i32| {
        let rivals = missing.iter().filter(|&&block| share(block) == share(extra));
        let rival = rivals.map(|&block| importance[block as usize]).fold(0.0, f64::max);
        if rival == 0.0 { f64::INFINITY } else { 1.0 - importance[extra as usize] / rival }
    };
    extra.into_iter().map(lacks).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use ssa_model::SparseBudget;

    use super::*;

    #[test]
    fn a_shortfall_is_what_the_worst_block_lacks() {
        let shortfall = |best: &[i32], selected: &[i32], rule| {
            let budget = SparseBudget::new(2, 3).unwrap();
            let options = SelectionOptions { budget, rule };
            shortfall(&[0.5, 1.0, 0.25, 0.75], best, selected, &options)
        };
        assert_eq!(shortfall(&[1, 3, 4], &[1, 3, 4], SelectionRule::Exact), 0.0);
        assert_eq!(shortfall(&[1, 3, 4], &[0, 3, 4], SelectionRule::Exact), 0.5);
        assert_eq!(shortfall(&[1, 3, 4], &[0, 2, 4], SelectionRule::Exact), 0.75);
        assert_eq!(shortfall(&[1, 3, 4], &[3, 4], SelectionRule::Exact), f64::INFINITY);
        assert_eq!(shortfall(&[1, 3, 4], &[1, 2, 4], SelectionRule::Reference), 1.0 - 0.25 / 0.75);
        assert_eq!(shortfall(&[1, 3, 4], &[0, 1, 4], SelectionRule::Reference), f64::INFINITY);
    }
}
