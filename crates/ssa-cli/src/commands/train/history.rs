//! The steps of a run, for its report.

use ssa_eval::report::StepPoint;
use ssa_model::{AttentionMode, Method};
use ssa_train::{LoggedStep, StepMetrics, TrainPlan};

/// The steps of a run, including earlier sessions.
pub(super) struct StepHistory {
    method: Method,
    points: Vec<StepPoint>,
    /// Tokens and seconds of each step.
    costs: Vec<(usize, f64)>,
}

impl StepHistory {
    /// The steps of earlier sessions.
    pub(super) fn new(plan: &TrainPlan, past: &[LoggedStep]) -> Self {
        let method = plan.config().objective.method;
        let mut history = Self { method, points: Vec::new(), costs: Vec::new() };
        past.iter().for_each(|step| history.add(&step.metrics));
        history
    }

    /// The losses of each step.
    pub(super) fn points(&self) -> &[StepPoint] {
        &self.points
    }

    /// Tokens and seconds of all steps.
    pub(super) fn cost(&self) -> (u64, f64) {
        let tokens = self.costs.iter().map(|(tokens, _)| *tokens as u64).sum();
        (tokens, self.costs.iter().map(|(_, seconds)| seconds).sum())
    }

    pub(super) fn add(&mut self, metrics: &StepMetrics) {
        self.points.push(step_point(metrics, self.method));
        self.costs.push((metrics.tokens, metrics.seconds));
    }

    /// Drops the steps after `step`, to which the run rolled back.
    pub(super) fn go_back(&mut self, step: usize) {
        let kept = self.points.partition_point(|point| point.step <= step as u64);
        self.points.truncate(kept);
        self.costs.truncate(kept);
    }
}

fn step_point(metrics: &StepMetrics, method: Method) -> StepPoint {
    let stream = match metrics.full_stream_fraction {
        1.0 => Some(AttentionMode::Full),
        0.0 => Some(AttentionMode::Sparse),
        _ => None,
    };
    StepPoint {
        step: metrics.step as u64,
        stream,
        cross_entropy: metrics.cross_entropy,
        alignment_loss: method.is_aligned().then_some(metrics.alignment),
    }
}
