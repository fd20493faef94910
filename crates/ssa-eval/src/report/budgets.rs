//! Bits per byte against what sparse attention may look at.

use super::chart::{Chart, Mark};
use super::scale::{Axis, Spacing};
use crate::Perplexity;
use ssa_model::SparseBudget;

/// Colours for the lines of up to three block sizes; more share the last.
const CLASSES: [&str; 3] = ["sparse", "alignment", "mixed"];

/// One line per block size, full attention as a level. None without a sparse result.
pub(super) fn budget_chart(
    evaluation: &Perplexity,
    trained: Option<SparseBudget>,
) -> Option<String> {
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
    let x = Axis::spanning(
        "receptive field: tokens a query attends to, at most",
        Spacing::Log2,
        fields,
    );
    let y = Axis::spanning(
        "bits per byte",
        Spacing::Linear,
        points.iter().map(|point| point.1).chain(full),
    );
    let mut chart = Chart::new(
        "Bits per byte by sparse budget",
        match trained {
            Some(_) => "Lower is better. The ring marks the budget the model was trained at.",
            None => "Lower is better. The model was trained without sparse attention.",
        },
        x,
        y,
    );
    if let Some(full) = full {
        chart.level("full", full, &format!("full attention {full:.4}"));
    }
    let mut sizes: Vec<usize> = points.iter().map(|(budget, _)| budget.block_size()).collect();
    // The trained block size comes first and alone has labels: those of several lines would
    // collide.
    sizes.sort_unstable_by_key(|&size| (Some(size) != trained.map(SparseBudget::block_size), size));
    sizes.dedup();
    for (index, &size) in sizes.iter().enumerate() {
        let class = CLASSES[index.min(CLASSES.len() - 1)];
        let mut line: Vec<_> =
            points.iter().filter(|(budget, _)| budget.block_size() == size).collect();
        line.sort_by_key(|(budget, _)| budget.block_counts());
        let path: Vec<_> =
            line.iter().map(|(budget, bits)| (budget.receptive_field() as f64, *bits)).collect();
        chart.line(class, &path);
        let marks: Vec<_> =
            line.iter().map(|(budget, bits)| mark(*budget, *bits, trained, index == 0)).collect();
        chart.marks(class, &marks);
        chart.legend(class, format!("sparse, blocks of {size}"));
    }
    Some(chart.finish())
}

fn mark(budget: SparseBudget, bits: f64, trained: Option<SparseBudget>, labelled: bool) -> Mark {
    let emphasis = Some(budget) == trained;
    let note = if emphasis { ", the trained budget" } else { "" };
    Mark {
        x: budget.receptive_field() as f64,
        y: bits,
        tooltip: format!("{budget}: {bits:.4} bits per byte{note}"),
        label: labelled.then(|| format!("{bits:.3}")),
        emphasis,
    }
}
