//! Measurements of `ssa train` on held-out text between two steps. The training crate does not
//! depend on the evaluation crate, so this module connects them.

use anyhow::{Context, Result};
use ssa_eval::{EvalError, Monitored, Probe, Validation};
use ssa_train::{Best, LoggedStep, Measurements, RunDir, Session, TrainPlan};

use super::measure::{Measure, Request};

/// Probes attention, validates and saves the best weights, each when due.
pub(super) struct Monitor<'a> {
    plan: &'a TrainPlan,
    run_dir: &'a RunDir,
    measure: Measure<'a>,
    /// Step and bits per byte of every validation that was the best so far. After a rollback the
    /// run directory does not have them all.
    best: Vec<(usize, f64)>,
}

impl<'a> Monitor<'a> {
    /// Creates a monitor for a run with these past steps.
    pub(super) fn new(
        plan: &'a TrainPlan,
        run_dir: &'a RunDir,
        measure: Measure<'a>,
        past: &[LoggedStep],
    ) -> Result<Self> {
        // Completes an interrupted replacement of the best weights.
        run_dir.best()?;
        let mut monitor = Self { plan, run_dir, measure, best: Vec::new() };
        for logged in past {
            let Monitored { validation, .. } = logged.measured.view().with_context(|| {
                format!("metrics.jsonl: the measurements of step {}", logged.metrics.step)
            })?;
            if let Some(best) = validation.filter(|validation| validation.best) {
                monitor.best.push((logged.metrics.step, monitor.bits_per_byte(&best)));
            }
        }
        Ok(monitor)
    }

    /// Drops the measurements after `step`, to which the run rolled back.
    pub(super) fn go_back(&mut self, step: usize) {
        self.best.retain(|(best, _)| *best <= step);
    }

    /// Runs the measurements due after a step, counted from 1.
    pub(super) fn measure(&mut self, session: &mut Session<'_>, step: usize) -> Result<Monitored> {
        let settings = &self.plan.config().monitoring;
        let (probe_every, validate_every) = (settings.probe_every, settings.validate_every);
        let due =
            |every: usize| every > 0 && (step.is_multiple_of(every) || step == self.plan.steps());
        let probe =
            if due(probe_every) { Some(self.probe(session, step, probe_every)?) } else { None };
        let validation =
            if due(validate_every) { Some(self.validate(session, step)?) } else { None };
        Ok(Monitored { probe, validation })
    }

    fn probe(&self, session: &mut Session<'_>, step: usize, every: usize) -> Result<Probe> {
        let subject = session.measure(Request::Probe as u8)?;
        let analysis = self.measure.analysis(Request::Probe, subject, &mut |_| {})?;
        let before = (step - 1) / every * every;
        Ok(Probe::new(&analysis, self.plan.full_stream_fraction(before..step)))
    }

    fn validate(&mut self, session: &mut Session<'_>, step: usize) -> Result<Validation> {
        let subject = session.measure(Request::Validation as u8)?;
        let found = self.measure.perplexity(Request::Validation, subject, &mut |_| {})?;
        let mut validation = Validation::new(&found).ok_or(EvalError::NoTargets)?;
        let bits_per_byte = self.bits_per_byte(&validation);
        validation.best = self.best.last().is_none_or(|(_, best)| bits_per_byte < *best);
        if validation.best {
            let measured = Measurements::new(&validation)?;
            let best = Best { step, by: self.plan.best_by(), validation: measured };
            self.run_dir.save_best(session.trainer().model(), self.plan.tokenizer(), &best)?;
            self.best.push((step, bits_per_byte));
        }
        Ok(validation)
    }

    /// The bits per byte that select the best weights: lower is better.
    fn bits_per_byte(&self, validation: &Validation) -> f64 {
        validation.under(self.plan.best_by()).map_or(f64::INFINITY, |loss| loss.bits_per_byte)
    }
}
