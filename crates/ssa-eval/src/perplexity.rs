//! Perplexity, bits per byte and divergence with full attention and with sparse attention at any
//! budget.

use serde::{Deserialize, Serialize};
use ssa_infer::Budget;
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};
use ssa_model::{AttentionMode, AttentionOptions, Model, SparseBudget};
use ssa_ranks::Ranks;

use crate::batch::EvalBatch;
use crate::losses::{Quality, Score, add_scores, check_finite};
use crate::mass::{MassResult, MassRuns};
use crate::shared::{Sums, shared};
use crate::sparsity::{SparsitySum, forward_with_sparsity};
use crate::{EvalError, Result};

/// The results of one inference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetResult {
    /// Full or sparse attention.
    pub mode: AttentionMode,
    /// The sparse attention budget; `None` for full.
    pub budget: Option<SparseBudget>,
    /// Maximum number of tokens that a query attends to. `None` for full attention, and for methods
    /// whose sparse attention also reads a summary of every earlier block.
    pub receptive_field: Option<usize>,
    /// Mean negative log-likelihood of a target token.
    pub nats_per_token: f64,
    /// `exp(nats_per_token)`.
    pub perplexity: f64,
    /// Total negative log-likelihood in bits over the bytes of text it covers.
    pub bits_per_byte: f64,
    /// Mean over target tokens of `KL(p_full || p_sparse)` of the next-token distributions, in
    /// nats; `None` for full attention, and for models without it.
    pub kl_full_sparse: Option<f64>,
    /// Mean full-attention weight on the selected blocks, for the hidden states of this mode. For
    /// full attention the blocks are those of the training budget. `None` if not requested.
    pub attention_sparsity: Option<f64>,
}

/// The extent and results of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row.
    pub sequence_length: usize,
    /// Target tokens: every metric is a mean over these.
    pub targets: usize,
    /// Bytes of text that the targets cover: exact for byte tokens, estimated by the mean token
    /// size otherwise.
    pub bytes: usize,
    /// Full attention first (unless the method has none), then the budgets in the given order.
    pub results: Vec<BudgetResult>,
}

impl Perplexity {
    /// The results of full attention.
    pub fn full(&self) -> Option<&BudgetResult> {
        self.results.iter().find(|result| result.mode == AttentionMode::Full)
    }

    /// The results at a sparse budget.
    pub fn at(&self, budget: SparseBudget) -> Option<&BudgetResult> {
        self.results.iter().find(|result| result.budget == Some(budget))
    }
}

/// Options of an evaluation.
#[derive(Clone, Debug)]
pub struct PerplexityOptions {
    /// Sparse attention budgets, in the order of the results.
    pub budgets: Vec<SparseBudget>,
    /// Rule for block selection.
    pub rule: SelectionRule,
    /// Number of first batches on which to measure attention sparsity. It costs one full attention
    /// per layer and mode, and its mean converges much earlier than a loss.
    pub sparsity_batches: usize,
}

/// Evaluates `model` on all batches. Ranks share the batches, and each has the results. Calls
/// `progress` with the number of finished batches.
///
/// Full attention is evaluated once per batch and serves all budgets as reference. A model
/// whose method has no full attention gets no such row and no divergences.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, [`EvalError::NotFinite`] for a diverged
/// model, [`EvalError::Ranks`] if a rank is lost, and any error of the model.
pub fn perplexity(
    model: &Model,
    batches: &[EvalBatch],
    options: &PerplexityOptions,
    ranks: &mut Ranks,
    progress: &mut dyn FnMut(usize),
) -> Result<Perplexity> {
    Ok(evaluate(model, batches, (options, &[]), ranks, progress)?.0)
}

/// As [`perplexity`] in a process without other ranks, and in the same pass over the batches what
/// budgets by attention mass make of them: full attention is evaluated once for both.
///
/// # Errors
/// As [`perplexity`].
pub fn evaluate_budgets(
    model: &Model,
    batches: &[EvalBatch],
    options: &PerplexityOptions,
    mass_budgets: &[Budget],
    progress: &mut dyn FnMut(usize),
) -> Result<(Perplexity, Vec<MassResult>)> {
    evaluate(model, batches, (options, mass_budgets), &mut Ranks::alone(), progress)
}

