//! The charts of the losses of a run by step.

use ssa_model::AttentionMode;
use ssa_report::{Axis, Chart, Color, Spacing};

use super::mode_color;

/// The losses of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPoint {
    /// Number of the step, from 1.
    pub step: u64,
    /// The stream of the step; `None` if it differs between layers or micro-batches.
    pub stream: Option<AttentionMode>,
    /// Mean cross-entropy in nats per target token.
    pub cross_entropy: f64,
    /// Mean alignment loss, before its weight; `None` for methods without one.
    pub alignment_loss: Option<f64>,
}

/// Maximum number of dots; more only make the page larger.
const MAX_DOTS: usize = 1500;

/// Cross-entropy by step, one smooth line per stream. `None` without steps.
pub(super) fn cross_entropy_chart(steps: &[StepPoint]) -> Option<Chart> {
    let last = steps.last()?.step as f64;
    let values = steps.iter().map(|point| point.cross_entropy);
    let y = Axis::spanning("cross-entropy, nats per token", Spacing::Linear, values);
    let mut chart = Chart::new(
        "Cross-entropy of the training batches by step",
        "Dots are single steps; lines are means over neighboring steps of the same stream.",
        Axis::tight("optimizer step", 0.0, last),
        y,
    );
    let streams = [
        (Some(AttentionMode::Full), "full stream", mode_color(AttentionMode::Full)),
        (Some(AttentionMode::Sparse), "sparse stream", mode_color(AttentionMode::Sparse)),
        (None, "mixed stream", Color::Violet),
    ];
    let mut lines = vec![];
    for (stream, name, color) in streams {
        let points: Vec<_> = steps
            .iter()
            .filter(|point| point.stream == stream)
            .map(|point| (point.step as f64, point.cross_entropy))
            .collect();
        if points.is_empty() {
            continue;
        }
        chart.dots(color, &thinned(&points));
        chart.legend(color, name);
        lines.push((color, smoothed(&points)));
    }
    // Lines are drawn over dots.
    for (color, line) in lines {
        chart.line(color, &line);
    }
    Some(chart)
}

/// Alignment loss by step on a logarithmic axis. `None` if the method has none.
pub(super) fn alignment_chart(steps: &[StepPoint]) -> Option<Chart> {
    let points: Vec<_> = steps
        .iter()
        .filter_map(|point| Some((point.step as f64, point.alignment_loss?)))
        .filter(|(_, loss)| *loss > 0.0)
        .collect();
    let last = steps.last()?.step as f64;
    if points.is_empty() {
        return None;
    }
    let y = Axis::spanning(
        "alignment loss, before its weight",
        Spacing::Log10,
        points.iter().map(|p| p.1),
    );
    let mut chart = Chart::new(
        "Alignment loss by step",
        "Distance between the outputs of full and sparse attention.",
        Axis::tight("optimizer step", 0.0, last),
        y,
    );
    chart.dots(Color::Teal, &thinned(&points));
    chart.line(Color::Teal, &smoothed(&points));
    chart.legend(Color::Teal, "full vs. sparse outputs");
    Some(chart)
}

/// Means over a window around each point: a fortieth of the points to either side. Near the start,
/// where losses fall steeply, the window shrinks and stays centered. At the end, where they are
/// flat, it is truncated, because a mean of few points would be noisy.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let mut sums = vec![0.0];
    sums.extend(points.iter().scan(0.0, |sum, point| {
        *sum += point.1;
        Some(*sum)
    }));
    let line = points.iter().enumerate().map(|(index, point)| {
        let reach = reach.min(index);
        let (from, to) = (index - reach, points.len().min(index + reach + 1));
        (point.0, (sums[to] - sums[from]) / (to - from) as f64)
    });
    thinned(&line.collect::<Vec<_>>())
}

/// Evenly spaced points, at most [`MAX_DOTS`], the last one included.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(MAX_DOTS).max(1);
    let skip = points.len().saturating_sub(1) % stride;
    points.iter().skip(skip).step_by(stride).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_constants_and_ends() {
        let constant: Vec<_> = (0..200).map(|x| (f64::from(x), 2.5)).collect();
        assert!(smoothed(&constant).iter().all(|point| (point.1 - 2.5).abs() < 1e-9));
        let line: Vec<_> = (0..200).map(|x| (f64::from(x), f64::from(x))).collect();
        assert!(smoothed(&line)[..195].iter().all(|point| (point.1 - point.0).abs() < 1e-9));
    }

    #[test]
    fn thinning_keeps_the_last_point() {
        let points: Vec<_> = (0..10_001).map(|x| (f64::from(x), 0.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_DOTS);
        assert_eq!(thin.last(), points.last());
        assert!(thinned(&[]).is_empty());
    }

    #[test]
    fn charts_exist_only_with_data() {
        let point = StepPoint { step: 1, stream: None, cross_entropy: 5.0, alignment_loss: None };
        assert!(cross_entropy_chart(&[]).is_none());
        assert!(format!("{:?}", cross_entropy_chart(&[point]).unwrap()).contains("mixed stream"));
        assert!(alignment_chart(&[point]).is_none());
    }
}
