//! The steps of a run.

use anyhow::Result;
use ssa_eval::report::StepPoint;
use ssa_model::{AttentionMode, Method};
use ssa_train::{Event, LoggedStep, Session, StepMetrics, TrainError, TrainPlan, Trainer};

use crate::commands::monitor::Monitor;
use crate::display::TrainProgress;
use crate::exit::Interrupted;
use crate::signals::Signals;

/// What is kept of the steps of a run for its report.
pub(super) struct Training {
    method: Method,
    points: Vec<StepPoint>,
    /// Tokens and seconds of each step.
    costs: Vec<(usize, f64)>,
}

impl Training {
    /// The steps that were done before.
    pub(super) fn new(plan: &TrainPlan, history: &[LoggedStep]) -> Self {
        let mut training =
            Self { method: plan.config().objective.method, points: Vec::new(), costs: Vec::new() };
        history.iter().for_each(|step| training.add(&step.metrics));
        training
    }

    pub(super) fn steps(&self) -> &[StepPoint] {
        &self.points
    }

    /// Tokens and seconds of all steps.
    pub(super) fn cost(&self) -> (u64, f64) {
        let tokens = self.costs.iter().map(|(tokens, _)| *tokens as u64).sum();
        (tokens, self.costs.iter().map(|(_, seconds)| seconds).sum())
    }

    fn add(&mut self, metrics: &StepMetrics) {
        self.points.push(step_point(metrics, self.method));
        self.costs.push((metrics.tokens, metrics.seconds));
    }

    /// Forgets the steps after one that the run went back to.
    fn go_back(&mut self, step: usize) {
        let kept = self.points.partition_point(|point| point.step <= step as u64);
        self.points.truncate(kept);
        self.costs.truncate(kept);
    }
}

/// Runs the steps that are left and saves the model, also that of a run that diverged: its weights
/// are the last good ones. A signal ends it; the step at hand is given up.
pub(super) fn run_steps(
    mut session: Session<'_>,
    mut monitor: Monitor<'_>,
    training: &mut Training,
    signals: &Signals,
    mut progress: TrainProgress,
) -> Result<Trainer> {
    while let Some(event) = if signals.requested() { None } else { session.next() } {
        let result = match event {
            Ok(event) => take(event, &mut session, &mut monitor, training, &mut progress),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            progress.finish();
            if matches!(error.downcast_ref(), Some(TrainError::Diverged(_))) {
                session.save_model()?;
            }
            return Err(error);
        }
    }
    progress.finish();
    let trainer = session.trainer();
    if signals.requested() && trainer.done() < trainer.plan().steps() {
        let interrupted = Interrupted::after(trainer.done(), trainer.plan(), session.run_dir());
        session.interrupt()?;
        return Err(interrupted.into());
    }
    Ok(session.finish()?)
}

fn take(
    event: Event,
    session: &mut Session<'_>,
    monitor: &mut Monitor<'_>,
    training: &mut Training,
    progress: &mut TrainProgress,
) -> Result<()> {
    match event {
        Event::Step(metrics) => {
            let measured = monitor.after(session.trainer().model(), metrics.step)?;
            session.keep(measured.clone())?;
            progress.step(&metrics, &measured);
            training.add(&metrics);
        }
        Event::Skipped(bad) => progress.note(&format!("{bad}; skipped")),
        Event::RolledBack { bad, to } => {
            progress.note(&format!("{bad}; going back to the checkpoint of step {to}"));
            monitor.go_back(to);
            training.go_back(to);
        }
    }
    Ok(())
}

fn step_point(metrics: &StepMetrics, method: Method) -> StepPoint {
    let stream = match metrics.full_streams {
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
