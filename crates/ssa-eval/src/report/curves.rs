//! The losses of a run, step by step.

use ssa_model::AttentionMode;

use super::chart::Chart;
use super::scale::{Axis, Spacing};

/// The losses of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPoint {
    /// Number of the step, from 1.
    pub step: u64,
    /// The stream the step ran; none if layers or micro-batches differed.
    pub stream: Option<AttentionMode>,
    /// Mean cross-entropy in nats per target token.
    pub cross_entropy: f64,
    /// Mean alignment loss, before its weight; none for methods without one.
    pub alignment_loss: Option<f64>,
}

/// More dots than this only make the file larger.
const MAX_DOTS: usize = 1500;

/// Cross-entropy by step, one smooth line per stream. None without steps.
pub(super) fn cross_entropy_chart(steps: &[StepPoint]) -> Option<String> {
    let last = steps.last()?.step as f64;
    let values = steps.iter().map(|point| point.cross_entropy);
    let y = Axis::spanning("cross-entropy, nats per token", Spacing::Linear, values);
    let mut chart = Chart::new(
        "Cross-entropy of the training batches by step",
        "Dots are single steps; lines are means over neighbouring steps of the same stream.",
        Axis::tight("optimiser step", 0.0, last),
        y,
    );
    let streams = [
        (Some(AttentionMode::Full), "full"),
        (Some(AttentionMode::Sparse), "sparse"),
        (None, "mixed"),
    ];
    let mut lines = vec![];
    for (stream, name) in streams {
        let points: Vec<_> = steps
            .iter()
            .filter(|point| point.stream == stream)
            .map(|point| (point.step as f64, point.cross_entropy))
            .collect();
        if points.is_empty() {
            continue;
        }
        chart.dots(name, &thinned(&points));
        chart.legend(name, format!("{name} stream"));
        lines.push((name, smoothed(&points)));
    }
    for (name, line) in lines {
        chart.line(name, &line);
    }
    Some(chart.finish())
}

/// Alignment loss by step on a logarithmic axis. None if the method has none.
pub(super) fn alignment_chart(steps: &[StepPoint]) -> Option<String> {
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
        "Distance between the outputs of full and sparse attention; both axes start at the first step.",
        Axis::tight("optimiser step", 0.0, last),
        y,
    );
    chart.dots("alignment", &thinned(&points));
    chart.line("alignment", &smoothed(&points));
    chart.legend("alignment", "full vs sparse outputs");
    Some(chart.finish())
}

/// Means over a window around each point: a fortieth of the points to either side. Towards the
/// start, where losses fall steeply, the window shrinks and stays centred; at the end, where they
/// are flat, it is cut off, since a mean of few points would show noise.
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
    fn charts_exist_only_where_there_is_something_to_show() {
        let point = StepPoint { step: 1, stream: None, cross_entropy: 5.0, alignment_loss: None };
        assert!(cross_entropy_chart(&[]).is_none());
        assert!(cross_entropy_chart(&[point]).unwrap().contains("mixed stream"));
        assert!(alignment_chart(&[point]).is_none());
    }
}
