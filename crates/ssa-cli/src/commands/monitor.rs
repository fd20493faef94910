//! What `ssa train` measures on held-out text between two steps. Training must not know evaluation,
//! so the two meet here.

use anyhow::Result;
use ssa_eval::{AttentionMeans, BudgetResult, EvalBatch, HiddenStates, PerplexityOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{Model, SparseBudget};
use ssa_train::{
    Best, LoggedStep, Measurements, ModeLoss, Probe, ProbedAttention, ProbedStates, RunDir,
    TrainPlan, Validation,
};

/// Probes attention, validates and keeps the best weights, each when it is its turn.
pub(super) struct Monitor<'a> {
    plan: &'a TrainPlan,
    run_dir: &'a RunDir,
    budget: SparseBudget,
    rule: SelectionRule,
    probed: &'a [EvalBatch],
    validated: &'a [EvalBatch],
    /// What was the best so far each time, the latest last. The directory alone does not tell after
    /// a run went back.
    best: Vec<Best>,
}

impl<'a> Monitor<'a> {
    /// A monitor on the first batches of the held-out text, of a run with these steps behind it.
    pub(super) fn new(
        plan: &'a TrainPlan,
        run_dir: &'a RunDir,
        held_out: &'a [EvalBatch],
        history: &[LoggedStep],
    ) -> Result<Self> {
        // Ends what a program began that was killed while it kept the best weights.
        run_dir.best()?;
        let best = |logged: &LoggedStep| {
            let validation =
                logged.measured.validation.clone().filter(|validation| validation.best)?;
            Some(Best { step: logged.metrics.step, by: plan.best_by(), validation })
        };
        let settings = &plan.config().monitoring;
        Ok(Self {
            plan,
            run_dir,
            budget: plan.model().budget,
            rule: plan.objective().attention.selection.rule,
            probed: EvalBatch::covering(held_out, settings.probe_tokens),
            validated: EvalBatch::covering(held_out, settings.validation_tokens),
            best: history.iter().filter_map(best).collect(),
        })
    }

    /// Forgets what was measured after a step that the run went back to.
    pub(super) fn go_back(&mut self, step: usize) {
        self.best.retain(|best| best.step <= step);
    }

    /// Measures what is due after a step, counted from 1.
    pub(super) fn after(&mut self, model: &Model, step: usize) -> Result<Measurements> {
        let settings = &self.plan.config().monitoring;
        let (probe_every, validate_every) = (settings.probe_every, settings.validate_every);
        let due =
            |every: usize| every > 0 && (step.is_multiple_of(every) || step == self.plan.steps());
        let probe =
            if due(probe_every) { Some(self.probe(model, step, probe_every)?) } else { None };
        let validation = if due(validate_every) { Some(self.validate(model, step)?) } else { None };
        Ok(Measurements { probe, validation })
    }

    fn probe(&self, model: &Model, step: usize, every: usize) -> Result<Probe> {
        let analysis = ssa_eval::analyze(model, self.probed, self.budget, self.rule, &mut |_| {})?;
        let before = (step - 1) / every * every;
        Ok(Probe {
            tokens: analysis.tokens,
            full_streams: self.plan.full_stream_share(before..step),
            kl_full_sparse: analysis.kl_full_sparse,
            hidden_states: analysis.hidden_states.iter().map(probed_states).collect(),
        })
    }

    fn validate(&mut self, model: &Model, step: usize) -> Result<Validation> {
        let options =
            PerplexityOptions { budgets: vec![self.budget], rule: self.rule, sparsity_batches: 0 };
        let found = ssa_eval::perplexity(model, self.validated, &options, &mut |_| {})?;
        // The one budget makes the last row.
        let sparse = found.results.last().ok_or(ssa_eval::EvalError::NoTargets)?;
        let validation = Validation {
            targets: found.targets,
            full: found.full().map(mode_loss),
            sparse: mode_loss(sparse),
            kl_full_sparse: sparse.kl_full_sparse,
            best: true,
        };
        let candidate = Best { step, by: self.plan.best_by(), validation };
        if self.best.last().is_some_and(|best| best.bits_per_byte() <= candidate.bits_per_byte()) {
            return Ok(Validation { best: false, ..candidate.validation });
        }
        self.run_dir.save_best(model, self.plan.tokenizer(), &candidate)?;
        let validation = candidate.validation.clone();
        self.best.push(candidate);
        Ok(validation)
    }
}

fn probed_states(states: &HiddenStates) -> ProbedStates {
    ProbedStates {
        mode: states.mode,
        overall: probed_attention(&states.overall),
        layers: states.layers.iter().map(probed_attention).collect(),
    }
}

fn probed_attention(means: &AttentionMeans) -> ProbedAttention {
    ProbedAttention {
        attention_sparsity: means.attention_sparsity,
        entropy_bits: means.entropy_bits,
        distance: means.distance,
    }
}

fn mode_loss(result: &BudgetResult) -> ModeLoss {
    ModeLoss { nats_per_token: result.nats_per_token, bits_per_byte: result.bits_per_byte }
}
