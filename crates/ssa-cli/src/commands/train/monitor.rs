//! Measurements of `ssa train` on held-out text between two steps. The training crate does not
//! depend on the evaluation crate, so this module connects them.

use anyhow::{Context, Result};
use ssa_eval::{EvalBatch, EvalError, Monitored, PerplexityOptions, Probe, Validation};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{Model, SparseBudget};
use ssa_train::{Best, LoggedStep, Measurements, RunDir, TrainPlan};

/// Probes attention, validates and saves the best weights, each when due.
pub(super) struct Monitor<'a> {
    plan: &'a TrainPlan,
    run_dir: &'a RunDir,
    budget: SparseBudget,
    rule: SelectionRule,
    probed: &'a [EvalBatch],
    validated: &'a [EvalBatch],
    /// Step and bits per byte of every validation that was the best so far. After a rollback the
    /// run directory does not have them all.
    best: Vec<(usize, f64)>,
}

impl<'a> Monitor<'a> {
    /// Creates a monitor on the first batches of the held-out text, for a run with these past
    /// steps.
    pub(super) fn new(
        plan: &'a TrainPlan,
        run_dir: &'a RunDir,
        held_out: &'a [EvalBatch],
        past: &[LoggedStep],
    ) -> Result<Self> {
        // Completes an interrupted replacement of the best weights.
        run_dir.best()?;
        let settings = &plan.config().monitoring;
        let mut monitor = Self {
            plan,
            run_dir,
            budget: plan.model().budget,
            rule: plan.objective().attention.selection.rule,
            probed: EvalBatch::covering(held_out, settings.probe_tokens),
            validated: EvalBatch::covering(held_out, settings.validation_tokens),
            best: Vec::new(),
        };
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
    pub(super) fn measure(&mut self, model: &Model, step: usize) -> Result<Monitored> {
        let settings = &self.plan.config().monitoring;
        let (probe_every, validate_every) = (settings.probe_every, settings.validate_every);
        let due =
            |every: usize| every > 0 && (step.is_multiple_of(every) || step == self.plan.steps());
        let probe =
            if due(probe_every) { Some(self.probe(model, step, probe_every)?) } else { None };
        let validation = if due(validate_every) { Some(self.validate(model, step)?) } else { None };
        Ok(Monitored { probe, validation })
    }

    fn probe(&self, model: &Model, step: usize, every: usize) -> Result<Probe> {
        let analysis = ssa_eval::analyze(model, self.probed, self.budget, self.rule, &mut |_| {})?;
        let before = (step - 1) / every * every;
        Ok(Probe::new(&analysis, self.plan.full_stream_fraction(before..step)))
    }

    fn validate(&mut self, model: &Model, step: usize) -> Result<Validation> {
        let options =
            PerplexityOptions { budgets: vec![self.budget], rule: self.rule, sparsity_batches: 0 };
        let found = ssa_eval::perplexity(model, self.validated, &options, &mut |_| {})?;
        let mut validation = Validation::new(&found).ok_or(EvalError::NoTargets)?;
        let bits_per_byte = self.bits_per_byte(&validation);
        validation.best = self.best.last().is_none_or(|(_, best)| bits_per_byte < *best);
        if validation.best {
            let measured = Measurements::new(&validation)?;
            let best = Best { step, by: self.plan.best_by(), validation: measured };
            self.run_dir.save_best(model, self.plan.tokenizer(), &best)?;
            self.best.push((step, bits_per_byte));
        }
        Ok(validation)
    }

    /// The bits per byte that select the best weights: lower is better.
    fn bits_per_byte(&self, validation: &Validation) -> f64 {
        validation.under(self.plan.best_by()).map_or(f64::INFINITY, |loss| loss.bits_per_byte)
    }
}