fn evaluate(
    model: &Model,
    batches: &[EvalBatch],
    (options, mass_budgets): (&PerplexityOptions, &[Budget]),
    ranks: &mut Ranks,
    progress: &mut dyn FnMut(usize),
) -> Result<(Perplexity, Vec<MassResult>)> {
    let modes = modes(model, options);
    let has_full = modes.first().is_some_and(|mode| mode.budget.is_none());
    let mut by_mass = match mass_budgets {
        [] => None,
        budgets => Some(MassRuns::new(model, batches, budgets)?),
    };
    let lengths = [modes.len() + mass_budgets.len(), modes.len()];
    let measure = |index: usize, batch: &EvalBatch, sums: &mut Sums<SparsitySum>| {
        let (scores, sparsities) = sums;
        let measured = index < options.sparsity_batches;
        let forward = |(mode, sparsity): (&Mode, &mut SparsitySum)| {
            mode.forward(model, batch, measured.then_some(sparsity))
        };
        let hidden = modes.iter().zip(sparsities).map(forward);
        let mut hidden = hidden.collect::<Result<Vec<_>>>()?;
        if let Some(by_mass) = &mut by_mass {
            hidden.extend(by_mass.forward(batch)?);
        }
        add_scores(model, &hidden, &batch.labels, scores)?;
        check_finite(scores, index, |mode| match modes.get(mode) {
            Some(mode) => mode.name(),
            None => format!("sparse {}", mass_budgets[mode - modes.len()]),
        })?;
        progress(index + 1);
        Ok(())
    };
    let (scores, sparsities) = shared(batches, lengths, ranks, measure)?;
    let bytes: f64 = batches.iter().map(|batch| batch.bytes).sum();
    let targets = scores.first().map_or(0, |score| score.targets);
    if targets == 0 || bytes <= 0.0 {
        return Err(EvalError::NoTargets);
    }
    let (scores, mass_scores) = scores.split_at(modes.len());
    let results = modes
        .iter()
        .zip(scores)
        .zip(&sparsities)
        .map(|((mode, score), sparsity)| mode.result(score, sparsity, bytes, has_full))
        .collect();
    let perplexity = Perplexity {
        rows: batches.iter().map(|batch| batch.input.batch()).sum(),
        sequence_length: batches.first().map_or(0, |batch| batch.input.tokens()),
        targets,
        bytes: bytes.round() as usize,
        results,
    };
    let by_mass = by_mass.map(|by_mass| by_mass.results(mass_scores, bytes, has_full));
    Ok((perplexity, by_mass.unwrap_or_default()))
}

/// Evaluates `model` at budgets by attention mass on all batches. `progress` receives the number of
/// batches done after each.
///
/// # Errors
/// As [`perplexity`].
pub fn evaluate_mass_budgets(
    model: &Model,
    batches: &[EvalBatch],
    budgets: &[Budget],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<MassResult>> {
    if budgets.is_empty() {
        return Ok(Vec::new());
    }
    let rule = SelectionRule::Exact;
    let options = PerplexityOptions { budgets: Vec::new(), rule, sparsity_batches: 0 };
    Ok(evaluate_budgets(model, batches, &options, budgets, progress)?.1)
}

/// One inference mode to evaluate.
struct Mode {
    budget: Option<SparseBudget>,
    receptive_field: Option<usize>,
    attention: AttentionOptions,
    /// The block selection for attention sparsity.
    selection: SelectionOptions,
}

fn modes(model: &Model, options: &PerplexityOptions) -> Vec<Mode> {
    let config = model.config();
    let full = config.attention_method.has_mode(AttentionMode::Full).then(|| {
        let attention = config.attention_options(AttentionMode::Full);
        let selection = SelectionOptions { rule: options.rule, ..attention.selection };
        Mode { budget: None, receptive_field: None, attention, selection }
    });
    let sparse = options.budgets.iter().map(|&budget| {
        let selection = budget.selection(options.rule);
        let attention =
            AttentionOptions { selection, ..config.attention_options(AttentionMode::Sparse) };
        // A method without full attention reads a summary of every earlier block instead.
        let method = config.attention_method;
        let reads_all = !method.has_mode(AttentionMode::Full);
        let receptive_field = (!reads_all).then(|| budget.receptive_field());
        Mode { budget: Some(budget), receptive_field, attention, selection }
    });
    full.into_iter().chain(sparse).collect()
}

impl Mode {
    fn name(&self) -> String {
        self.budget.map_or_else(|| "full-attention".to_owned(), |budget| format!("sparse {budget}"))
    }

    fn forward(
        &self,
        model: &Model,
        batch: &EvalBatch,
        sparsity: Option<&mut SparsitySum>,
    ) -> Result<Tensor> {
        match sparsity {
            Some(sum) => forward_with_sparsity(model, batch, &self.attention, &self.selection, sum),
            None => Ok(model.forward(&batch.input, &self.attention)?),
        }
    }

    fn result(
        &self,
        score: &Score,
        sparsity: &SparsitySum,
        bytes: f64,
        has_full: bool,
    ) -> BudgetResult {
        let Quality { nats_per_token, perplexity, bits_per_byte, kl } = score.quality(bytes);
        BudgetResult {
            mode: if self.budget.is_some() { AttentionMode::Sparse } else { AttentionMode::Full },
            budget: self.budget,
            receptive_field: self.receptive_field,
            nats_per_token,
            perplexity,
            bits_per_byte,
            kl_full_sparse: (has_full && self.budget.is_some()).then_some(kl),
            attention_sparsity: sparsity.mean(),
        }
    }
}
