//! Budgets by attention mass: quality against the blocks that they read.

use serde::Serialize;
use ssa_infer::{Budget, CallOptions, Engine, InferenceModel, SelectionTotals};
use ssa_kernels::Tensor;
use ssa_model::{AttentionMode, Model};

use crate::Result;
use crate::batch::EvalBatch;
use crate::losses::{Quality, Score};

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

/// A model that runs batches at budgets by attention mass.
pub(crate) struct MassRuns<'a> {
    engine: Engine,
    options: CallOptions,
    budgets: &'a [Budget],
    /// What each layer selected at each budget.
    totals: Vec<Vec<SelectionTotals>>,
}

impl<'a> MassRuns<'a> {
    /// Ready for all of the batches.
    pub(crate) fn new(model: &Model, batches: &[EvalBatch], budgets: &'a [Budget]) -> Result<Self> {
        let config = model.config();
        let page_size = config.budget.block_size();
        let documents = batches.iter().flat_map(|batch| batch.input.documents().ranges());
        let longest = documents.map(|range| range.len()).max().unwrap_or(0);
        let inference = InferenceModel::new(model, config.attention_method)?;
        let sparse = config.attention_options(AttentionMode::Sparse);
        Ok(Self {
            engine: Engine::new(inference, page_size, longest.max(1))?,
            options: CallOptions::new(&sparse, page_size)?,
            budgets,
            totals: vec![vec![SelectionTotals::default(); config.num_hidden_layers]; budgets.len()],
        })
    }

    /// The hidden states `[B, T, hidden]` of a batch at each budget.
    pub(crate) fn forward(&mut self, batch: &EvalBatch) -> Result<Vec<Tensor>> {
        let Self { engine, options, budgets, totals } = self;
        let runs = budgets.iter().zip(totals).map(|(budget, totals)| {
            let mut options = *options;
            options.pages.budget = budget.page_budget();
            forward(engine, batch, &options, totals)
        });
        runs.collect()
    }

    /// The results at each budget, of its score.
    pub(crate) fn results(&self, scores: &[Score], bytes: f64, has_full: bool) -> Vec<MassResult> {
        let budgets = self.budgets.iter().zip(scores).zip(&self.totals);
        let result = |((&budget, score), layers): ((&Budget, &Score), &Vec<_>)| {
            let Quality { nats_per_token, perplexity, bits_per_byte, kl } = score.quality(bytes);
            let mut overall = SelectionTotals::default();
            layers.iter().for_each(|&layer| overall += layer);
            MassResult {
                budget,
                nats_per_token,
                perplexity,
                bits_per_byte,
                kl_full_sparse: has_full.then_some(kl),
                overall: MassMeans::of(&overall),
                layers: layers.iter().map(MassMeans::of).collect(),
            }
        };
        budgets.map(result).collect()
    }
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
