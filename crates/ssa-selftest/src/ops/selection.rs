//! Block selection by both rules.
//!
//! Importances of two blocks can differ by less than any arithmetic resolves, so a selection need
//! not be the one that the reference makes. What must hold: every block selected is exactly as
//! important as the least of the best ones, up to a relative 1e-4, some ten times the error of sums
//! in `f32`. Where importances are equal or far apart, the selection is determined and must be that
//! of the reference.

use ssa_kernels::ops::attention::pooling;
use ssa_kernels::ops::attention::selection::reference::{self, SelectionInputs};
use ssa_kernels::ops::attention::selection::{
    HostBlockIndices, SelectionOptions, SelectionRule, SparseBudget, select_blocks, select_by_means,
};
use ssa_kernels::{Documents, Tensor};

use crate::{Context, Result};

/// How much less important, relatively, a selected block may be than the least of the best.
const TOLERANCE: f64 = 1e-4;

/// Tokens, query heads, key/value heads, head size, block size, block counts, longest document.
const SHAPES: [[usize; 7]; 22] = [
    [1, 16, 1, 64, 16, 4, 1],
    [63, 3, 1, 16, 4, 2, 63],
    [100, 1, 1, 64, 2, 7, 100],
    [600, 32, 2, 64, 16, 16, 600],
    [600, 32, 2, 64, 16, 5, 90],
    [700, 16, 1, 128, 64, 3, 700],
    [300, 24, 1, 80, 24, 3, 300],
    [300, 4, 2, 256, 32, 3, 200],
    [500, 16, 1, 64, 16, 100, 500],
    [400, 8, 2, 64, 1, 40, 200],
    // More blocks than one pass holds, in one document and in several.
    [700, 8, 1, 64, 1, 9, 700],
    [1400, 4, 2, 16, 2, 17, 1200],
    // Just what shared memory holds without being asked for more.
    [1000, 16, 1, 64, 1, 9, 1000],
    // Heads that are no whole steps of a product.
    [150, 6, 2, 20, 8, 3, 100],
    [130, 16, 1, 100, 4, 4, 130],
    // More than shared memory holds importances for.
    [6200, 1, 1, 16, 1, 5, 6200],
    // Many blocks and 8, 16 or 32 query heads on a key/value head, which warpgroups score.
    [1100, 32, 2, 64, 1, 16, 1100],
    [1500, 16, 2, 64, 2, 33, 900],
    [1300, 32, 1, 128, 4, 9, 1300],
    [700, 8, 1, 128, 1, 2, 700],
    [1500, 32, 2, 64, 3, 5, 700],
    // As many blocks, other heads.
    [1000, 12, 1, 64, 1, 9, 1000],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for shape in SHAPES {
        random(context, shape)?;
    }
    for rule in [SelectionRule::Exact, SelectionRule::Reference] {
        // Few levels make many ties, which go to the lower block; many make almost none.
        for levels in [1, 3, 40] {
            for [tokens, block_size, block_counts] in
                [[300, 4, 3], [300, 4, 4], [900, 16, 5], [900, 16, 12], [90, 2, 1], [1300, 2, 2]]
            {
                let budget = SparseBudget::new(block_size, block_counts)?;
                let options = SelectionOptions { budget, rule };
                determined(context, tokens, levels, &options, &FEW_HEADS)?;
            }
        }
    }
    // Scores whose exponentials exceed the range of f32, and many blocks.
    for offset in [0.0, 128.0, -128.0] {
        let options = SparseBudget::new(2, 16)?.selection(SelectionRule::Exact);
        let heads = Heads { count: 16, head_dim: 64, offset };
        for levels in [1, 3] {
            determined(context, 1300, levels, &options, &heads)?;
        }
    }
    Ok(())
}

