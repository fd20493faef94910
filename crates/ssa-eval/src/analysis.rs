//! How well sparse attention approximates full attention, layer by layer.

use serde::{Deserialize, Serialize};
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, AttentionOptions, Model, SparseBudget};
use ssa_ranks::Ranks;

use crate::attention_means::{AttentionMeans, AttentionSums, forward_with_statistics};
use crate::batch::EvalBatch;
use crate::losses::{add_scores, check_finite};
use crate::shared::shared;
use crate::{EvalError, Result};

/// The analysis of a model at one sparse budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The budget of block selection and of sparse inference.
    pub budget: SparseBudget,
    /// Tokens analyzed.
    pub tokens: usize,
    /// One entry per inference mode: full (unless the method has none), sparse.
    pub hidden_states: Vec<ModeAttention>,
    /// Mean over target tokens of `KL(p_full || p_sparse)` of the next-token distributions, in
    /// nats.
    pub kl_full_sparse: Option<f64>,
}

/// Full and sparse attention computed from the hidden states of one inference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeAttention<M = AttentionMeans> {
    /// The inference mode that produced the hidden states.
    pub mode: AttentionMode,
    /// Means over all layers.
    pub overall: M,
    /// Means of each layer, in order.
    pub layers: Vec<M>,
}

impl<M> ModeAttention<M> {
    /// Maps the means.
    pub fn map<N>(&self, to: impl Fn(&M) -> N) -> ModeAttention<N> {
        ModeAttention {
            mode: self.mode,
            overall: to(&self.overall),
            layers: self.layers.iter().map(to).collect(),
        }
    }
}

impl Analysis {
    /// The entry of one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<&ModeAttention> {
        self.hidden_states.iter().find(|attention| attention.mode == mode)
    }
}

/// Analyzes `model` on all batches at one budget. Ranks share the batches, and each has the
/// results. Calls `progress` with the number of finished batches.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, [`EvalError::NotFinite`] for a diverged
/// model, [`EvalError::Ranks`] if a rank is lost, and any error of the model.
pub fn analyze(
    model: &Model,
    batches: &[EvalBatch],
    budget: SparseBudget,
    rule: SelectionRule,
    ranks: &mut Ranks,
    progress: &mut dyn FnMut(usize),
) -> Result<Analysis> {
    let config = model.config();
    let selection = budget.selection(rule);
    let modes: Vec<AttentionMode> = config.attention_method.modes().collect();
    let has_full = modes.len() > 1;
    let layers = config.num_hidden_layers;
    let lengths = [modes.len(), modes.len() * layers];
    let (scores, sums) = shared(batches, lengths, ranks, |index, batch, (scores, sums)| {
        let forward = |(&mode, sums): (&AttentionMode, &mut [AttentionSums])| -> Result<Tensor> {
            let attention = AttentionOptions { selection, ..config.attention_options(mode) };
            forward_with_statistics(model, batch, &attention, &selection, sums)
        };
        let hidden = modes.iter().zip(sums.chunks_mut(layers)).map(forward);
        let hidden = hidden.collect::<Result<Vec<_>>>()?;
        add_scores(model, &hidden, &batch.labels, scores)?;
        check_finite(scores, index, |mode| match modes[mode] {
            AttentionMode::Full => "full-attention".to_owned(),
            AttentionMode::Sparse => format!("sparse {budget}"),
        })?;
        progress(index + 1);
        Ok(())
    })?;
    let of_modes = modes.iter().zip(sums.chunks(layers));
    let hidden_states = of_modes.map(|(&mode, layers)| mode_attention(mode, layers));
    let sparse = scores.last().copied().unwrap_or_default();
    Ok(Analysis {
        budget,
        tokens: batches.iter().map(EvalBatch::valid_tokens).sum(),
        hidden_states: hidden_states.collect::<Option<_>>().ok_or(EvalError::NoTargets)?,
        kl_full_sparse: (has_full && sparse.targets > 0).then(|| sparse.kl / sparse.targets as f64),
    })
}

fn mode_attention(mode: AttentionMode, layers: &[AttentionSums]) -> Option<ModeAttention> {
    Some(ModeAttention {
        mode,
        overall: AttentionSums::overall(layers)?,
        layers: layers.iter().map(AttentionSums::means).collect::<Option<_>>()?,
    })
}
