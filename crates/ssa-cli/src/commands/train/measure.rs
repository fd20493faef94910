//! What the ranks of a run measure together on held-out text. Rank 0 asks for it and has the
//! results; the others compute their share.

use anyhow::Result;
use ssa_eval::{Analysis, EvalBatch, Perplexity, PerplexityOptions};
use ssa_model::Model;
use ssa_ranks::Ranks;
use ssa_train::TrainPlan;

/// A measurement that rank 0 asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Request {
    /// Attention during training.
    Probe,
    /// Losses during training.
    Validation,
    /// Losses of the final model at every budget.
    Evaluation,
    /// Attention of the final model.
    Analysis,
}

impl Request {
    const ALL: [Self; 4] = [Self::Probe, Self::Validation, Self::Evaluation, Self::Analysis];
}

/// The measurements of a plan on its held-out text.
#[derive(Clone, Copy)]
pub(super) struct Measure<'a> {
    plan: &'a TrainPlan,
    held_out: &'a [EvalBatch],
}

impl<'a> Measure<'a> {
    pub(super) fn new(plan: &'a TrainPlan, held_out: &'a [EvalBatch]) -> Self {
        Self { plan, held_out }
    }

    /// The batches of a measurement.
    pub(super) fn batches(&self, request: Request) -> &'a [EvalBatch] {
        let config = self.plan.config();
        let tokens = match request {
            Request::Probe => config.monitoring.probe_tokens,
            Request::Validation => config.monitoring.validation_tokens,
            Request::Evaluation => return self.held_out,
            Request::Analysis => config.evaluation.analysis_tokens,
        };
        EvalBatch::covering(self.held_out, tokens)
    }

    /// Analyzes attention, for a probe or the final analysis.
    pub(super) fn analysis(
        &self,
        request: Request,
        (model, ranks): (&Model, &mut Ranks),
        progress: &mut dyn FnMut(usize),
    ) -> ssa_eval::Result<Analysis> {
        let rule = self.plan.objective().attention.selection.rule;
        let budget = self.plan.model().budget;
        ssa_eval::analyze(model, self.batches(request), budget, rule, ranks, progress)
    }

    /// Measures losses, for a validation or the final evaluation.
    pub(super) fn perplexity(
        &self,
        request: Request,
        (model, ranks): (&Model, &mut Ranks),
        progress: &mut dyn FnMut(usize),
    ) -> ssa_eval::Result<Perplexity> {
        let rule = self.plan.objective().attention.selection.rule;
        let options = match request {
            Request::Evaluation => PerplexityOptions {
                budgets: self.plan.budgets().to_vec(),
                rule,
                sparsity_batches: self.batches(Request::Analysis).len(),
            },
            _ => PerplexityOptions {
                budgets: vec![self.plan.model().budget],
                rule,
                sparsity_batches: 0,
            },
        };
        ssa_eval::perplexity(model, self.batches(request), &options, ranks, progress)
    }

    /// Computes the share of a rank other than 0 of what rank 0 asks for.
    pub(super) fn follow(&self, request: u8, subject: (&Model, &mut Ranks)) -> Result<()> {
        match Request::ALL.into_iter().find(|known| *known as u8 == request) {
            Some(request @ (Request::Probe | Request::Analysis)) => {
                self.analysis(request, subject, &mut |_| {})?;
            }
            Some(request) => drop(self.perplexity(request, subject, &mut |_| {})?),
            None => {}
        }
        Ok(())
    }
}
