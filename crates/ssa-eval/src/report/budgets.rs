//! The chart of bits per byte by receptive field.

use ssa_model::{AttentionMode, SparseBudget};
use ssa_report::{Axis, Chart, Color, Mark, Spacing};

use super::mode_color;
use crate::Perplexity;

/// Line colors for up to three block sizes; more share the last one.
const COLORS: [Color; 3] = [Color::Orange, Color::Teal, Color::Violet];

/// One line per block size, full attention as a level. `None` without sparse results.
pub(super) fn budget_chart(
    evaluation: &Perplexity,
    trained: Option<SparseBudget>,
) -> Option<Chart> {
    let points: Vec<(SparseBudget, f64)> = evaluation
        .results
        .iter()
        .filter_map(|result| Some((result.budget?, result.bits_per_byte)))
        .collect();
    if points.is_empty() {
        return None;
    }
    let full = evaluation.full().map(|result| result.bits_per_byte);
    let fields = points.iter().map(|(budget, _)| budget.receptive_field() as f64);
    let x =
        Axis::spanning("receptive field: maximum tokens a query attends to", Spacing::Log2, fields);
    let y = Axis::spanning(
        "bits per byte",
        Spacing::Linear,
        points.iter().map(|point| point.1).chain(full),
    );
    let mut chart = Chart::new(
        "Bits per byte by sparse budget",
        "Lower is better. The ring marks the training budget.",
        x,
        y,
    );
    if let Some(full) = full {
        chart.level(mode_color(AttentionMode::Full), full, format!("full attention {full:.4}"));
    }
    let mut sizes: Vec<usize> = points.iter().map(|(budget, _)| budget.block_size()).collect();
    // Only the training block size, which comes first, has labels: labels of several lines would
    // collide.
    sizes.sort_unstable_by_key(|&size| (Some(size) != trained.map(SparseBudget::block_size), size));
    sizes.dedup();
    for (index, &size) in sizes.iter().enumerate() {
        let color = COLORS[index.min(COLORS.len() - 1)];
        let mut line: Vec<_> =
            points.iter().filter(|(budget, _)| budget.block_size() == size).collect();
        line.sort_by_key(|(budget, _)| budget.block_counts());
        let path: Vec<_> =
            line.iter().map(|(budget, bits)| (budget.receptive_field() as f64, *bits)).collect();
        chart.line(color, &path);
        let marks =
            line.iter().map(|(budget, bits)| mark(*budget, *bits, trained, index == 0)).collect();
        chart.marks(color, marks);
        chart.legend(color, format!("sparse, blocks of {size}"));
    }
    Some(chart)
}

fn mark(budget: SparseBudget, bits: f64, trained: Option<SparseBudget>, labeled: bool) -> Mark {
    let emphasis = Some(budget) == trained;
    let note = if emphasis { ", the training budget" } else { "" };
    Mark {
        x: budget.receptive_field() as f64,
        y: bits,
        tooltip: format!("{budget}: {bits:.4} bits per byte{note}"),
        label: labeled.then(|| format!("{bits:.3}")),
        emphasis,
    }
}
