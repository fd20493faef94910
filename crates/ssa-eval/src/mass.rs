//! Budgets by attention mass: quality against the blocks that they read.

use serde::Serialize;
use ssa_data::bits_per_byte;
use ssa_infer::{Budget, CallOptions, Engine, InferenceModel, SelectionTotals};
use ssa_kernels::Tensor;
use ssa_model::{AttentionMode, Model};

use crate::batch::EvalBatch;
use crate::losses::{Score, add_scores, check_finite};
use crate::{EvalError, Result};

/// What sparse attention with a budget by attention mass reads, and what the model makes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MassResult {
    /// The budget.
    pub budget: Budget,
    /// Mean negative log-likelihood of a target token.
    pub nats_per_token: f64,
    /// `exp(nats_per_token)`.
    pub perplexity: f64,
    /// Total negative log-likelihood in bits over the bytes of text it covers.
    pub bits_per_byte: f64,
    /// Mean over target tokens of `KL(p_full || p_sparse)` of the next-token distributions, in
    /// nats; `None` for models that have no full attention.
    pub kl_full_sparse: Option<f64>,
    /// Means over all layers.
    pub overall: MassMeans,
    /// Means of each layer, the first layer first.
    pub layers: Vec<MassMeans>,
}

/// Means over tokens and heads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MassMeans {
    /// Blocks that a token reads.
    pub blocks_read: f64,
    /// The full-attention weight on these blocks, as selection estimates it from block means.
    pub estimated_mass: f64,
    /// The full-attention weight on these blocks.
    pub true_mass: f64,
}

impl MassMeans {
    fn of(totals: &SelectionTotals) -> Self {
        let mean = |sum: f64| sum / totals.selections as f64;
        Self {
            blocks_read: mean(totals.blocks as f64),
            estimated_mass: mean(totals.kept_mass),
            true_mass: mean(totals.true_mass),
        }
    }
}

/// Evaluates `model` at budgets by attention mass on all batches. `progress` receives the number of
/// batches done after each.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, [`EvalError::NotFinite`] for a diverged
/// model, and whatever the model refuses.
pub fn evaluate_mass_budgets(
    model: &Model,
    batches: &[EvalBatch],
    budgets: &[Budget],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<MassResult>> {
    if budgets.is_empty() {
        return Ok(Vec::new());
    }
    let config = model.config();
    let has_full = config.attention_method.has_mode(AttentionMode::Full);
    let page_size = config.budget.block_size();
    let documents = batches.iter().flat_map(|batch| batch.input.documents().ranges());
    let longest = documents.map(|range| range.len()).max().unwrap_or(0);
    let inference = InferenceModel::new(model, config.attention_method)?;
    let mut engine = Engine::new(inference, page_size, longest.max(1))?;
    let sparse = config.attention_options(AttentionMode::Sparse);
    let options = CallOptions::new(&sparse, page_size)?;
    let mut totals =
        vec![vec![SelectionTotals::default(); config.num_hidden_layers]; budgets.len()];
    let mut scores = vec![Score::default(); usize::from(has_full) + budgets.len()];
    for (index, batch) in batches.iter().enumerate() {
        let mut hidden = Vec::with_capacity(scores.len());
        if has_full {
            let full = config.attention_options(AttentionMode::Full);
            hidden.push(model.forward(&batch.input, &full)?);
        }
        for (budget, totals) in budgets.iter().zip(&mut totals) {
            let mut options = options;
            options.pages.budget = budget.page_budget();
            hidden.push(forward(&mut engine, batch, &options, totals)?);
        }
        add_scores(model, &hidden, &batch.labels, &mut scores)?;
        let name = |mode: usize| match mode.checked_sub(usize::from(has_full)) {
            None => "full-attention".to_owned(),
            Some(budget) => format!("sparse {}", budgets[budget]),
        };
        check_finite(&scores, index, name)?;
        progress(index + 1);
    }
    let bytes: f64 = batches.iter().map(|batch| batch.bytes).sum();
    let scores = &scores[usize::from(has_full)..];
    if scores.iter().any(|score| score.targets == 0) || bytes <= 0.0 {
        return Err(EvalError::NoTargets);
    }
    let results = budgets.iter().zip(scores).zip(&totals).map(|((&budget, score), layers)| {
        let nats_per_token = score.nll / score.targets as f64;
        let mut overall = SelectionTotals::default();
        layers.iter().for_each(|&layer| overall += layer);
        MassResult {
            budget,
            nats_per_token,
            perplexity: nats_per_token.exp(),
            bits_per_byte: bits_per_byte(score.nll, bytes),
            kl_full_sparse: has_full.then(|| score.kl / score.targets as f64),
            overall: MassMeans::of(&overall),
            layers: layers.iter().map(MassMeans::of).collect(),
        }
    });
    Ok(results.collect())
}

/// The hidden states `[B, T, hidden]` of a batch. Adds what each layer selected, padding excepted.
fn forward(
    engine: &mut Engine,
    batch: &EvalBatch,
    options: &CallOptions,
    totals: &mut [SelectionTotals],
) -> Result<Tensor> {
    let mut hidden = Vec::new();
    for range in batch.input.documents().ranges() {
        let measured = engine.measure(&batch.input.ids()[range.clone()], options)?;
        hidden.extend(measured.hidden);
        if batch.valid[range.start] {
            totals.iter_mut().zip(measured.layers).for_each(|(sum, layer)| *sum += layer);
        }
    }
    let width = engine.model().config().hidden_size;
    let shape = [batch.input.batch(), batch.input.tokens(), width];
    let device = engine.model().device();
    Ok(Tensor::from_vec(hidden, shape)?.to_device(device, device.dtype())?)
}
