//! The chart of attention sparsity by layer.

use ssa_model::AttentionMode;
use ssa_report::{Axis, Chart, Mark, Spacing};

use super::mode_color;
use crate::{Analysis, ModeAttention};

/// One line per inference mode that produced the hidden states.
pub(super) fn sparsity_chart(analysis: &Analysis) -> Chart {
    let states = &analysis.hidden_states;
    let layers = states.iter().map(|states| states.layers.len()).max().unwrap_or(0);
    let values =
        states.iter().flat_map(|states| &states.layers).map(|means| means.attention_sparsity);
    let mut chart = Chart::new(
        "Attention sparsity by layer",
        "The fraction of the full-attention weight on the selected blocks; at 1 nothing is lost.",
        Axis::counting("layer", layers),
        Axis::spanning("attention sparsity", Spacing::Linear, values),
    );
    for states in states {
        let color = mode_color(states.mode);
        let points: Vec<_> = points(states).collect();
        chart.line(color, &points);
        chart.marks(color, points.iter().map(|&point| mark(states.mode, point)).collect());
        chart.legend(color, format!("with {} inference", states.mode));
    }
    chart
}

fn points(states: &ModeAttention) -> impl Iterator<Item = (f64, f64)> {
    states.layers.iter().enumerate().map(|(layer, means)| (layer as f64, means.attention_sparsity))
}

fn mark(mode: AttentionMode, (layer, sparsity): (f64, f64)) -> Mark {
    let tooltip = format!("layer {layer}, {mode} inference: {sparsity:.4}");
    Mark { x: layer, y: sparsity, tooltip, label: None, emphasis: false }
}
