//! How well sparse attention stands for full attention, layer by layer.

use serde::{Deserialize, Serialize};
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, AttentionOptions, Model, SparseBudget};

use crate::scoring::{Score, add_scores};
use crate::statistics::{AttentionMeans, AttentionSums, forward_with_statistics};
use crate::{EvalBatch, EvalError, Result};

/// The analysis of a model at one sparse budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The budget that selects the blocks, and that sparse inference runs at.
    pub budget: SparseBudget,
    /// Tokens analysed.
    pub tokens: usize,
    /// One entry per inference mode whose hidden states were analysed: full (unless the method has
    /// none), sparse.
    pub hidden_states: Vec<HiddenStates>,
    /// Mean over target tokens of `KL(p_full || p_sparse)` of the next-token distributions, in
    /// nats.
    pub kl_full_sparse: Option<f64>,
}

/// Attention under the hidden states of one inference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HiddenStates {
    /// The inference mode that produced the hidden states. Both attentions are computed from them
    /// all the same.
    pub mode: AttentionMode,
    /// Means over all layers.
    pub overall: AttentionMeans,
    /// Means of each layer, the first layer first.
    pub layers: Vec<AttentionMeans>,
}

impl Analysis {
    /// The entry of one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<&HiddenStates> {
        self.hidden_states.iter().find(|states| states.mode == mode)
    }
}

/// Analyses `model` on all batches at one budget. `progress` is told the number of batches done
/// after each.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, and whatever the model refuses.
pub fn analyze(
    model: &Model,
    batches: &[EvalBatch],
    budget: SparseBudget,
    rule: SelectionRule,
    progress: &mut dyn FnMut(usize),
) -> Result<Analysis> {
    let config = model.config();
    let selection = budget.selection(rule);
    let modes: Vec<AttentionMode> = config.attention_method.modes().collect();
    let has_full = modes.len() > 1;
    let mut sums = vec![vec![AttentionSums::default(); config.num_hidden_layers]; modes.len()];
    let mut scores = vec![Score::default(); modes.len()];
    for (index, batch) in batches.iter().enumerate() {
        let mut forward =
            |(&mode, sums): (&AttentionMode, &mut Vec<AttentionSums>)| -> Result<Tensor> {
                let attention = AttentionOptions { selection, ..config.attention_options(mode) };
                forward_with_statistics(model, batch, &attention, &selection, sums)
            };
        let hidden = modes.iter().zip(&mut sums).map(&mut forward).collect::<Result<Vec<_>>>()?;
        add_scores(model, &hidden, &batch.labels, &mut scores)?;
        progress(index + 1);
    }
    let hidden_states = modes.iter().zip(&sums).map(|(&mode, layers)| hidden_states(mode, layers));
    let sparse = scores.last().copied().unwrap_or_default();
    Ok(Analysis {
        budget,
        tokens: batches.iter().map(EvalBatch::valid_tokens).sum(),
        hidden_states: hidden_states.collect::<Option<_>>().ok_or(EvalError::NoTargets)?,
        kl_full_sparse: (has_full && sparse.targets > 0).then(|| sparse.kl / sparse.targets as f64),
    })
}

fn hidden_states(mode: AttentionMode, layers: &[AttentionSums]) -> Option<HiddenStates> {
    Some(HiddenStates {
        mode,
        overall: AttentionSums::overall(layers)?,
        layers: layers.iter().map(AttentionSums::means).collect::<Option<_>>()?,
    })
}