fn random(context: &mut Context<'_>, shape: [usize; 7]) -> Result<()> {
    let [tokens, q_heads, kv_heads, head_dim, block_size, block_counts, longest] = shape;
    context.case(format!(
        "T {tokens} HQ {q_heads} H {kv_heads} D {head_dim} {block_size}x{block_counts}, \
         documents to {longest}"
    ));
    let documents = match longest {
        longest if longest == tokens => Documents::rows(1, tokens)?,
        longest => Documents::from_cu_seqlens(context.random().cu_seqlens(tokens, longest))?,
    };
    let (q, exact_q) = context.normal(&[1, tokens, q_heads, head_dim], 1.0)?;
    let (k, exact_k) = context.normal(&[1, tokens, kv_heads, head_dim], 1.0)?;
    let softmax_scale = (head_dim as f32).powf(-0.5);
    let exact_means =
        pooling::reference::forward(&exact_k, &documents, block_size, kv_heads * head_dim)?;
    let inputs = SelectionInputs {
        q: &exact_q,
        k_pooled: &exact_means,
        q_heads,
        kv_heads,
        head_dim,
        softmax_scale: f64::from(softmax_scale),
    };
    let importance = reference::importance(&inputs, &documents, block_size)?;
    let options = SparseBudget::new(block_size, block_counts)?.selection(SelectionRule::Exact);
    let select = || select_by_means(&q, &k, &documents, &options, softmax_scale)?.to_host();
    let selection = select()?;
    context.check("same bits", usize::from(select()? != selection));

    let (mut malformed, mut worst) = (0, 0.0_f64);
    for (row, importance) in rows(&selection).zip(&importance) {
        let current = importance.len() as i32;
        let ascending = row.is_sorted_by(|a, b| a < b) && row.last() == Some(&current);
        if row.len() != block_counts.min(importance.len() + 1) || !ascending || row[0] < 0 {
            malformed += 1;
            continue;
        }
        let mut best = importance.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        if let Some(least) = row.len().checked_sub(2).map(|last| best[last]) {
            let selected = row[..row.len() - 1].iter().map(|&block| importance[block as usize]);
            worst = selected.fold(worst, |worst, selected| worst.max((least - selected) / least));
        }
    }
    context.check("rows that are no selection", malformed);
    context.outcome("least importance, relative", worst, TOLERANCE);
    Ok(())
}

/// The query heads of one key/value head, and what all their scores are raised by.
struct Heads {
    count: usize,
    head_dim: usize,
    offset: f32,
}

const FEW_HEADS: Heads = Heads { count: 2, head_dim: 16, offset: 0.0 };

/// Scores that are small multiples of 1/4 and an offset: equal or far apart.
fn determined(
    context: &mut Context<'_>,
    tokens: usize,
    levels: u32,
    options: &SelectionOptions,
    heads: &Heads,
) -> Result<()> {
    let &Heads { count, head_dim, offset } = heads;
    let SelectionOptions { budget, rule } = *options;
    let block_size = budget.block_size();
    context.case(format!("{rule} rule, {levels} levels from {offset}, T {tokens} {budget}"));
    let documents = Documents::rows(1, tokens)?;
    let unit = |value: f32| [vec![value], vec![0.0; head_dim - 1]].concat();
    let means: Vec<f32> = context
        .random()
        .below(levels, tokens.div_ceil(block_size))
        .into_iter()
        .flat_map(|level| unit(offset + level as f32 * 0.25))
        .collect();
    // Only two heads tell blocks apart: the sum of two equal numbers is exact, so equal blocks stay
    // equal in any order of operations. The others weigh all blocks alike.
    let q: Vec<f32> = (0..count).flat_map(|head| unit(if head < 2 { 1.0 } else { 0.0 })).collect();
    let (q, exact_q) = context.tensor(q.repeat(tokens), &[1, tokens, count, head_dim])?;
    let exact_means: Vec<f64> = means.iter().map(|&mean| f64::from(mean)).collect();
    let k_pooled: Tensor =
        context.f32_tensor(means, &[tokens.div_ceil(block_size), 1, head_dim])?;
    let inputs = SelectionInputs {
        q: &exact_q,
        k_pooled: &exact_means,
        q_heads: count,
        kv_heads: 1,
        head_dim,
        softmax_scale: 1.0,
    };
    let importance = reference::importance(&inputs, &documents, block_size)?;
    let selection = select_blocks(&q, &k_pooled, &documents, options, 1.0)?;
    let selection = selection.to_host()?;
    let wrong = rows(&selection)
        .zip(&importance)
        .filter(|(row, importance)| *row != reference::select(importance, options));
    context.check("rows that differ", wrong.count());
    Ok(())
}

/// The selected blocks of every token and key/value head.
fn rows(selection: &HostBlockIndices) -> impl Iterator<Item = &[i32]> {
    let heads = selection.kv_heads();
    (0..selection.documents().total_tokens() * heads)
        .map(move |row| selection.selected(row / heads, row % heads))
}
